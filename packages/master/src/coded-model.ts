/**
 * A whole model on a cluster, as its user has it: run requests, update, close. deployment.ts is what stands behind it,
 * run.ts the map of a request.
 *
 * Invariants
 * 1. `run` ends by its deadline, with an exact answer or one KofnError.
 * 2. Each request runs on one version from its beginning to its end.
 * 3. At any time one version answers: an update or a new plan that fails changes nothing.
 */
import path from 'node:path';
import { KofnError, openScope, throwIfAborted, type Tensors } from '@kofn/core';
import type { Engine } from '@kofn/engine';
import type { ValueInfo } from '@kofn/graph';
import type { Owner } from '@kofn/wire';
import { giveUp } from './standing/claims.js';
import type { Cluster } from './fleet/cluster.js';
import { deploy, type Deployment } from './standing/deployment.js';
import type { Design, DeploySource } from './planning/design.js';
import {
  DEFAULT_DEADLINE_MS,
  requireName,
  requireRange,
  type ModelOptions,
  type RunOptions,
  type ReplanOptions,
} from './contract/options.js';
import type { Plan, WorkerNeed, Replanned } from './contract/plan.js';
import type { ModelSource } from './planning/prepare.js';
import { dryRunOf, isOwner, replannedOf, roomFor, within, wordsOf, workersFor } from './standing/replan.js';
import type { RunReport, AuditOutcome, AuditCounts } from './contract/report.js';
import type { ModelHealth } from './contract/health.js';

/** What an update may have of its own; all else is as the model was deployed. */
export type UpdateOptions = Pick<ModelOptions, 'sampleInputs' | 'onProgress' | 'signal'>;

/** Leaves room for a number behind it. */
const MAX_NAME = 180;

export interface RunResult {
  readonly outputs: Tensors;
  readonly report: RunReport;
  /** What becomes of its audit, behind the answer (`verify: 'audit'`). Never rejects. */
  readonly audit?: Promise<AuditOutcome>;
}

export class CodedModel implements AsyncDisposable {
  readonly #cluster: Cluster;
  /** As it was deployed, with what updates and new plans changed of it. */
  #options: ModelOptions;
  /** The workers that its plan was last made for; until then those of the options. */
  #workers: readonly number[] | undefined;
  readonly #leave: () => void;
  #deployment: Deployment;
  /** The version before, while requests still run on it. */
  #retiring: Deployment | undefined;
  /** The update or new plan under way; another waits for it. */
  #updating: Promise<unknown> = Promise.resolve();
  #requests = 0;
  readonly #audits = { passed: 0, failed: 0, skipped: 0 };
  #closed = false;

  /** @internal Use {@link codedModel}. */
  constructor(cluster: Cluster, deployment: Deployment, options: ModelOptions) {
    this.#cluster = cluster;
    this.#deployment = deployment;
    this.#options = options;
    this.#leave = cluster.stand({
      name: deployment.owner.model,
      health: () => this.health,
      audits: () => this.audits,
      renew: () => this.#deployment.renew(),
      release: () => this.#release(),
      workers: () => [this.#deployment, this.#retiring].flatMap(each => each?.standsOn ?? []),
      welcome: connection => this.#deployment.welcome(connection),
      replan: options => this.replan(options),
    });
  }

  /** What its claims on workers call it. */
  get name(): string {
    return this.#deployment.owner.model;
  }

  /** 1, and one more with each update. */
  get version(): number {
    return this.#deployment.owner.version;
  }

  get plan(): Plan {
    return this.#deployment.plan;
  }

  /** How each coded layer stands now: which of its blocks are on ready workers, and how many may still be lost. */
  get health(): ModelHealth {
    return this.#deployment.health;
  }

  /** All 0 without `verify: 'audit'`. */
  get audits(): AuditCounts {
    return { ...this.#audits };
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
   * INVALID_ARGUMENT, DTYPE_MISMATCH, SHAPE_MISMATCH (inputs), RESOURCE_EXHAUSTED (more requests at once than
   * `maxInFlight`), UNAVAILABLE (the cluster drains), DEADLINE_EXCEEDED, CANCELLED, NOT_ENOUGH_WORKERS (never with `onLoss: 'local'`), ENGINE.
   */
  async run(inputs: Tensors, options: RunOptions = {}): Promise<RunResult> {
    const { name: model } = this;
    try {
      const result = await this.#run(inputs, options);
      this.#cluster.ended({ model, report: result.report });
      return result;
    } catch (error) {
      this.#cluster.ended({ model, code: KofnError.from(error).code });
      throw error;
    }
  }

  async #run(inputs: Tensors, options: RunOptions): Promise<RunResult> {
    const { deadlineMs = DEFAULT_DEADLINE_MS, signal, id } = options;
    if (id !== undefined) requireName('id', id);
    requireRange('deadlineMs', deadlineMs, 1, 2 ** 31 - 1);
    this.#assertOpen();
    throwIfAborted(signal);
    const { clock, connections, hooks } = this.#cluster;
    using _admitted = this.#cluster.admit();
    const request = this.#requests++;
    const start = clock.now();
    using scope = openScope(clock, { parent: signal, deadlineMs });
    const audits: Promise<AuditOutcome>[] = [];
    const { outputs, layers, segments, spans } = await this.#deployment.run(inputs, {
      request,
      id,
      startedAt: start,
      signal: scope.signal,
      deadlineAt: start + deadlineMs,
      clock,
      connections,
      hooks,
      onLoss: this.#options.onLoss ?? 'local',
      systematicGraceMs: this.#options.systematicGraceMs ?? 0,
      suspicions: [],
      audits,
    });
    const result = { outputs, report: { request, ms: clock.now() - start, spans, layers, segments } };
    return this.#options.verify === 'audit' ? { ...result, audit: this.#audited(audits) } : result;
  }

  /**
   * Puts another version of the model in the place of this one: only shards that are new are sent, requests go on meanwhile,
   * and the next request after it runs on the new version. When it fails the old version goes on and the claims of the new
   * one are given up. Throws as `codedModel` does, and INVALID_ARGUMENT when the new version has other inputs or outputs.
   */
  update(source: ModelSource, options: UpdateOptions = {}): Promise<void> {
    return this.#inTurn(() => this.#update(source, options));
  }

  /**
   * Plans the model anew for the workers that are ready now, puts what is missing of the new plan beside the old one, and has it answer
   * from the next request on: none waits, and each runs on one plan. `workers` are, when not given, all that are ready; for a model that
   * was deployed on workers of its own those of them, or that took their part, that are. When it fails the old plan goes on and what was
   * put is given up. Throws as `codedModel`; RESOURCE_EXHAUSTED, before anything is sent, when a worker has no room for both plans at
   * once; UNAVAILABLE when one of `workers` is not ready, or is lost meanwhile.
   */
  replan(options: ReplanOptions = {}): Promise<Replanned> {
    return this.#inTurn(() => this.#replan(options));
  }

  /**
   * Frees what the master holds and gives the shards up: their bytes go from workers where nobody else claims them. Requests
   * that run end with CANCELLED. `cluster.close()` alone leaves the shards for the next program.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#release();
    await this.#deployment.giveUp();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Of all layers of one request. */
  async #audited(audits: readonly Promise<AuditOutcome>[]): Promise<AuditOutcome> {
    const outcomes = await Promise.all(audits);
    const isWhole = outcomes.length > 0 && !outcomes.includes('skipped');
    const outcome = outcomes.includes('failed') ? 'failed' : isWhole ? 'passed' : 'skipped';
    this.#audits[outcome]++;
    return outcome;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const working = this.#updating.then(work);
    this.#updating = working.catch(() => undefined);
    return working;
  }

  async #update(source: ModelSource, options: UpdateOptions): Promise<void> {
    const workers = this.#ownWorkers;
    const { homes } = this.#deployment;
    await this.#swap(source, { ...this.#options, ...options, ...(workers && { workers }), known: homes });
    if (options.sampleInputs !== undefined) this.#options = { ...this.#options, sampleInputs: options.sampleInputs };
  }

  async #replan({ dryRun = false, ...changes }: ReplanOptions): Promise<Replanned> {
    this.#assertOpen();
    const cluster = this.#cluster;
    const old = this.#deployment;
    const own = this.#options.workers && (old.standsOn.length > 0 ? old.standsOn : this.#options.workers);
    const workers = workersFor(cluster.connections, changes.workers, own);
    const known = within(old.homes, workers);
    const about = { ...this.#options, ...changes, workers, known, cluster };
    const source = (engine: Engine) => old.share(engine);
    const isStanding = isOwner(old.owner);
    const before = { workers: old.standsOn, plan: old.plan };
    if (dryRun) {
      const dry = await dryRunOf(source, this.#nextOwner, about, isStanding);
      return replannedOf({ model: this.name, version: this.version, before, workers, ...dry });
    }
    let needs: readonly WorkerNeed[] = [];
    const beforePut = async (design: Design) => void (needs = await roomFor(design, about, isStanding));
    // A plan for resilience that comes out with less of it than there is now is none.
    const leastMargin = Math.max(0, old.health.margin ?? 0);
    await this.#swap(source, { ...about, beforePut, leastMargin });
    const { onProgress: _onProgress, signal: _signal, ...lasting } = changes;
    this.#options = { ...this.#options, ...lasting };
    this.#workers = workers;
    const { name: model, version, plan } = this;
    const replanned = replannedOf({ model, version, before, workers, plan, needs });
    cluster.tell({ kind: 'replanned', message: wordsOf(replanned) });
    return replanned;
  }

  /** Those that its plan was made for; where one of them has left the cluster since, those that it stands on. */
  get #ownWorkers(): readonly number[] | undefined {
    const own = this.#workers ?? this.#options.workers;
    const hasLeft = own?.some(worker => this.#cluster.connections[worker]!.state.kind === 'removed');
    return hasLeft === true ? this.#deployment.standsOn : own;
  }

  get #nextOwner(): Owner {
    const { owner } = this.#deployment;
    return { ...owner, version: owner.version + 1 };
  }

  /** Deploys the next version beside this one and has it answer from the next request on. */
  async #swap(source: DeploySource, options: Omit<Parameters<typeof deploy>[2], 'cluster'>): Promise<void> {
    this.#assertOpen();
    const old = this.#deployment;
    const owner = this.#nextOwner;
    let next: Deployment | undefined;
    try {
      next = await deploy(source, owner, { ...options, cluster: this.#cluster });
      checkSame('inputs', old.model.inputs, next.model.inputs);
      checkSame('outputs', old.model.outputs, next.model.outputs);
      this.#assertOpen();
    } catch (error) {
      await next?.[Symbol.asyncDispose]();
      await giveUp(this.#cluster.connections, this.#cluster.clock, owner);
      throw error;
    }
    this.#deployment = next;
    this.#retiring = old;
    await old.retire();
    this.#retiring = undefined;
    await old.giveUp();
    next.roomMade();
  }

  async #release(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#leave();
    await Promise.all([this.#retiring?.[Symbol.asyncDispose](), this.#deployment[Symbol.asyncDispose]()]);
  }

  #assertOpen(): void {
    this.#cluster.assertOpen();
    if (this.#closed) throw new KofnError('CANCELLED', 'the model is closed; deploy it again');
  }
}

/** What claims on workers call a model that is given no name. */
export function modelName(source: ModelSource): string {
  return typeof source === 'string' ? path.basename(source).slice(0, MAX_NAME) : 'model';
}

/** Deploys a model. Throws as {@link deploy} does. */
export async function codedModel(
  source: ModelSource,
  options: ModelOptions & { cluster: Cluster },
): Promise<CodedModel> {
  const { cluster, name = modelName(source) } = options;
  requireName('name', name);
  const owner = { cluster: cluster.id, model: cluster.freeName(name), version: 1 };
  return new CodedModel(cluster, await deploy(source, owner, options), options);
}

/** A caller goes on with what it knows: names and types of the values must stay. */
function checkSame(what: string, old: readonly ValueInfo[], next: readonly ValueInfo[]): void {
  const [before, after] = [old, next].map(values => values.map(({ name, dtype }) => `${name}: ${dtype}`).join(', '));
  if (before === after) return;
  throw new KofnError(
    'INVALID_ARGUMENT',
    `the new version has the ${what} ${after}, the old one ${before}; deploy it as another model`,
  );
}
