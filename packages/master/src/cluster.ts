/** `connect`: the workers, the master's own engine, and what all models on them share. */
import { randomInt } from 'node:crypto';
import { abortable, KofnError, openScope, seededRng, type Clock, type Rng, type Timer } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import { connectChannel } from '@kofn/wire';
import type { Registry } from 'prom-client';
import { Admission } from './admission.js';
import { Connection } from './connection.js';
import { Events, type ClusterEvent } from './events.js';
import { snapshot, type Fleet, type WorkerState } from './fleet.js';
import type { ModelHealth } from './holding.js';
import type { OpenChannel } from './link.js';
import {
  requireRange,
  requireWhole,
  resolveConnectOptions,
  type ConnectOptions,
  type DispatchHooks,
} from './options.js';

/** Leases are 24 hours: a day's worth of failed renewals may pass. */
const RENEW_MS = 60 * 60_000;

/** Less than the 30 s that Kubernetes leaves between SIGTERM and SIGKILL. */
const GRACE_MS = 20_000;

/** What a cluster knows of a model that stands on it. */
export interface Standing {
  /** The owner's name for it. */
  readonly name: string;
  health(): ModelHealth;
  /** Claims its shards for another lease. */
  renew(): Promise<void>;
  /** Frees what the master holds of it; its claims stay. */
  release(): Promise<void>;
}

export class Cluster implements AsyncDisposable {
  /** The first part of the owner of every claim made through this cluster. */
  readonly id: string;
  readonly clock: Clock;
  readonly hooks: DispatchHooks;
  /** The master's own engine: segments between coded layers, and blocks that no worker is left for. */
  readonly engine: Engine;
  readonly engineThreads: number;
  readonly connections: readonly Connection[];
  readonly #admission: Admission;
  readonly #models = new Set<Standing>();
  readonly #events: Events;
  /** As the last change was told. */
  readonly #states = new Map<Connection, WorkerState>();
  readonly #judged = new Map<Connection, number>();
  readonly #lost = new Set<Connection>();
  readonly #stragglers = new Set<Connection>();
  readonly #listeners = new Set<(fleet: Fleet) => void>();
  /** A worker that has been lost for so long has its shards put to others. */
  readonly healAfterMs: number;
  /** Made when it is asked for: workers change more often than anybody looks. */
  #fleet: Fleet | undefined;
  #metrics: Promise<Registry> | undefined;
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
  }) {
    this.id = parts.id;
    this.clock = parts.clock;
    this.hooks = parts.hooks;
    this.engine = parts.engine;
    this.engineThreads = parts.engineThreads;
    this.#admission = new Admission(parts.maxInFlight);
    this.healAfterMs = parts.healAfterMs;
    this.connections = parts.connections;
    this.#events = new Events(parts.clock);
    this.#renewal = this.#renewLater();
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

  /** For Prometheus, read at each scrape: workers with their speeds, and the margin of each layer of each model. */
  metrics(): Promise<Registry> {
    const read = () => ({ workers: this.workers, models: this.#models });
    return (this.#metrics ??= import('./metrics.js').then(({ clusterMetrics }) => clusterMetrics(read)));
  }

  /** @internal */
  tell(event: Omit<ClusterEvent, 'atMs'>): void {
    this.#events.tell(event);
  }

  /** @internal Something of the connection is another. */
  changed(connection: Connection): void {
    const { state, trust } = connection;
    if (!this.#closed) this.#tellOfSpeed(connection);
    if (this.#states.get(connection) === state && (this.#judged.get(connection) ?? 0) === trust.judged) return;
    this.#states.set(connection, state);
    this.#judged.set(connection, trust.judged);
    this.#fleet = undefined;
    if (!this.#closed) this.#tellOf(connection);
    for (const listener of [...this.#listeners]) listener(this.workers);
  }

  #tellOf(connection: Connection): void {
    const { state, index: worker, address } = connection;
    if (state.kind === 'dead' && !this.#lost.has(connection)) {
      this.#lost.add(connection);
      this.tell({ kind: 'lost', worker, message: `worker ${worker} (${address}) is lost: ${state.reason}` });
    } else if (state.kind === 'ready' && this.#lost.delete(connection)) {
      this.tell({ kind: 'back', worker, message: `worker ${worker} (${address}) is back` });
    }
  }

  #tellOfSpeed(connection: Connection): void {
    const { index: worker, address, speed } = connection;
    if (speed.isStraggler === this.#stragglers.has(connection)) return;
    const { slowness, inTime } = speed.view;
    const how = `its blocks take ${slowness!.toFixed(1)} times as long as those of the others`;
    const cost = `${Math.round(100 * (inTime ?? 0))} % of its latest calls were answered in time to be used`;
    if (speed.isStraggler) {
      this.#stragglers.add(connection);
      this.tell({
        kind: 'straggler',
        worker,
        message: `worker ${worker} (${address}) is a straggler: ${how}; ${cost}`,
      });
    } else {
      this.#stragglers.delete(connection);
      this.tell({ kind: 'steady', worker, message: `worker ${worker} (${address}) is no straggler any more: ${how}` });
    }
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

/** What a simulator puts in the place of ours; a cluster closes what it is given. */
export interface ClusterParts {
  readonly engine?: Engine;
  readonly openChannel?: OpenChannel;
  /** For the jitter of reconnects. */
  readonly rng?: Rng;
}

/**
 * Connects to every worker. Throws INVALID_ARGUMENT (options), UNAVAILABLE (a worker that does not answer, named),
 * PROTOCOL (something else answers there), ENGINE (the master's own engine does not start).
 */
export async function connect(options: ConnectOptions, simulated: ClusterParts = {}): Promise<Cluster> {
  const resolved = resolveConnectOptions(options);
  const { rng = seededRng(randomInt(2 ** 32)), openChannel = connectChannel } = simulated;
  const parts: AsyncDisposable[] = [];
  const opened = async <T extends AsyncDisposable>(opening: Promise<T>): Promise<T> => {
    const part = await opening;
    parts.push(part);
    return part;
  };
  const opening = resolved.workers.map((address, index) =>
    opened(Connection.open(index, address, { ...resolved, rng, openChannel })),
  );
  const openingEngine = opened(
    simulated.engine === undefined ? createEngine(resolved.engine) : Promise.resolve(simulated.engine),
  );
  try {
    const [ownEngine, ...connections] = await Promise.all([openingEngine, ...opening]);
    const cluster = new Cluster({ ...resolved, engine: ownEngine, engineThreads: resolved.threads, connections });
    for (const connection of connections) connection.onChange(() => cluster.changed(connection));
    return cluster;
  } catch (error) {
    await Promise.allSettled([openingEngine, ...opening]);
    for (const part of parts) await part[Symbol.asyncDispose]();
    throw KofnError.from(error, 'UNAVAILABLE');
  }
}
