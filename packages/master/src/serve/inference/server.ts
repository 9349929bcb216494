/**
 * The server without its transports: what becomes of a request, whichever way it came. grpc.ts and rest.ts are the ways,
 * repository.ts has the models, batcher.ts joins requests, start.ts puts all together.
 *
 * Invariants
 * 1. A request waits in the queue for its turn, is refused when the queue is full, and ends by its deadline wherever it is.
 * 2. Whoever cancels, or is gone, takes his request with him: what has not started does not run.
 * 3. Once it drains nothing new is taken, and what was taken is answered.
 * 4. Listeners hear of each request for a model that is served, once, when it has ended.
 */
import { randomUUID } from 'node:crypto';
import { KofnError, openController, openScope, type Clock, type Signal, type Tensor, type Tensors } from '@kofn/core';
import { RequestQueue, selectOutputs, type DescribedModel, type RequestedOutput } from '@kofn/wire';
import type { Cluster } from '../../fleet/cluster.js';
import type { CodedModel } from '../../coded-model.js';
import { checkInputs } from '../../contract/inputs.js';
import { requireRange, requireWhole } from '../../contract/options.js';
import { Batcher, takesRows, type BatchOptions, type BatchResult } from './batcher.js';
import { checkRanked, classesOf } from './classification.js';
import { codingFacts, type Parameters } from './facts.js';
import type { ModelRepository } from './repository.js';
import type { EndedRequest, ServedModel, ServerView } from './served.js';

export interface LimitOptions extends BatchOptions {
  /** Requests that run at once; default 64, of which the cluster must take as many (`maxInFlight` of `connect`). */
  readonly maxRunning?: number | undefined;
  /** Requests that wait for their turn; more are refused. Default 256. */
  readonly maxQueue?: number | undefined;
  /** The longest time of a request, the wait included; its own timeout may be shorter. Default 60,000. */
  readonly deadlineMs?: number | undefined;
}

export interface InferCall {
  readonly model: string;
  /** '' leaves it to the server. */
  readonly version: string;
  /** The client's own; '' has one made here. */
  readonly id: string;
  readonly inputs: Tensors;
  /** The outputs that are wanted; all when there are none. */
  readonly outputs: readonly RequestedOutput[];
  readonly timeoutMs?: number | undefined;
  readonly signal: Signal;
}

export interface InferAnswer {
  readonly model: string;
  readonly version: string;
  readonly id: string;
  readonly outputs: Tensors;
  readonly parameters: Parameters;
}

const MAX_ID_CHARS = 200;
const WHO = 'this server';

/** A hint is never shorter, for nobody asks again in less, nor longer: by then all may be another. */
const LEAST_RETRY_MS = 100;
const MOST_RETRY_MS = 30_000;

export class InferenceServer implements ServerView {
  readonly cluster: Cluster;
  readonly repository: ModelRepository;
  readonly deadlineMs: number;
  readonly #clock: Clock;
  readonly #maxRunning: number;
  readonly #queue: RequestQueue;
  readonly #batcher: Batcher;
  readonly #shutdown = openController();
  readonly #listeners = new Set<(request: EndedRequest) => void>();
  /** A moving mean of how long requests run. */
  #meanRunMs = 0;

  /** Throws INVALID_ARGUMENT. */
  constructor(cluster: Cluster, repository: ModelRepository, options: LimitOptions = {}) {
    const { maxRunning = 64, maxQueue = 256, deadlineMs = 60_000 } = options;
    requireWhole('maxRunning', maxRunning, 1, 65_536);
    requireWhole('maxQueue', maxQueue, 1, 65_536);
    requireRange('deadlineMs', deadlineMs, 1, 2 ** 31 - 1);
    this.cluster = cluster;
    this.repository = repository;
    this.deadlineMs = deadlineMs;
    this.#clock = cluster.clock;
    this.#maxRunning = maxRunning;
    this.#queue = new RequestQueue({ clock: cluster.clock, maxWaiting: maxQueue, concurrency: maxRunning, who: WHO });
    this.#batcher = new Batcher(cluster.clock, options);
  }

  readonly models = (): readonly ServedModel[] => this.repository.models;

  readonly load = (): { queued: number; running: number } => ({
    queued: this.#queue.waiting,
    running: this.#queue.running,
  });

  /** Requests that may wait. */
  get maxQueue(): number {
    return this.#queue.maxWaiting;
  }

  onEnded(listener: (request: EndedRequest) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Aborts when nothing new is taken any more. */
  get shutdown(): Signal {
    return this.#shutdown.signal;
  }

  get isLive(): boolean {
    return !this.#shutdown.signal.aborted;
  }

  /** Whether every model of the repository that was not unloaded can be answered for by workers alone. */
  get isReady(): boolean {
    const states = this.repository.index().map(({ state }) => state);
    return this.isLive && !states.includes('LOADING') && this.models().every(isReady);
  }

  /** Whether each coded layer of the model has at least k usable workers; false for what is not there. */
  isModelReady(name: string, version: string): boolean {
    try {
      return this.isLive && isReady(this.repository.find(name, version));
    } catch {
      return false;
    }
  }

  /** Throws NOT_FOUND, UNAVAILABLE. */
  describe(name: string, version: string): DescribedModel {
    const { model } = this.repository.find(name, version);
    const { inputs, outputs } = model;
    return { name, versions: this.repository.versions(name), platform: 'kofn_onnx', inputs, outputs };
  }

  /**
   * Throws INVALID_ARGUMENT, DTYPE_MISMATCH, SHAPE_MISMATCH (what was given), NOT_FOUND (no such model or version), UNAVAILABLE (not loaded, or
   * shutting down), RESOURCE_EXHAUSTED (the queue is full: says when to come again), and as `CodedModel.run`.
   */
  async infer(call: InferCall): Promise<InferAnswer> {
    const { inputs } = call;
    const id = call.id === '' ? randomUUID() : call.id;
    if (id.length > MAX_ID_CHARS) {
      throw new KofnError('INVALID_ARGUMENT', `id: ${id.length} characters are more than ${MAX_ID_CHARS}`);
    }
    const atMs = this.#clock.now();
    using lease = this.repository.use(call.model, call.version);
    const { name, version, model } = lease.served;
    let startedMs: number | undefined;
    let ended: Pick<EndedRequest, 'report' | 'error'> = {};
    try {
      checkInputs(model.inputs, inputs); // before its turn: what does not fit need not wait
      requireOutputs(model.outputs, call.outputs);
      const deadlineMs = Math.min(call.timeoutMs ?? Infinity, this.deadlineMs);
      using scope = openScope(this.#clock, { parent: call.signal, deadlineMs });
      const { signal } = scope;
      const run = (): Promise<BatchResult> => {
        startedMs = this.#clock.now();
        return this.#batcher.run(model, inputs, { signal, id, deadlineMs: Math.max(1, atMs + deadlineMs - startedMs) });
      };
      const { outputs, report, rows } = await this.#queue.submit(run, { signal });
      ended = { report };
      return {
        model: name,
        version,
        id,
        outputs: asked(lease.served, outputs, call.outputs),
        parameters: codingFacts(report, rows),
      };
    } catch (error) {
      const failure = this.#withHint(KofnError.from(error));
      ended = { error: failure.code };
      throw failure;
    } finally {
      const ms = this.#clock.now() - atMs;
      const queueMs = (startedMs ?? atMs + ms) - atMs;
      if (startedMs !== undefined) this.#meanRunMs += (ms - queueMs - this.#meanRunMs) / 16;
      for (const listener of this.#listeners) listener({ id, model: name, version, atMs, ms, queueMs, ...ended });
    }
  }

  /** Takes nothing new from now on; resolves when all that was taken has ended. */
  async drain(): Promise<void> {
    const drained = this.#queue.drain();
    this.#shutdown.abort(new KofnError('UNAVAILABLE', `${WHO} is shutting down; ask another`));
    await drained;
  }

  /** With when to come again, where the queue refused it. */
  #withHint(error: KofnError): KofnError {
    const { code, message, retryAfterMs } = error;
    if (code !== 'RESOURCE_EXHAUSTED' || retryAfterMs !== undefined) return error;
    const { queued, running } = this.load();
    const waitMs = ((queued + running) / this.#maxRunning) * this.#meanRunMs;
    const hint = Math.min(Math.max(waitMs, LEAST_RETRY_MS), MOST_RETRY_MS);
    return new KofnError(code, message, { cause: error, retryAfterMs: hint });
  }
}

function isReady({ model }: ServedModel): boolean {
  return (model.health.margin ?? 0) >= 0;
}

/** Throws INVALID_ARGUMENT (there is no such output), UNSUPPORTED (it has no classes). */
function requireOutputs(outputs: CodedModel['outputs'], requested: readonly RequestedOutput[]): void {
  for (const { name, classCount } of requested) {
    const output = outputs.find(each => each.name === name);
    if (output === undefined) {
      const there = outputs.map(each => each.name).join(', ');
      throw new KofnError('INVALID_ARGUMENT', `the model has no output "${name}"; it has ${there}`);
    }
    if (classCount !== undefined) checkRanked(output);
  }
}

/** What is asked for of `outputs`. Throws NON_FINITE. */
function asked({ model, labels }: ServedModel, outputs: Tensors, requested: readonly RequestedOutput[]): Tensors {
  const selected = selectOutputs(outputs, requested);
  const result: Record<string, Tensor> = { ...selected };
  for (const { name, classCount: count } of requested) {
    if (count === undefined) continue;
    result[name] = classesOf(name, selected[name]!, { count, hasRows: takesRows(model), labels });
  }
  return result;
}
