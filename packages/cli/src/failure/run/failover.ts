/**
 * What clusters without a code do when a worker is lost: notice it, load the model on who is left, try the request again. The
 * strategy `failover`, with stated times; everything else of it (encoding, upload, sessions) is done and measured.
 *
 * Invariants
 * 1. However many requests fail at once, the model is loaded once, and all of them are tried again on it.
 * 2. Every request ends by its deadline.
 */
import { abortable, KofnError, openScope, sleep, systemClock, throwIfAborted, type Tensors } from '@kofn/core';
import { codedModel, type Cluster, type CodedModel, type ModelOptions, type RunResult } from '@kofn/master';

/** What of a failed request is no fault of a worker's, so that nobody tries it again. */
const FINAL: readonly string[] = ['CANCELLED', 'DEADLINE_EXCEEDED', 'INVALID_ARGUMENT'];

/** Before the next attempt to load, when one failed: another worker may just have been lost. */
const RETRY_MS = 100;

export class FailoverModel {
  readonly #cluster: Cluster;
  readonly #modelPath: string;
  readonly #options: ModelOptions;
  readonly #reloadMs: number;
  #model: CodedModel;
  #reload: Promise<void> | undefined;
  readonly #life = openScope(systemClock);

  /** Deploys on all that `options.workers` names. `reloadMs`: what a reload takes at least. */
  static async open(
    modelPath: string,
    options: ModelOptions & { cluster: Cluster },
    reloadMs: number,
  ): Promise<FailoverModel> {
    return new FailoverModel(modelPath, options, reloadMs, await codedModel(modelPath, options));
  }

  private constructor(
    modelPath: string,
    { cluster, ...options }: ModelOptions & { cluster: Cluster },
    reloadMs: number,
    model: CodedModel,
  ) {
    this.#modelPath = modelPath;
    this.#cluster = cluster;
    this.#options = options;
    this.#reloadMs = reloadMs;
    this.#model = model;
  }

  async run(inputs: Tensors, { deadlineMs, signal }: { deadlineMs: number; signal: AbortSignal }): Promise<RunResult> {
    const deadlineAt = systemClock.now() + deadlineMs;
    for (;;) {
      const model = this.#model;
      const left = deadlineAt - systemClock.now();
      try {
        return await model.run(inputs, { deadlineMs: Math.max(1, left), signal });
      } catch (error) {
        throwIfAborted(signal);
        // A request of the model before, which ended with it, is tried again like one that failed.
        if (FINAL.includes(KofnError.from(error).code) && model === this.#model) throw error;
        using scope = openScope(systemClock, {
          parent: signal,
          deadlineMs: Math.max(1, deadlineAt - systemClock.now()),
        });
        if (model !== this.#model) continue;
        const reload = (this.#reload ??= this.#load()).catch(() => sleep(systemClock, RETRY_MS, scope.signal));
        await abortable(reload, scope.signal);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#life.abort(new KofnError('CANCELLED', 'the model was closed'));
    await this.#reload?.catch(() => undefined);
    await this.#model.close();
    this.#life[Symbol.dispose]();
  }

  /** Loads the model on the workers that are left. It goes on when a request that waits for it ends. */
  async #load(): Promise<void> {
    const old = this.#model;
    try {
      const { signal } = this.#life;
      const start = systemClock.now();
      const alive = this.#cluster.workers.filter(({ state }) => state === 'ready').map(({ index }) => index);
      const known = new Set(this.#options.workers ?? alive);
      const workers = alive.filter(index => known.has(index));
      if (workers.length === 0) throw new KofnError('NOT_ENOUGH_WORKERS', 'failover: no worker is left');
      const next = await codedModel(this.#modelPath, { ...this.#options, workers, cluster: this.#cluster, signal });
      try {
        await sleep(systemClock, Math.max(0, this.#reloadMs - (systemClock.now() - start)), signal);
      } catch (error) {
        await next.close();
        throw error;
      }
      this.#model = next;
      void old.close().catch(() => undefined);
    } finally {
      this.#reload = undefined;
    }
  }
}
