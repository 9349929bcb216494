/**
 * The faults of a run, one after another, while the load goes on.
 *
 * Invariants
 * 1. No request meets two faults: the next begins when the worker of the last is ready in the master's fleet, holds its shards
 *    and has answered, and every request that began before that has ended.
 * 2. What is waited for is an event, of a request or of the master's fleet, by a deadline.
 */
import { KofnError, openScope, systemClock } from '@kofn/core';
import type { Cluster } from 'kofn';
import { untilFleet } from 'kofn/measure';
import type { Fault, FaultKind, Phase } from './faults.js';
import type { Fleet } from './fleet.js';
import type { Load } from './load.js';

/** Of 2 s silence, of 10 s for an attempt to connect, of 5 s between two: with room for a busy machine. */
const NOTICE_MS = 20_000;
const HEAL_MS = 90_000; // longer than the minute that a worker is put aside for, after replies that broke the protocol
const PASS_MS = 60_000;

/** States of a worker that calls do go to. */
const SOUND = ['ready', 'suspect'];

export class Disturbance implements Disposable {
  readonly counts: Partial<Record<FaultKind, number>> = {};
  /** Faults that the master never noticed, and workers that it did not use again. */
  unhealed = 0;
  /** Times that the master gave a worker up which nothing was wrong with. */
  falseAlarms = 0;
  /** Times that the master gave up one that something was wrong with. */
  losses = 0;
  readonly failures: string[] = [];
  readonly #cluster: Cluster;
  readonly #fleet: Fleet;
  /** What each worker holds after the deployment. */
  readonly #shards: readonly ReadonlySet<string>[];
  readonly #stop: () => void;
  #states: readonly string[];
  #fault: Fault | undefined;
  #phase: Phase = 'gap';

  constructor(cluster: Cluster, fleet: Fleet) {
    this.#cluster = cluster;
    this.#fleet = fleet;
    this.#shards = cluster.connections.map(({ shards }) => new Set(shards));
    this.#states = cluster.workers.map(({ state }) => state);
    this.#stop = cluster.onFleetChange(workers => {
      workers.forEach(({ index, state, reason }) => this.#saw(index, state, reason));
      this.#states = workers.map(({ state }) => state);
    });
  }

  /** The fault that shapes the next request. */
  get current(): string {
    if (this.#fault === undefined) return 'calm';
    const { kind, worker } = this.#fault;
    return `${this.#phase === 'healing' ? 'after ' : ''}${kind} of worker ${worker}`;
  }

  /** Faults so far. */
  get begun(): number {
    return Object.values(this.counts).reduce((sum, count) => sum + count, 0);
  }

  /** Carries `faults` out; stops at the first that does not heal, as another would be one too many. */
  async run(faults: readonly Fault[], load: Load): Promise<void> {
    for (const fault of faults) {
      this.#enter('gap', fault, load);
      await load.passed(fault.gap, PASS_MS);
      this.#fault = fault;
      try {
        await this.#carryOut(fault, load);
      } catch (error) {
        this.unhealed++;
        this.failures.push(`${this.current}: ${KofnError.from(error).message}`);
        return;
      }
      this.#fault = undefined;
    }
    await load.passed(1, PASS_MS);
  }

  async #carryOut(fault: Fault, load: Load): Promise<void> {
    const { kind, worker, length, untilNoticed } = fault;
    const wasLost = this.losses;
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    this.#enter('fault', fault, load);
    try {
      await this.#fleet.begin(fault);
      await load.passed(length, PASS_MS);
      if (untilNoticed) await this.#until(NOTICE_MS, `notice of ${kind}`, () => this.losses > wasLost);
    } finally {
      await this.#fleet.end(fault);
    }
    this.#enter('healing', fault, load);
    await this.#until(HEAL_MS, `return of worker ${worker}`, () => this.#isSound(worker));
    await load.usesWorker(worker, HEAL_MS);
  }

  #enter(phase: Phase, { blockIn }: Fault, load: Load): void {
    this.#phase = phase;
    if (phase === blockIn) load.block();
  }

  #isSound(worker: number): boolean {
    const { state, shards } = this.#cluster.connections[worker]!;
    return state.kind === 'ready' && [...this.#shards[worker]!].every(name => shards.has(name));
  }

  #saw(worker: number, state: string, reason: string): void {
    if (SOUND.includes(state) || !SOUND.includes(this.#states[worker]!)) return;
    if (worker === this.#fault?.worker) {
      this.losses++;
      return;
    }
    this.falseAlarms++;
    this.failures.push(`${this.current}: worker ${worker} was given up (${state}: ${reason})`);
  }

  async #until(deadlineMs: number, what: string, isDone: () => boolean): Promise<void> {
    using scope = openScope(systemClock, { deadlineMs, what });
    await untilFleet(this.#cluster, isDone, scope.signal);
  }

  [Symbol.dispose](): void {
    this.#stop();
  }
}
