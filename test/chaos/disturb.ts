/**
 * The faults of a run, one after another, while the load goes on.
 *
 * Invariants
 * 1. No request meets two faults: the next begins when the worker of the last is ready in the master's fleet, the model is whole again (its
 *    margin is r), the worker has answered if it holds something still, and every request that began before that has ended.
 * 2. What is waited for is the end of requests and what the master says when one has ended, by a deadline.
 */
import { KofnError } from '@kofn/core';
import type { Cluster, CodedModel } from 'kofn';
import type { Fault, FaultKind, Phase } from './faults.js';
import { PARITY, type Fleet } from './fleet.js';
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
  /** Blocks that were moved to another worker, or put again to one that had lost them. */
  healed = 0;
  readonly failures: string[] = [];
  readonly #cluster: Cluster;
  readonly #model: CodedModel;
  readonly #fleet: Fleet;
  readonly #stops: readonly (() => void)[];
  /** Workers that lied. */
  readonly #liars = new Set<number>();
  /** Shards that a worker did not take. */
  #refused = 0;
  #states: readonly string[];
  #fault: (Fault & { readonly worker: number }) | undefined;
  #phase: Phase = 'gap';

  constructor(cluster: Cluster, model: CodedModel, fleet: Fleet) {
    this.#cluster = cluster;
    this.#model = model;
    this.#fleet = fleet;
    this.#states = cluster.workers.map(({ state }) => state);
    this.#stops = [
      cluster.onFleetChange(workers => {
        workers.forEach(({ index, state, reason }) => this.#saw(index, state, reason));
        this.#states = workers.map(({ state }) => state);
      }),
      cluster.onEvent(({ kind }) => {
        if (kind === 'moved' || kind === 'restored') this.healed++;
        if (kind === 'failed') this.#refused++;
      }),
    ];
  }

  /** Replies that honest workers were blamed for. */
  get misjudged(): number {
    return this.#cluster.workers.reduce((sum, { index, wrongAnswers, falseAlarms }) => {
      return sum + falseAlarms + (this.#liars.has(index) ? 0 : wrongAnswers);
    }, 0);
  }

  /** How many more workers the model may lose now. */
  get margin(): number {
    return this.#model.health.margin!;
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
      const worker = this.#model.health.layers[0]!.workers[fault.block]![0]!;
      this.#fault = { ...fault, worker };
      try {
        await this.#carryOut(this.#fault, load);
      } catch (error) {
        this.unhealed++;
        this.failures.push(`${this.current}: ${KofnError.from(error).message}`);
        return;
      }
      this.#fault = undefined;
    }
    await load.passed(1, PASS_MS);
  }

  async #carryOut(fault: Fault & { readonly worker: number }, load: Load): Promise<void> {
    const { kind, worker, length, untilNoticed } = fault;
    const before = { losses: this.losses, refused: this.#refused };
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    if (kind === 'lie') this.#liars.add(worker);
    this.#enter('fault', fault, load);
    try {
      await this.#fleet.begin(worker, fault);
      await load.passed(length, PASS_MS);
      if (untilNoticed) await load.until(() => this.losses > before.losses, NOTICE_MS, `notice of ${kind}`);
      if (kind === 'lose') await load.until(() => !this.#holds(worker), HEAL_MS, `another in place of ${worker}`);
      const isRefused = () => this.#refused > before.refused || !this.#holds(worker); // moved before it was back
      if (kind === 'full') await load.until(isRefused, HEAL_MS, `refusal of worker ${worker}`);
    } finally {
      await this.#fleet.end(worker, fault);
    }
    if (kind === 'lie') {
      await load.passed(1, PASS_MS); // what it lied before has been looked into
      this.#cluster.release(worker);
    }
    this.#enter('healing', fault, load);
    const isWhole = () => this.#states[worker] === 'ready' && this.margin === PARITY;
    await load.until(isWhole, HEAL_MS, `return of worker ${worker} and all that it held`);
    await load.usesWorker(worker, () => !this.#holds(worker), HEAL_MS); // what it held may be on its way to another yet
  }

  #holds(worker: number): boolean {
    return this.#model.health.layers.some(({ workers }) => workers.flat().includes(worker));
  }

  #enter(phase: Phase, { blockIn }: Fault, load: Load): void {
    this.#phase = phase;
    if (phase === blockIn) load.block();
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

  [Symbol.dispose](): void {
    for (const stop of this.#stops) stop();
  }
}
