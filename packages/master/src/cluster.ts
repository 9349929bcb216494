/** `connect`: the workers, the master's own engine, and what all models on them share. */
import { KofnError, type Clock } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import { Connection } from './connection.js';
import { snapshot, type Fleet } from './fleet.js';
import { resolveConnectOptions, type ConnectOptions, type DispatchHooks } from './options.js';

export class Cluster implements AsyncDisposable {
  readonly clock: Clock;
  readonly hooks: DispatchHooks;
  /** The master's own engine: segments between coded layers, and blocks that no worker is left for. */
  readonly engine: Engine;
  readonly engineThreads: number;
  readonly connections: readonly Connection[];
  #fleet: Fleet;
  #closed = false;

  /** @internal Use {@link connect}. */
  constructor(parts: {
    clock: Clock;
    hooks: DispatchHooks;
    engine: Engine;
    engineThreads: number;
    connections: readonly Connection[];
  }) {
    this.clock = parts.clock;
    this.hooks = parts.hooks;
    this.engine = parts.engine;
    this.engineThreads = parts.engineThreads;
    this.connections = parts.connections;
    this.#fleet = snapshot(parts.connections);
  }

  /** The workers as the master sees them now; a new array whenever one changes. */
  get workers(): Fleet {
    return this.#fleet;
  }

  /** @internal A connection changed. */
  refresh(): void {
    this.#fleet = snapshot(this.connections);
  }

  /** Throws CANCELLED once the cluster is closed. */
  assertOpen(): void {
    if (this.#closed) throw new KofnError('CANCELLED', 'the cluster is closed; connect again');
  }

  /** Ends every connection and the engine. Requests that run end with CANCELLED. Shards stay on the workers. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.all(this.connections.map(connection => connection[Symbol.asyncDispose]()));
    await this.engine[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Connects to every worker. Throws INVALID_ARGUMENT (options), UNAVAILABLE (a worker that does not answer, named),
 * PROTOCOL (something else answers there), ENGINE (the master's own engine does not start).
 */
export async function connect(options: ConnectOptions): Promise<Cluster> {
  const { workers, engine, threads, connectDeadlineMs, maxMessageBytes, hooks, clock, signal } =
    resolveConnectOptions(options);
  const parts: AsyncDisposable[] = [];
  const opened = async <T extends AsyncDisposable>(opening: Promise<T>): Promise<T> => {
    const part = await opening;
    parts.push(part);
    return part;
  };
  const opening = workers.map((address, index) => {
    const connection = Connection.open(index, address, {
      clock,
      deadlineMs: connectDeadlineMs,
      maxMessageBytes,
      signal,
    });
    return opened(connection);
  });
  const openingEngine = opened(createEngine(engine));
  try {
    const [ownEngine, ...connections] = await Promise.all([openingEngine, ...opening]);
    const cluster = new Cluster({ clock, hooks, engine: ownEngine, engineThreads: threads, connections });
    for (const connection of connections) connection.onLost(() => cluster.refresh());
    return cluster;
  } catch (error) {
    await Promise.allSettled([openingEngine, ...opening]);
    for (const part of parts) await part[Symbol.asyncDispose]();
    throw KofnError.from(error, 'UNAVAILABLE');
  }
}
