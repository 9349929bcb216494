/**
 * The fleet as the master sees it is what it is: who is there is ready, who is gone or stuck is not, who is sound never leaves.
 *
 * Invariants that it holds the master to
 * 1. A worker that has said nothing for `silenceMs` is dead to the master, and gets no calls.
 * 2. A worker whose engine is stuck (packages/worker/src/inference/run-watch.ts) is not ready, and gets no calls.
 * 3. A worker that never had a fault is ready from the first moment to the last.
 * 4. Whoever runs is ready again when the next phase begins: nobody is forgotten.
 * 5. To each worker leads one channel at most.
 */
import type { Clock } from '@kofn/core';
import type { Cluster, WorkerView } from '@kofn/master';
import type { Machine, MachineObserver } from '../machine.js';
import type { NetworkObserver, SimChannel } from '../sim-channel.js';
import type { Violation } from './request.js';

/** packages/worker/src/inference/run-watch.ts. */
const STUCK_MS = 2_000;
const STUCK_FACTOR = 10;
const QUESTION_EVERY = 0.25;

export class FleetCheck implements Pick<NetworkObserver, 'onFrame'>, Pick<MachineObserver, 'onAway' | 'onStuck'> {
  readonly violations: Violation[] = [];
  readonly #clock: Clock;
  readonly #silenceMs: number;
  readonly #machines: readonly Machine[];
  readonly #sound: ReadonlySet<number>;
  readonly #said = new Set<Violation>();
  #cluster: Cluster | undefined;
  #sinceMs = 0;
  #stop: () => void = () => undefined;

  constructor(parts: { clock: Clock; silenceMs: number; machines: readonly Machine[]; sound: ReadonlySet<number> }) {
    this.#clock = parts.clock;
    this.#silenceMs = parts.silenceMs;
    this.#machines = parts.machines;
    this.#sound = parts.sound;
  }

  /** From now on, until `stop`. */
  watch(cluster: Cluster): void {
    this.#cluster = cluster;
    this.#sinceMs = this.#clock.now();
    this.#stop = cluster.onFleetChange(fleet => {
      for (const view of fleet) {
        if (!this.#sound.has(view.index) || view.state === 'ready') continue;
        this.#say(`worker ${view.index} is sound but became ${wordsOf(view)}`);
      }
    });
  }

  /** Before the cluster is closed. */
  stop(): void {
    this.#stop();
    this.#cluster = undefined;
  }

  onFrame: NetworkObserver['onFrame'] = (link, _stream, direction, { kind }) => {
    if (direction === 'back' || kind !== 'request' || this.#cluster === undefined) return;
    const machine = this.#machines.find(each => each.link === link)!;
    if (this.#clock.now() > this.#knownAwayMs(machine)) this.#say(`${machine.name} was sent a call while it was away`);
    if (this.#clock.now() > this.#knownStuckMs(machine))
      this.#say(`${machine.name} was sent a call while it was stuck`);
  };

  onAway: MachineObserver['onAway'] = machine => {
    const from = machine.awayFromMs;
    this.#at(this.#knownAwayMs(machine), () => {
      if (machine.awayFromMs !== from) return;
      const dueMs = this.#knownAwayMs(machine);
      if (this.#clock.now() < dueMs) return this.onAway(machine); // heard of meanwhile
      const view = this.#viewOf(machine);
      if (view !== undefined && view.state !== 'dead' && view.state !== 'connecting') {
        this.#say(`${machine.name} has been away for ${this.#clock.now() - from!} ms and is ${wordsOf(view)}`);
      }
    });
  };

  onStuck: MachineObserver['onStuck'] = machine => {
    const from = machine.runningFromMs;
    this.#at(this.#knownStuckMs(machine), () => {
      if (machine.runningFromMs !== from || machine.awayFromMs !== undefined) return;
      if (this.#clock.now() < this.#knownStuckMs(machine)) return this.onStuck(machine); // away meanwhile
      const view = this.#viewOf(machine);
      if (view?.state === 'ready' || view?.reason === 'silent') {
        this.#say(`${machine.name} is stuck in a run since ${from} ms and is ${wordsOf(view)}`);
      }
    });
  };

  /** A channel was opened beside `others`. */
  onChannel(channel: SimChannel, others: readonly SimChannel[]): void {
    const open = others.filter(({ address, isClosed }) => address === channel.address && !isClosed);
    if (open.length > 0) this.#say(`${open.length + 1} channels lead to ${channel.address} at once`);
  }

  /** After `idleMs` without faults (scenario.ts makes that long enough). */
  checkReady(idleMs: number): void {
    if (idleMs === 0) return;
    for (const machine of this.#machines) {
      const view = this.#viewOf(machine);
      if (view === undefined || !machine.serves || view.state === 'ready') continue;
      this.#say(`${machine.name} is not ready again after ${idleMs} ms without faults but ${wordsOf(view)}`);
    }
  }

  /** From when on the master knows that it is away. */
  #knownAwayMs(machine: Machine): number {
    if (machine.awayFromMs === undefined) return Infinity;
    return Math.max(machine.awayFromMs, machine.link.heardMs, this.#sinceMs) + this.#silenceMs + slackMs(machine);
  }

  /** From when on the master knows that its engine is stuck. */
  #knownStuckMs(machine: Machine): number {
    if (machine.awayFromMs !== undefined || machine.runningFromMs === undefined) return Infinity;
    const stuckMs = machine.runningFromMs + Math.max(STUCK_MS, STUCK_FACTOR * machine.longestRunMs);
    const askedMs = QUESTION_EVERY * this.#silenceMs + 2 * slackMs(machine);
    return Math.max(stuckMs, machine.awayUntilMs, this.#sinceMs) + askedMs;
  }

  #viewOf({ index }: Machine): WorkerView | undefined {
    return this.#cluster?.workers[index];
  }

  #at(ms: number, work: () => void): void {
    if (ms !== Infinity) this.#clock.setTimer(work, ms - this.#clock.now() + 1e-3);
  }

  #say(violation: Violation): void {
    if (this.#said.has(violation)) return;
    this.#said.add(violation);
    this.violations.push(violation);
  }
}

/** What is on its way when a silence begins still arrives, an answer to it as well. */
function slackMs({ link }: Machine): number {
  return 50 + 2 * link.slowestMs;
}

function wordsOf({ state, reason }: WorkerView): string {
  return reason === '' ? state : `${state} (${reason})`;
}
