/** What checks the workers of one deployment, as `verify` says: before the answer (verification.ts) or behind it (audit.ts). */
import { Auditor } from '../verify/audit.js';
import type { Cluster } from '../fleet/cluster.js';
import type { DeployedGroup } from '../request/deployed-group.js';
import type { ResolvedVerify } from '../contract/options.js';
import type { EncodedLayer } from '../blocks/shard-maker.js';
import { fingerprintsOf, Investigation } from '../verify/verification.js';
import type { Suspicion } from '../blocks/suspicion.js';

export class Verifier implements AsyncDisposable {
  readonly #verify: ResolvedVerify;
  readonly #investigation = new Investigation();
  readonly #auditor: Auditor;

  constructor(verify: ResolvedVerify, cluster: Cluster) {
    this.#verify = verify;
    this.#auditor = new Auditor({
      clock: cluster.clock,
      maxBytes: verify.maxAuditBytes,
      tell: event => cluster.tell(event),
      suspect: suspicion => this.investigate([suspicion]),
    });
  }

  /** What dispatch needs for layers that share an input. */
  of(encode: () => readonly EncodedLayer[]): Pick<DeployedGroup, 'fingerprints' | 'audits'> {
    switch (this.#verify.how) {
      case 'none':
        return {};
      case 'fingerprint':
        return { fingerprints: fingerprintsOf(encode()) };
      case 'audit':
        return { audits: this.#auditor.of(encode()) };
    }
  }

  investigate(suspicions: readonly Suspicion[]): void {
    if (suspicions.length > 0) this.#investigation.add(suspicions);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#auditor[Symbol.asyncDispose]();
    await this.#investigation[Symbol.asyncDispose]();
  }
}
