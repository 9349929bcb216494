/**
 * A whole model on a cluster, as its user has it: run requests, update, close. deployment.ts is what stands behind it,
 * run.ts the map of a request.
 *
 * Invariants
 * 1. `run` ends by its deadline, with an exact answer or one KofnError.
 * 2. Each request runs on one version from its beginning to its end.
 */
import { KofnError, openScope, throwIfAborted, type Tensors } from '@kofn/core';
import type { ValueInfo } from '@kofn/graph';
import type { Cluster } from './cluster.js';
import { deploy, type Deployment } from './deployment.js';
import { DEFAULT_DEADLINE_MS, requireRange, type ModelOptions, type RunOptions } from './options.js';
import type { Plan } from './plan.js';
import type { ModelSource } from './prepare.js';
import type { RunReport } from './report.js';

export interface RunResult {
  readonly outputs: Tensors;
  readonly report: RunReport;
}

export class CodedModel implements AsyncDisposable {
  readonly #cluster: Cluster;
  readonly #options: ModelOptions;
  #deployment: Deployment;
  #requests = 0;
  #closed = false;

  /** @internal Use {@link codedModel}. */
  constructor(cluster: Cluster, deployment: Deployment, options: ModelOptions) {
    this.#cluster = cluster;
    this.#deployment = deployment;
    this.#options = options;
  }

  get plan(): Plan {
    return this.#deployment.plan;
  }

  get inputs(): readonly ValueInfo[] {
    return this.#deployment.model.inputs;
  }

  get outputs(): readonly ValueInfo[] {
    return this.#deployment.model.outputs;
  }

  /**
   * Runs the model on `inputs` (by name, shapes as in `this.inputs`; never changed). An input that the model gives a value of
   * its own (an initializer listed as an input) may be given too: then the request runs on the master. Throws
   * INVALID_ARGUMENT, DTYPE_MISMATCH, SHAPE_MISMATCH (inputs), DEADLINE_EXCEEDED, CANCELLED, NOT_ENOUGH_WORKERS (only with
   * `onLoss: 'fail'`), ENGINE.
   */
  async run(inputs: Tensors, options: RunOptions = {}): Promise<RunResult> {
    const { deadlineMs = DEFAULT_DEADLINE_MS, signal } = options;
    requireRange('deadlineMs', deadlineMs, 1, 2 ** 31 - 1);
    this.#assertOpen();
    throwIfAborted(signal);
    const { clock, connections, hooks } = this.#cluster;
    const request = this.#requests++;
    const start = clock.now();
    using scope = openScope(clock, { parent: signal, deadlineMs });
    const { outputs, layers } = await this.#deployment.run(inputs, {
      request,
      signal: scope.signal,
      deadlineAt: start + deadlineMs,
      clock,
      connections,
      hooks,
      onLoss: this.#options.onLoss ?? 'local',
      systematicGraceMs: this.#options.systematicGraceMs ?? 0,
    });
    return { outputs, report: { request, ms: clock.now() - start, layers } };
  }

  /** Frees the master's sessions. Requests that run end with CANCELLED. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#deployment[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #assertOpen(): void {
    this.#cluster.assertOpen();
    if (this.#closed) throw new KofnError('CANCELLED', 'the model is closed; deploy it again');
  }
}

/** Deploys a model. Throws as {@link deploy} does. */
export async function codedModel(
  source: ModelSource,
  options: ModelOptions & { cluster: Cluster },
): Promise<CodedModel> {
  return new CodedModel(options.cluster, await deploy(source, options), options);
}
