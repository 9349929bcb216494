/**
 * A worker without its transport: what each method of its protocols does. start.ts puts it behind gRPC, the simulator
 * behind its own channel.
 *
 * Invariants
 * 1. Every inference goes through the queue; only shards that the store verified are run.
 * 2. The session of a shard whose bytes went closes, when its last run has ended.
 * 3. After `drain` no new work is taken, all that was taken has been answered, and every stream has ended.
 */
import { KofnError, openController, systemClock, type Clock, type Signal } from '@kofn/core';
import type { Engine, ValueInfo } from '@kofn/engine';
import { codecs, datatypeOf, EXTENSIONS, METHODS, type MethodPath, type ServiceHandlers } from '@kofn/wire';
import type { Registry } from 'prom-client';
import type { BlobStore } from './blob-store.js';
import { emulatedDevice } from './emulated-device.js';
import { Executor } from './executor.js';
import { faultHandlers } from './fault-rpc.js';
import { Journal } from './journal.js';
import type { Faults } from './faults.js';
import { checkVersion, infer, MODEL_VERSION } from './inference.js';
import { workerMetrics } from './metrics.js';
import { RequestQueue } from './queue.js';
import { RunWatch } from './run-watch.js';
import { WorkMeter } from './work-meter.js';
import { shardStoreHandlers } from './shard-rpc.js';
import { ShardStore } from './shard-store.js';
import { serveStream } from './stream.js';

export interface WorkerParts {
  readonly engine: Engine;
  readonly blobs: BlobStore;
  readonly clock?: Clock;
  readonly workerId: string;
  readonly version: string;
  readonly threads: number;
  readonly memoryLimitBytes: number;
  readonly diskLimitBytes: number;
  readonly maxQueue: number;
  readonly cores: number;
  /** Whoever reaches the worker may bring these upon it; without them nobody may. The worker disposes of them. */
  readonly faults?: Faults | undefined;
}

export class WorkerServer implements AsyncDisposable {
  readonly clock: Clock;
  readonly store: ShardStore;
  readonly executor: Executor;
  readonly queue: RequestQueue;
  readonly metrics: Registry;
  readonly handlers: ServiceHandlers;
  readonly faults: Faults | undefined;
  readonly meter: WorkMeter;
  readonly journal: Journal;
  readonly #version: string;
  readonly #watch: RunWatch;
  readonly #shutdown = openController();
  readonly #streams = new Set<Promise<void>>();

  private constructor(parts: WorkerParts, store: ShardStore) {
    const { memoryLimitBytes, threads, clock = systemClock, maxQueue, workerId, cores, faults } = parts;
    const engine = faults === undefined ? parts.engine : emulatedDevice(parts.engine, faults, clock);
    this.clock = clock;
    this.faults = faults;
    this.#watch = new RunWatch(clock);
    this.meter = new WorkMeter(clock);
    this.journal = new Journal(clock);
    this.journal.started(store.list().length);
    this.#version = parts.version;
    this.store = store;
    this.executor = new Executor({ engine, store, memoryLimitBytes, threads, watch: this.#watch });
    store.onGone(name => {
      this.#watch.forget(name);
      this.journal.dropped();
      return this.executor.close(name);
    });
    this.queue = new RequestQueue({ clock, maxWaiting: maxQueue });
    this.metrics = workerMetrics(this);
    const identity = { workerId, engine: engine.name, engineVersion: engine.version, cores };
    const shards = shardStoreHandlers(this, identity);
    this.handlers = {
      unary: new Map([...this.#inference(), ...this.#repository(), ...shards.unary, ...faultHandlers(faults)]),
      clientStream: shards.clientStream,
      duplex: new Map([
        [
          METHODS.modelStreamInfer,
          stream => {
            const served = serveStream(stream, this, this.#shutdown.signal);
            const ended = served.catch(() => undefined).finally(() => this.#streams.delete(ended));
            this.#streams.add(ended);
            return served;
          },
        ],
      ]),
    };
  }

  /** With the shards that `blobs` holds. Throws STORAGE. The engine and the blobs stay their owner's. */
  static async open(parts: WorkerParts): Promise<WorkerServer> {
    return new WorkerServer(parts, await ShardStore.open(parts.blobs, parts));
  }

  /** Whether requests are taken and answered: neither draining, nor is the engine stuck in a run. */
  get isReady(): boolean {
    const isStuck = this.#watch.isStuck && this.faults?.isWaitingForDevice !== true;
    return !this.#shutdown.signal.aborted && !isStuck;
  }

  /** Refuses new work and resolves when all that was taken is answered. */
  async drain(): Promise<void> {
    const idle = this.queue.drain();
    this.#shutdown.abort(new KofnError('UNAVAILABLE', 'this worker is shutting down'));
    await idle;
    await Promise.all(this.#streams);
  }

  /** Ends no more leases and closes the sessions; `drain` first, or what runs fails. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.faults?.[Symbol.dispose]();
    await this.store[Symbol.asyncDispose]();
    await this.executor[Symbol.asyncDispose]();
  }

  #inference(): ServiceHandlers['unary'] {
    const extensions = Object.values(EXTENSIONS).filter(
      name => name !== EXTENSIONS.faults || this.faults !== undefined,
    );
    return handlersOf([
      [METHODS.serverLive, () => codecs.serverLive.encode({ live: !this.#shutdown.signal.aborted })],
      [METHODS.serverReady, () => codecs.serverReady.encode({ ready: this.isReady })],
      [
        METHODS.serverMetadata,
        () => codecs.serverMetadata.encode({ name: 'kofn-worker', version: this.#version, extensions }),
      ],
      [
        METHODS.modelReady,
        request => codecs.modelReady.encode({ ready: this.store.has(codecs.modelName.decode(request).name) }),
      ],
      [
        METHODS.modelMetadata,
        async (request, signal) => {
          const { name, version } = codecs.modelName.decode(request);
          checkVersion(name, version);
          const { inputs, outputs } = await this.executor.describe(name, signal);
          return codecs.modelMetadata.encode({
            name,
            versions: [MODEL_VERSION],
            platform: 'onnxruntime_onnx',
            inputs: inputs.map(tensorMetadata),
            outputs: outputs.map(tensorMetadata),
          });
        },
      ],
      [
        METHODS.modelInfer,
        async (request, signal) => {
          const { response } = await infer(codecs.inferRequest.decode(request), this, signal);
          return codecs.inferResponse.encode(response);
        },
      ],
    ]);
  }

  #repository(): ServiceHandlers['unary'] {
    return handlersOf([
      [
        METHODS.repositoryIndex,
        request => {
          const { ready } = codecs.repositoryIndexRequest.decode(request);
          const models = this.store.list().map(({ name }) => {
            const isOpen = this.executor.isOpen(name);
            const reason = isOpen ? '' : 'not loaded; it loads when it is first used';
            return { name, version: MODEL_VERSION, state: isOpen ? 'READY' : 'UNAVAILABLE', reason };
          });
          return codecs.repositoryIndex.encode({ models: models.filter(({ state }) => !ready || state === 'READY') });
        },
      ],
      [
        METHODS.repositoryModelLoad,
        async (request, signal) => {
          await this.executor.describe(codecs.repositoryModel.decode(request).model_name, signal);
          return codecs.empty.encode({});
        },
      ],
      [
        METHODS.repositoryModelUnload,
        async request => {
          const { model_name: name } = codecs.repositoryModel.decode(request);
          this.store.bytesOf(name);
          await this.executor.close(name);
          return codecs.empty.encode({});
        },
      ],
    ]);
  }
}

type Handler = (request: Uint8Array, signal: Signal) => Uint8Array | Promise<Uint8Array>;

function handlersOf(entries: readonly (readonly [MethodPath, Handler])[]): ServiceHandlers['unary'] {
  return new Map(entries.map(([path, handler]) => [path, async (request, { signal }) => handler(request, signal)]));
}

/** A size that the model leaves open is -1, as the protocol has it. */
function tensorMetadata({ name, dtype, shape }: ValueInfo) {
  return { name, datatype: datatypeOf(dtype), shape: shape.map(size => (typeof size === 'number' ? size : -1)) };
}
