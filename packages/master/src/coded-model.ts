/**
 * A whole model on a cluster: plan it, cut it, put its shards, then answer requests (run.ts is the map of one).
 *
 * Invariants
 * 1. `run` ends by its deadline, with an exact answer or one KofnError.
 * 2. A model that fails to deploy leaves no session behind; shards already put stay, so that a repeat sends the rest.
 */
import { KofnError, openScope, throwIfAborted, type Tensors } from '@kofn/core';
import { cutModel, loadModel, type ModelFiles, type OnnxModel, type ValueInfo } from '@kofn/graph';
import { createEngine } from '@kofn/engine';
import { systemClock } from '@kofn/core';
import type { Cluster } from './cluster.js';
import type { DeployedLayer } from './dispatch.js';
import { checkInputs } from './inputs.js';
import { openLocally } from './local-session.js';
import { measureSpeeds } from './measure.js';
import {
  DEFAULT_DEADLINE_MS,
  requireRange,
  resolveCode,
  type ModelOptions,
  type ResolvedCode,
  type RunOptions,
} from './options.js';
import { ASSUMED_SPEEDS, type Plan } from './plan.js';
import { encodingOf, placeLayer, shardFiles } from './placement.js';
import { planLayers, type Planning } from './planner.js';
import { LocalBlocks } from './recover.js';
import type { RunReport } from './report.js';
import { runSteps, type DeployedStep } from './run.js';

/** A path, the bytes of an ONNX file, or model and external weights as bytes. */
export type ModelSource = string | Uint8Array | ModelFiles;

export interface RunResult {
  readonly outputs: Tensors;
  readonly report: RunReport;
}

export class CodedModel implements AsyncDisposable {
  readonly plan: Plan;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  readonly #cluster: Cluster;
  readonly #options: ModelOptions;
  readonly #steps: readonly DeployedStep[];
  #requests = 0;
  #closed = false;

  /** @internal Use {@link codedModel}. */
  constructor(cluster: Cluster, model: OnnxModel, plan: Plan, steps: readonly DeployedStep[], options: ModelOptions) {
    this.plan = plan;
    this.inputs = model.inputs;
    this.outputs = model.outputs;
    this.#cluster = cluster;
    this.#options = options;
    this.#steps = steps;
  }

  /**
   * Runs the model on `inputs` (by name, shapes as in `this.inputs`; never changed). Throws INVALID_ARGUMENT,
   * DTYPE_MISMATCH, SHAPE_MISMATCH (inputs), DEADLINE_EXCEEDED, CANCELLED, NOT_ENOUGH_WORKERS (only with
   * `onLoss: 'fail'`), ENGINE.
   */
  async run(inputs: Tensors, options: RunOptions = {}): Promise<RunResult> {
    const { deadlineMs = DEFAULT_DEADLINE_MS, signal } = options;
    requireRange('deadlineMs', deadlineMs, 1, 2 ** 31 - 1);
    this.#cluster.assertOpen();
    if (this.#closed) throw new KofnError('CANCELLED', 'the model is closed; deploy it again');
    throwIfAborted(signal);
    checkInputs(this.inputs, inputs);
    const { clock, connections, hooks } = this.#cluster;
    const request = this.#requests++;
    const start = clock.now();
    using scope = openScope(clock, { parent: signal, deadlineMs });
    const names = this.outputs.map(output => output.name);
    const { outputs, layers } = await runSteps(this.#steps, inputs, names, {
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

  /** Frees the master's sessions. The shards stay on the workers, so that the next deployment sends nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await disposeSteps(this.#steps);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Deploys a model. Throws what is wrong with the options (INVALID_ARGUMENT), the file (NOT_FOUND, INVALID_MODEL,
 * DATA_LOSS), a layer name (NOT_FOUND, UNSUPPORTED), or a worker (UNAVAILABLE, RESOURCE_EXHAUSTED, STORAGE).
 */
export async function codedModel(
  source: ModelSource,
  options: ModelOptions & { cluster: Cluster },
): Promise<CodedModel> {
  const { cluster, layers = 'all', signal } = options;
  cluster.assertOpen();
  const code = resolveCode(options, cluster.connections.length);
  if (options.systematicGraceMs !== undefined) requireRange('systematicGraceMs', options.systematicGraceMs, 0, 60_000);
  const model = await loadModel(source);
  const speeds = layers === 'auto' ? await measureSpeeds(cluster, signal) : ASSUMED_SPEEDS;
  throwIfAborted(signal);
  const planning = await planLayers(model, {
    engine: cluster.engine,
    threads: cluster.engineThreads,
    clock: cluster.clock,
    code,
    choice: layers,
    sampleInputs: options.sampleInputs,
    speeds,
  });
  const steps: DeployedStep[] = [];
  try {
    await deploy(model, planning, code, options, steps);
  } catch (error) {
    await disposeSteps(steps);
    throw error;
  }
  return new CodedModel(cluster, model, planning.plan, steps, options);
}

/**
 * The plan without a deployment. With a cluster every figure is measured on it; without, `workerCount` workers at
 * {@link ASSUMED_SPEEDS}. Throws as {@link codedModel} does.
 */
export async function planModel(
  source: ModelSource,
  options: ModelOptions & ({ cluster: Cluster } | { cluster?: undefined; workerCount: number }),
): Promise<Plan> {
  const { cluster, layers = 'auto', sampleInputs, signal } = options;
  const code = resolveCode(options, cluster === undefined ? options.workerCount : cluster.connections.length);
  const model = await loadModel(source);
  const shared = { code, choice: layers, sampleInputs };
  if (cluster !== undefined) {
    const { engine, engineThreads: threads, clock } = cluster;
    const speeds = await measureSpeeds(cluster, signal);
    return (await planLayers(model, { ...shared, engine, threads, clock, speeds })).plan;
  }
  await using engine = await createEngine('auto');
  return (await planLayers(model, { ...shared, engine, threads: 1, clock: systemClock, speeds: ASSUMED_SPEEDS })).plan;
}

/** Opens the segments and puts the shards, appending each step to `steps` once it stands. */
async function deploy(
  model: OnnxModel,
  { coded, types }: Planning,
  code: ResolvedCode,
  { cluster, onProgress, signal }: ModelOptions & { cluster: Cluster },
  steps: DeployedStep[],
): Promise<void> {
  const { engine, engineThreads, connections, clock } = cluster;
  const reports = new Map(coded.map(report => [report.node, report]));
  let sentBytes = 0;
  let totalBytes = 0;
  let layerNumber = 0;
  for (const step of cutModel(model, [...reports.keys()], types).steps) {
    throwIfAborted(signal);
    if (step.kind === 'segment') {
      const session = await openLocally(engine, step.files(), engineThreads);
      steps.push({ kind: 'segment', inputs: step.inputs, outputs: step.outputs, session });
      continue;
    }
    const report = reports.get(step.node)!;
    const before = { sentBytes, totalBytes };
    const number = layerNumber++;
    const placed = await placeLayer(report.layer(), code, connections, {
      clock,
      signal,
      onBytes: (sent, total) => {
        sentBytes = before.sentBytes + sent;
        totalBytes = before.totalBytes + total;
        onProgress?.({ layer: step.node, layerNumber: number, layerCount: coded.length, sentBytes, totalBytes });
      },
    });
    const local = new LocalBlocks(engine, engineThreads, block => {
      const layer = report.layer();
      return shardFiles(layer, encodingOf(layer, code), block);
    });
    const layer: DeployedLayer = { ...placed, local };
    steps.push({ kind: 'coded', input: step.input, output: step.output, layer });
  }
}

async function disposeSteps(steps: readonly DeployedStep[]): Promise<void> {
  for (const step of steps) {
    await (step.kind === 'segment' ? step.session : step.layer.local)[Symbol.asyncDispose]();
  }
}
