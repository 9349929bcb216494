/**
 * A worker without its transport: what each method of its protocols does. start.ts puts it behind gRPC, the simulator
 * behind its own channel.
 *
 * Invariants
 * 1. Every inference goes through the queue; only shards that the store verified are run.
 * 2. The session of a shard whose bytes went closes, when its last run has ended.
 * 3. After `drain` no new work is taken, all that was taken has been answered, and every stream has ended.
 */
import { KofnError, openController, systemClock, type Clock } from '@kofn/core';
import type { Engine } from '@kofn/engine';
import {
  EXTENSIONS,
  inferenceHandlers,
  METHODS,
  RequestQueue,
  serveStream,
  type InferenceService,
  type ServiceHandlers,
  type StreamServing,
} from '@kofn/wire';
import type { Registry } from 'prom-client';
import type { BlobStore } from '../store/blob-store.js';
import { emulatedDevice } from '../faults/emulated-device.js';
import { Executor } from '../inference/executor.js';
import { faultHandlers } from '../faults/fault-rpc.js';
import { Journal } from './journal.js';
import type { Faults } from '../faults/faults.js';
import { checkVersion, infer, isVersion, MODEL_VERSION } from '../inference/inference.js';
import type { Logger } from '../process/logs.js';
import { inferenceTimes, workerMetrics } from '../monitoring/metrics.js';
import { RunWatch } from '../inference/run-watch.js';
import { WorkMeter } from '../inference/work-meter.js';
import { shardStoreHandlers } from './shard-rpc.js';
import { ShardStore } from '../store/shard-store.js';
import { answerOnStream } from '../inference/stream.js';

export interface WorkerParts {
  readonly engine: Engine;
  readonly blobs: BlobStore;
  readonly clock?: Clock;
  readonly workerId: string;
  /** Another for each process. */
  readonly processId: string;
  readonly version: string;
  readonly threads: number;
  readonly memoryLimitBytes: number;
  readonly diskLimitBytes: number;
  readonly maxQueue: number;
  readonly cores: number;
  /** Whoever reaches the worker may bring these upon it; without them nobody may. The worker disposes of them. */
  readonly faults?: Faults | undefined;
  readonly logger?: Logger | undefined;
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
  readonly logger: Logger | undefined;
  readonly took: (queueMs: number, engineMs: number) => void;
  readonly #version: string;
  readonly #watch: RunWatch;
  readonly #shutdown = openController();
  readonly #streams = new Set<Promise<void>>();

  private constructor(parts: WorkerParts, store: ShardStore) {
    const { memoryLimitBytes, threads, clock = systemClock, maxQueue, workerId, processId, cores, faults } = parts;
    const engine = faults === undefined ? parts.engine : emulatedDevice(parts.engine, faults, clock);
    this.clock = clock;
    this.faults = faults;
    this.#watch = new RunWatch(clock);
    this.meter = new WorkMeter(clock);
    this.logger = parts.logger;
    this.journal = new Journal(clock);
    this.journal.started(store.list().length);
    this.#version = parts.version;
    this.store = store;
    this.executor = new Executor({ engine, store, memoryLimitBytes, threads, watch: this.#watch });
    store.onGone(name => {
      this.#watch.forget(name);
      this.journal.dropped();
      this.logger?.info({ shard: name }, 'dropped a shard');
      return this.executor.close(name);
    });
    this.queue = new RequestQueue({ clock, maxWaiting: maxQueue });
    this.metrics = workerMetrics(this);
    this.took = inferenceTimes(this.metrics);
    const identity = { workerId, processId, engine: engine.name, engineVersion: engine.version, cores };
    const shards = shardStoreHandlers(this, identity);
    const serving: StreamServing = {
      clock,
      who: 'this worker',
      shutdown: this.#shutdown.signal,
      answer: (request, call) => answerOnStream(request, this, call),
    };
    this.handlers = {
      unary: new Map([...inferenceHandlers(this.#service()), ...shards.unary, ...faultHandlers(faults)]),
      clientStream: shards.clientStream,
      duplex: new Map([
        [
          METHODS.modelStreamInfer,
          stream => {
            const served = serveStream(stream, serving);
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

  #service(): InferenceService {
    return {
      isLive: () => !this.#shutdown.signal.aborted,
      isReady: () => this.isReady,
      isModelReady: (name, version) => isVersion(version) && this.store.has(name),
      metadata: () => ({
        name: 'kofn-worker',
        version: this.#version,
        extensions: Object.values(EXTENSIONS).filter(name => name !== EXTENSIONS.faults || this.faults !== undefined),
      }),
      describe: async (name, version, signal) => {
        checkVersion(name, version);
        const { inputs, outputs } = await this.executor.describe(name, signal);
        return { name, versions: [MODEL_VERSION], platform: 'onnxruntime_onnx', inputs, outputs };
      },
      infer: async (request, signal) => (await infer(request, this, signal)).response,
      index: () =>
        this.store.list().map(({ name }) => {
          const isOpen = this.executor.isOpen(name);
          const reason = isOpen ? '' : 'not loaded; it loads when it is first used';
          return { name, version: MODEL_VERSION, state: isOpen ? 'READY' : 'UNAVAILABLE', reason };
        }),
      load: async (name, version, signal) => {
        checkVersion(name, version);
        await this.executor.describe(name, signal);
      },
      unload: async (name, version) => {
        checkVersion(name, version);
        this.store.bytesOf(name);
        await this.executor.close(name);
      },
    };
  }
}
