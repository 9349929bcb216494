/**
 * Whom the master puts aside: every worker that lies, and nobody else.
 *
 * What it holds the master to
 * 1. A worker that never lied is neither found wrong nor suspected in vain, and not put aside for wrong answers.
 * 2. One whose replies were always whole is not put aside for replies that cannot be used.
 * 3. Who gave two wrong replies that were looked at (lately, and on the version that answers now) is put aside; who gave one is found
 *    wrong. Of more than MAX_SUSPICIONS so many are looked into, until somebody is put aside.
 */
import type { Cluster, RunReport } from '@kofn/master';
import type { ScheduledFault } from '../faults.js';
import { LIES, type Lie } from '../lies.js';
import type { Violation } from './request.js';

/** packages/master/src/verify/verification.ts: more may go unconfirmed. */
const MAX_SUSPICIONS = 8;
const STRIKES = 2;

export class TrustCheck {
  readonly violations: Violation[] = [];
  /** Wrong replies that were not believed, by how they were wrong. */
  readonly caught = new Map<Lie, number>(LIES.map(lie => [lie, 0]));
  readonly #liars: ReadonlySet<number>;
  /** Workers that say what is no reply. */
  readonly #babblers: ReadonlySet<number>;
  readonly #said = new Set<Violation>();
  /** Wrong replies since the last judgement, by worker. */
  readonly #rejected = new Map<number, number>();
  readonly #judgedBefore = new Map<number, number>();
  #stop: () => void = () => undefined;

  constructor(faults: readonly ScheduledFault[]) {
    const whose = (...kinds: string[]) =>
      new Set(faults.filter(({ fault }) => kinds.includes(fault.kind)).map(({ worker }) => worker));
    this.#liars = whose('lie');
    this.#babblers = whose('spoil', 'frames');
  }

  /** From now on, until `stop`. */
  watch(cluster: Cluster): void {
    this.#rejected.clear();
    this.#judgedBefore.clear();
    this.#stop = cluster.onFleetChange(fleet => {
      for (const { index, state, reason } of fleet) {
        if (state !== 'quarantined') continue;
        const mayBe = reason.startsWith('answered wrong') ? this.#liars : this.#babblers;
        if (!mayBe.has(index)) this.#say(`worker ${index} is honest and was put aside: ${reason}`);
      }
    });
  }

  stop(): void {
    this.#stop();
  }

  /** An answer, in a phase with these faults. */
  onAnswer({ layers }: RunReport, faults: readonly ScheduledFault[]): void {
    // Layers that share their shards share what was rejected; the first has what was sent.
    for (const { worker } of layers.filter(({ bytesSent }) => bytesSent > 0).flatMap(({ rejected }) => rejected)) {
      this.#rejected.set(worker, (this.#rejected.get(worker) ?? 0) + 1);
      for (const { worker: liar, fault } of faults) {
        if (liar === worker && fault.kind === 'lie') this.caught.set(fault.how, this.caught.get(fault.how)! + 1);
      }
    }
  }

  /** What was suspected of the version before is not looked into any more. */
  onUpdate(): void {
    this.#rejected.clear();
  }

  /** A while after the last answer. Releases those that have been put aside, if any: what made them lie is mended. */
  judge(cluster: Cluster): boolean {
    let hasReleased = false;
    const all = [...this.#rejected.values()].reduce((sum, count) => sum + count, 0);
    const isAnyAside = cluster.connections.some(({ trust }) => trust.distrust !== undefined);
    let allJudged = 0;
    for (const { index, trust } of cluster.connections) {
      const { wrongAnswers, falseAlarms, distrust } = trust;
      const judged = wrongAnswers + falseAlarms - (this.#judgedBefore.get(index) ?? 0);
      allJudged += judged;
      const rejected = this.#rejected.get(index) ?? 0;
      if (distrust === undefined && all <= MAX_SUSPICIONS && judged < Math.min(STRIKES, rejected)) {
        this.#say(`worker ${index} answered wrong ${rejected} times and was found out ${judged} times`);
      }
      this.#judgedBefore.set(index, wrongAnswers + falseAlarms);
      if (distrust === undefined) continue;
      cluster.release(index);
      hasReleased = true;
    }
    if (!isAnyAside && allJudged < Math.min(MAX_SUSPICIONS, all)) {
      this.#say(`workers answered wrong ${all} times and were found out ${allJudged} times`);
    }
    this.#rejected.clear();
    this.checkHonest(cluster);
    return hasReleased;
  }

  /** At any time. */
  checkHonest(cluster: Cluster): void {
    for (const { index, wrongAnswers, falseAlarms } of cluster.workers) {
      if (this.#liars.has(index)) continue;
      if (wrongAnswers > 0) this.#say(`worker ${index} is found wrong and never lied`);
      if (falseAlarms > 0) this.#say(`worker ${index} gave a false alarm`);
    }
  }

  #say(violation: Violation): void {
    if (this.#said.has(violation)) return;
    this.#said.add(violation);
    this.violations.push(violation);
  }
}
