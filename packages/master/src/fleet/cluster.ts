/** The workers, the master's own engine, and what all models on them share. */
import { abortable, KofnError, openScope, type Clock, type Scope, type Signal, type Timer } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import { parseWorker } from '@kofn/wire';
import type { Registry } from 'prom-client';
import type { ModelHealth } from '../contract/health.js';
import { requireRange, requireWhole, type DispatchHooks, type ReplanOptions } from '../contract/options.js';
import type { Replanned } from '../contract/plan.js';
import type { AuditCounts, RequestEnd } from '../contract/report.js';
import { Admission } from './admission.js';
import type { Connection } from './connection.js';
import { Events, WorkerEvents, type ClusterEvent } from './events.js';
import { snapshot, type Fleet } from './fleet.js';
import { isItThere } from './link.js';
import { isGone, type WorkerState } from './worker-state.js';

/** Leases are 24 hours: a day's worth of failed renewals may pass. */
const RENEW_MS = 60 * 60_000;

/** Less than the 30 s that Kubernetes leaves between SIGTERM and SIGKILL. */
const GRACE_MS = 20_000;

/** What a cluster knows of a model that stands on it. */
export interface Standing {
  /** The owner's name for it. */
  readonly name: string;
  health(): ModelHealth;
  audits(): AuditCounts;
  /** Claims its shards for another lease. */
  renew(): Promise<void>;
  /** The numbers of the workers that it stands on. */
  workers(): readonly number[];
  /** A worker is new in the cluster. */
  welcome(connection: Connection): void;
  replan(options: ReplanOptions): Promise<Replanned>;
  /** Frees what the master holds of it; its claims stay. */
  release(): Promise<void>;
}

/** Connects to worker `index`. Throws as `Connection.open`. */
export type Open = (index: number, address: string, signal: Signal | undefined) => Promise<Connection>;

/** What a cluster and the models on it tell Prometheus. */
export type MakeMetrics = (cluster: Cluster, models: Iterable<Standing>) => Promise<Registry>;

export class Cluster implements AsyncDisposable {
  /** The first part of the owner of every claim made through this cluster. */
  readonly id: string;
  readonly clock: Clock;
  readonly hooks: DispatchHooks;
  /** The master's own engine: segments between coded layers, and blocks that no worker is left for. */
  readonly engine: Engine;
  readonly engineThreads: number;
  /** By number, which stays a worker's own: whoever holds this array sees those that are added. */
  readonly connections: readonly Connection[];
  readonly #connections: Connection[] = [];
  readonly #open: Open;
  /** The worker that is being added, for which another waits, and what ends that. */
  #adding: Promise<unknown> = Promise.resolve();
  #addition: Scope | undefined;
  readonly #admission: Admission;
  readonly #models = new Set<Standing>();
  readonly #events: Events;
  /** As the last change was told. */
  readonly #told = new Map<Connection, { readonly state: WorkerState; readonly judged: number }>();
  readonly #happenings = new WorkerEvents(event => this.tell(event));
  readonly #listeners = new Set<(fleet: Fleet) => void>();
  readonly #requestListeners = new Set<(end: RequestEnd) => void>();
  /** A worker that has been lost for so long has its shards put to others. */
  readonly healAfterMs: number;
  /** Made when it is asked for: workers change more often than anybody looks. */
  #fleet: Fleet | undefined;
  #metrics: Promise<Registry> | undefined;
  readonly #makeMetrics: MakeMetrics;
  #renewal: Timer;
  #planning: Promise<Engine> | undefined;
  #closed = false;
  #closing: Promise<void> | undefined;

  /** @internal Use {@link connect}. */
  constructor(parts: {
    id: string;
    clock: Clock;
    hooks: DispatchHooks;
    engine: Engine;
    engineThreads: number;
    maxInFlight: number;
    healAfterMs: number;
    connections: readonly Connection[];
    open: Open;
    makeMetrics: MakeMetrics;
  }) {
    this.id = parts.id;
    this.clock = parts.clock;
    this.hooks = parts.hooks;
    this.engine = parts.engine;
    this.engineThreads = parts.engineThreads;
    this.#admission = new Admission(parts.maxInFlight);
    this.healAfterMs = parts.healAfterMs;
    this.connections = this.#connections;
    this.#open = parts.open;
    this.#makeMetrics = parts.makeMetrics;
    this.#events = new Events(parts.clock);
    this.#renewal = this.#renewLater();
    for (const connection of parts.connections) this.#join(connection);
  }

  /** The workers as the master sees them now; a new array whenever one changes. */
  get workers(): Fleet {
    return (this.#fleet ??= snapshot(this.connections));
  }

  /** Calls `listener` with each new snapshot, at the moment of the change, until the result is called. */
  onFleetChange(listener: (fleet: Fleet) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** What happened lately, oldest first: the last 256 events. */
  get events(): readonly ClusterEvent[] {
    return this.#events.latest;
  }

  /** Calls `listener` with each event, at the moment that it happens, until the result is called. */
  onEvent(listener: (event: ClusterEvent) => void): () => void {
    return this.#events.listen(listener);
  }

  /**
   * For Prometheus: docs/metrics.md lists what is in it. What requests took is counted from the first call on, so make it before the
   * first request; each request then costs a few microseconds a layer more.
   */
  metrics(): Promise<Registry> {
    return (this.#metrics ??= this.#makeMetrics(this, this.#models));
  }

  /** Requests under way, and how many may be. */
  get load(): { readonly inFlight: number; readonly maxInFlight: number } {
    return this.#admission;
  }

  /** @internal Calls `listener` with the end of each request. It costs microseconds and never throws. */
  onRequest(listener: (end: RequestEnd) => void): void {
    this.#requestListeners.add(listener);
  }

  /** @internal */
  ended(end: RequestEnd): void {
    for (const listener of this.#requestListeners) listener(end);
  }

  /** @internal */
  tell(event: Omit<ClusterEvent, 'atMs'>): void {
    this.#events.tell(event);
  }

  #join(connection: Connection): void {
    this.#connections.push(connection);
    this.#fleet = undefined;
    connection.onChange(() => this.#changed(connection));
    this.#changed(connection);
  }

  /** Something of the connection is another. */
  #changed(connection: Connection): void {
    const { state, trust } = connection;
    if (!this.#closed) this.#happenings.ofSpeed(connection);
    const before = this.#told.get(connection);
    if (before?.state === state && before.judged === trust.judged) return;
    this.#told.set(connection, { state, judged: trust.judged });
    this.#fleet = undefined;
    if (!this.#closed) this.#happenings.ofState(connection);
    for (const listener of [...this.#listeners]) listener(this.workers);
  }

  /**
   * One more worker, at `address`; returns its number, the next. From now on it is a spare: models stand on it after a `replan`, or
   * when it takes what a lost worker held. Throws INVALID_ARGUMENT (no address, or one of a worker that the cluster has), UNAVAILABLE (nobody
   * answers), PROTOCOL (something else answers there), CANCELLED.
   */
  add(address: string, { signal }: { readonly signal?: Signal } = {}): Promise<number> {
    const adding = this.#adding.then(() => this.#add(address, signal));
    this.#adding = adding.catch(() => undefined);
    return adding;
  }

  async #add(given: string, signal: Signal | undefined): Promise<number> {
    this.assertOpen();
    const address = parseWorker('address', given);
    const same = this.#connections.find(each => each.address === address && each.state.kind !== 'removed');
    if (same !== undefined) {
      throw new KofnError('INVALID_ARGUMENT', `address: ${address} is worker ${same.index}; each worker counts once`);
    }
    const index = this.#connections.length;
    using scope = openScope(this.clock, { parent: signal });
    this.#addition = scope;
    const connection = await this.#open(index, address, scope.signal);
    try {
      this.assertOpen();
      if (isGone(connection.state)) {
        throw new KofnError('UNAVAILABLE', `${connection.whyAway}. ${isItThere(address)}`);
      }
    } catch (error) {
      await connection[Symbol.asyncDispose]();
      throw error;
    }
    this.#join(connection);
    this.tell({ kind: 'added', worker: index, message: `worker ${index} (${address}) was added` });
    for (const model of this.#models) model.welcome(connection);
    return index;
  }

  /**
   * Has worker `index` leave for good: it is connected to no more, and no plan counts it. Its number stays its own. What it holds it
   * keeps until the leases end. Throws INVALID_ARGUMENT (no such worker, the last one, or one that a model stands on: `replan` without
   * it first).
   */
  async remove(index: number): Promise<void> {
    this.assertOpen();
    requireWhole('worker', index, 0, this.#connections.length - 1);
    const connection = this.#connections[index]!;
    const holder = [...this.#models].find(model => model.workers().includes(index));
    if (holder !== undefined) {
      const what = `worker ${index} (${connection.address}) holds a part of model "${holder.name}"`;
      throw new KofnError('INVALID_ARGUMENT', `${what}; replan({ workers }) without it first`);
    }
    if (this.#connections.every(each => each === connection || each.state.kind === 'removed')) {
      throw new KofnError(
        'INVALID_ARGUMENT',
        `worker ${index} is the last of the cluster; add others first, or close it`,
      );
    }
    await connection.remove();
  }

  /**
   * Plans each model anew for the workers that are ready now, one model after the other: see `CodedModel.replan`. The first failure is
   * thrown; models before it stand by their new plan, all others by their old one.
   */
  async replan(options: ReplanOptions = {}): Promise<readonly Replanned[]> {
    this.assertOpen();
    const replanned: Replanned[] = [];
    for (const model of [...this.#models]) if (this.#models.has(model)) replanned.push(await model.replan(options));
    return replanned;
  }

  /**
   * Believes worker `index` again, which was quarantined: once what made it compute wrongly is mended. Throws INVALID_ARGUMENT (no
   * such worker).
   */
  release(index: number): void {
    requireWhole('worker', index, 0, this.connections.length - 1);
    this.connections[index]!.release();
  }

  /** Throws UNAVAILABLE once the cluster drains, CANCELLED once it is closed. */
  assertOpen(): void {
    this.#admission.assertOpen();
    if (this.#closed) throw new KofnError('CANCELLED', 'the cluster is closed; connect again');
  }

  /** @internal One more request, until it is disposed. Throws RESOURCE_EXHAUSTED. */
  admit(): Disposable {
    return this.#admission.admit();
  }

  /**
   * @internal The engine to plan with. It may be busy for seconds, so while models answer requests it is another than theirs.
   */
  planningEngine(): Promise<Engine> {
    const { name } = this.engine;
    if (this.#models.size === 0 || name === 'simulated') return Promise.resolve(this.engine);
    return (this.#planning ??= createEngine(name));
  }

  /** @internal `name`, with a number where another model has it. */
  freeName(name: string): string {
    const taken = new Set([...this.#models].map(model => model.name));
    let free = name;
    for (let number = 2; taken.has(free); number++) free = `${name.slice(0, 190)} ${number}`;
    return free;
  }

  /** @internal A model stands on the cluster from now on, until the result is called. */
  stand(model: Standing): () => void {
    this.#models.add(model);
    return () => void this.#models.delete(model);
  }

  /**
   * What a program does on SIGTERM: refuses new requests and deployments (UNAVAILABLE), waits until the requests under way have
   * ended, `graceMs` at most (default 20,000), and closes. Throws INVALID_ARGUMENT.
   */
  async drain({ graceMs = GRACE_MS }: { graceMs?: number } = {}): Promise<void> {
    requireRange('graceMs', graceMs, 0, 2 ** 31 - 1);
    using grace = openScope(this.clock, { deadlineMs: graceMs, what: 'drain of the cluster' });
    await abortable(this.#admission.drain(), grace.signal).catch(() => undefined); // what is left ends with the cluster
    await this.close();
  }

  /**
   * Ends every connection and the engine. Requests that run end with CANCELLED; `drain` lets them end. Models' shards stay claimed on
   * the workers until their leases end, so that the next program need not send them; `model.close()` gives them up.
   */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#closed = true;
    this.#renewal.cancel();
    for (const model of [...this.#models]) await model.release();
    this.#addition?.abort(new KofnError('CANCELLED', 'the cluster was closed meanwhile'));
    await this.#adding;
    await Promise.all(this.connections.map(connection => connection[Symbol.asyncDispose]()));
    await this.engine[Symbol.asyncDispose]();
    const planning = await this.#planning?.catch(() => undefined);
    await planning?.[Symbol.asyncDispose]();
  }

  #renewLater(): Timer {
    const renew = () => {
      this.#renewal = this.#renewLater();
      for (const model of this.#models) void model.renew();
    };
    return this.clock.setTimer(renew, RENEW_MS, { background: true });
  }
}
