/**
 * Whether the replies of a layer's workers fit together, looked at behind the answer (`verify: 'audit'`): the calls that an answer does
 * not need go on, and what the code has beyond k blocks is checked when they have come. dispatch.ts hands over calls and replies; who is
 * named goes to verification.ts, which finds out.
 *
 * Invariants
 * 1. No answer waits for an audit: what an audit computes, it computes in later turns of the event loop.
 * 2. What audits hold is at most `maxAuditBytes`; a request for which there is no room is not audited.
 * 3. An audit waits WAIT_MS at most, and not beyond its request's deadline; when more than MAX_WAITING wait, the oldest looks at what it
 *    has, and all do when a request waits for room at the workers.
 * 4. Nobody is marked here: a name is a suspicion, that the master's own computation confirms or not.
 * 5. After dispose no call, timer or audit is left.
 */
import { KofnError, openScope, type Clock, type Float32Tensor, type Scope, type Signal } from '@kofn/core';
import { inputEnergies, misfit, parityChecks, unitEnergies, type CheckedLayer } from '@kofn/encoder';
import type { Connection } from '../fleet/connection.js';
import type { ClusterEvent } from '../fleet/events.js';
import type { GroupOutputs } from '../blocks/group-outputs.js';
import type { LocalBlocks } from '../blocks/recover.js';
import type { EncodedLayer } from '../blocks/shard-maker.js';
import { inPieces, nextTurn } from '../blocks/turns.js';
import { copyOf, windowOf } from './verification.js';
import { ANSWERED, type RequestContext } from '../blocks/worker-call.js';
import type { AuditOutcome } from '../contract/report.js';
import type { Suspicion } from '../blocks/suspicion.js';

const WAIT_MS = 5_000;
const MAX_WAITING = 8;
const LATE = new KofnError('CANCELLED', 'the layer has its answer, and its audit waits no longer');
const CLOSED = new KofnError('CANCELLED', 'the model was closed meanwhile');

export interface AuditorParts {
  readonly clock: Clock;
  readonly maxBytes: number;
  tell(event: Omit<ClusterEvent, 'atMs'>): void;
  suspect(suspicion: Suspicion): void;
}

/** The audits of one deployment. */
export class Auditor implements AsyncDisposable {
  readonly parts: AuditorParts;
  #heldBytes = 0;
  #isClosed = false;
  /** Behind their answers, for late replies; the oldest first. */
  readonly #waiting = new Set<Audit>();
  readonly #running = new Set<Promise<void>>();

  constructor(parts: AuditorParts) {
    this.parts = parts;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** What dispatch needs for `layers`, which share an input: encodes each once more. */
  of(layers: readonly EncodedLayer[]): LayerAudits {
    return new LayerAudits(
      this,
      layers.map(({ layer: { fanIn }, encoding }) => {
        const { code, partition, scales } = encoding;
        const units = partition.groups * partition.blockUnits;
        const energies = Array.from({ length: code.n }, (_, block) => unitEnergies(encoding.block(block), units));
        return { code, partition, scales, fanIn, energies };
      }),
    );
  }

  /** Whether there is room for so much more; it is taken then. */
  hold(bytes: number): boolean {
    if (this.#isClosed || this.#heldBytes + bytes > this.parts.maxBytes) return false;
    this.#heldBytes += bytes;
    return true;
  }

  release(bytes: number): void {
    this.#heldBytes -= bytes;
  }

  /** `audit` waits from now on for late replies. */
  waits(audit: Audit): void {
    this.#waiting.add(audit);
    const [oldest] = this.#waiting;
    if (this.#waiting.size > MAX_WAITING) oldest!.endWait(LATE);
    if (this.#isClosed) audit.endWait(CLOSED);
  }

  waitsNoLonger(audit: Audit): void {
    this.#waiting.delete(audit);
  }

  /** Ends the waits of all, so that workers have room for a request; false when there was none. */
  makeRoom(): boolean {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const audit of waiting) audit.endWait(LATE);
    return waiting.length > 0;
  }

  /** `finishing` is over before dispose is. */
  track(finishing: Promise<void>): void {
    this.#running.add(finishing);
    void finishing.finally(() => this.#running.delete(finishing));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    for (const audit of this.#waiting) audit.endWait(CLOSED);
    await Promise.all(this.#running);
  }
}

/** The audits of layers that share an input. */
export class LayerAudits {
  readonly #auditor: Auditor;
  readonly #layers: readonly CheckedLayer[];

  constructor(auditor: Auditor, layers: readonly CheckedLayer[]) {
    this.#auditor = auditor;
    this.#layers = layers;
  }

  /** As `Auditor.makeRoom`. */
  makeRoom(): boolean {
    return this.#auditor.makeRoom();
  }

  /** The audit of one request, whose outcome goes to `context.audits`; undefined when there is no room. */
  begin(outputs: GroupOutputs, local: LocalBlocks, context: RequestContext): Audit | undefined {
    const { n, k } = this.#layers[0]!.code;
    const inputBytes = 4 * outputs.input.data.length;
    const bytes = inputBytes + (n + k) * (outputs.bytes - inputBytes); // its replies, and the outputs that hang on them
    if (!this.#auditor.hold(bytes)) {
      context.audits.push(Promise.resolve('skipped'));
      return undefined;
    }
    const audit = new Audit({ auditor: this.#auditor, layers: this.#layers, outputs, local, bytes }, context);
    context.audits.push(audit.outcome);
    return audit;
  }
}

interface Parts {
  readonly auditor: Auditor;
  readonly layers: readonly CheckedLayer[];
  readonly outputs: GroupOutputs;
  readonly local: LocalBlocks;
  /** What it holds, for which there is room. */
  readonly bytes: number;
}

export class Audit implements Disposable {
  /** Never rejects. */
  readonly outcome: Promise<AuditOutcome>;
  readonly #parts: Parts;
  readonly #request: number;
  readonly #deadlineAt: number;
  readonly #scope: Scope;
  /** By block, what its worker replied of each layer. */
  readonly #replies = new Map<number, { readonly connection: Connection; readonly values: readonly Float32Array[] }>();
  /** A copy: the caller may use its buffer for something else once it has the answer. */
  #input: Float32Tensor | undefined;
  #isKept = false;
  #settle!: (outcome: AuditOutcome) => void;

  constructor(parts: Parts, { request, deadlineAt, signal }: RequestContext) {
    this.#parts = parts;
    this.#request = request;
    this.#deadlineAt = deadlineAt;
    this.#scope = openScope(parts.auditor.parts.clock, { parent: signal });
    this.outcome = new Promise(resolve => (this.#settle = resolve));
  }

  /** The layer's calls end with it: when the request fails, after `keep` also when the audit waits no longer. */
  get signal(): Signal {
    return this.#scope.signal;
  }

  /** A verified reply, whether or not the answer needs it. */
  take(block: number, connection: Connection, values: readonly Float32Array[]): void {
    if (this.#replies.has(block)) return;
    this.#input ??= copyOf(this.#parts.outputs.input);
    this.#replies.set(block, { connection, values });
  }

  /** The layer has its answer; `calls`, none of which rejects, go on, unless the request fails later: then nobody has an answer to audit. */
  keep(calls: Iterable<Promise<void>>): void {
    const { auditor } = this.#parts;
    this.#isKept = true;
    auditor.track(this.#finish([...calls]));
    auditor.waits(this);
  }

  /** Calls that have not been answered are cancelled; what has come is looked at. */
  endWait(reason: KofnError): void {
    this.#scope.abort(reason);
  }

  /** Without `keep` there is nothing to audit. */
  [Symbol.dispose](): void {
    if (this.#isKept) return;
    this.#scope.abort(ANSWERED);
    this.#scope[Symbol.dispose]();
    this.#end('skipped');
  }

  #end(outcome: AuditOutcome): void {
    this.#parts.auditor.release(this.#parts.bytes);
    this.#settle(outcome);
  }

  async #finish(calls: readonly Promise<void>[]): Promise<void> {
    const { auditor } = this.#parts;
    const { clock } = auditor.parts;
    const waitMs = Math.max(0, Math.min(WAIT_MS, this.#deadlineAt - clock.now()));
    const timer = clock.setTimer(() => this.endWait(LATE), waitMs);
    await Promise.all(calls);
    timer.cancel();
    this.#scope[Symbol.dispose]();
    this.endWait(LATE); // whatever else goes with the signal, as the timer of a hedge
    auditor.waitsNoLonger(this);
    await nextTurn(); // the answer goes first
    this.#end(await this.#judge());
  }

  async #judge(): Promise<AuditOutcome> {
    const { auditor, layers, outputs } = this.#parts;
    const present = [...this.#replies.keys()].sort((a, b) => a - b);
    if (auditor.isClosed || parityChecks(layers[0]!.code, present).length === 0) return 'skipped';
    const energies: Float64Array[] = [];
    for (const [index, layer] of layers.entries()) {
      const reads = { groups: layer.partition.groups, fanIn: layer.fanIn };
      const input = this.#input!;
      const wanted = inputEnergies(reads, input.data, windowOf(outputs.parts[index]!, input));
      await inPieces(wanted.work, () => auditor.isClosed);
      energies.push(wanted.energies);
    }
    const fit = await this.#fits(present, energies);
    if (fit === undefined) return 'skipped';
    if (fit) return 'passed';
    await this.#accuse(present, energies);
    return 'failed';
  }

  /** Whether the replies of `blocks` do, of each layer; undefined when the model was closed meanwhile. */
  async #fits(blocks: readonly number[], energies: readonly Float64Array[]): Promise<boolean | undefined> {
    const { auditor, layers, outputs } = this.#parts;
    for (const [index, layer] of layers.entries()) {
      const checks = parityChecks(layer.code, blocks);
      const replies = new Map(blocks.map(block => [block, this.#replies.get(block)!.values[index]!]));
      const { positions } = outputs.parts[index]!;
      const work = misfit(layer, checks, replies, { energies: energies[index]!, positions });
      const off = await inPieces(work, () => auditor.isClosed);
      if (off === undefined) return undefined;
      if (!(off <= 1)) return false;
    }
    return true;
  }

  /** Tells of it, and looks for the one reply without which the others fit together. */
  async #accuse(present: readonly number[], energies: readonly Float64Array[]): Promise<void> {
    const { auditor, outputs, local } = this.#parts;
    const suspects: number[] = [];
    for (const block of present) {
      const others = present.filter(each => each !== block);
      if (await this.#fits(others, energies)) suspects.push(block);
    }
    const [block] = suspects;
    const isNamed = block !== undefined && suspects.length === 1;
    const { connection, values } = this.#replies.get(block ?? present[0]!)!;
    const { name: layer } = outputs;
    const workers = present.map(each => this.#replies.get(each)!.connection.index);
    const who = isNamed
      ? `without that of worker ${connection.index} the others do`
      : 'which is wrong cannot be told from them';
    const message = `replies of workers ${workers.join(', ')} to layer ${layer}, request ${this.#request}, do not fit together; ${who}`;
    const about = isNamed ? { worker: connection.index } : {};
    auditor.parts.tell({ kind: 'audit-failed', layer, request: this.#request, workers, ...about, message });
    const { releases } = connection.trust;
    if (isNamed)
      auditor.parts.suspect({ connection, releases, layer, block, input: this.#input!, values, local, outputs });
  }
}
