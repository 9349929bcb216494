/** The workers of one command: its own on this machine, or those it was told; and the master's connection to them. */
import { KofnError, systemClock, type Signal } from '@kofn/core';
import type { CodeName } from '@kofn/encoder';
import type { EngineName } from '@kofn/engine';
import {
  codedModel,
  connect,
  refusalWords,
  type Cluster,
  type CodedModel,
  type DeployProgress,
  type DispatchHooks,
  type HedgeAfter,
  type LayerChoice,
  type ModelOptions,
  type SegmentChoice,
  type VerifyChoice,
} from '@kofn/master';
import type { Kill } from '../options/arguments.js';
import { KillPlan } from './kill-plan.js';
import { startLocalWorkers, type LocalWorkers } from './local-workers.js';
import { note, openProgress } from '../terminal/progress.js';
import { formatBytes } from '../terminal/render.js';

export interface ClusterArguments {
  readonly workers?: readonly string[];
  readonly local?: number;
  /** Who claims shards on the workers; default a random name. */
  readonly id?: string;
  readonly engine: EngineName | 'auto';
  readonly threads: number;
  /** Of local workers: they may be disturbed by calls. */
  readonly allowFaults?: boolean;
  /** Requests under way at once; default 64. */
  readonly maxInFlight?: number;
}

export interface CodeArguments {
  readonly parity?: number;
  readonly code?: CodeName;
  readonly layers: LayerChoice;
  readonly hedge?: HedgeAfter;
  readonly segments: SegmentChoice;
  readonly verify: VerifyChoice;
}

/** Number of workers; undefined when none are named. Throws INVALID_ARGUMENT when both ways are used. */
export function workerCount({ workers, local }: ClusterArguments): number | undefined {
  if (workers !== undefined && local !== undefined) {
    throw new KofnError('INVALID_ARGUMENT', 'give --workers or --local, not both');
  }
  return local ?? workers?.length;
}

/** The options of `codedModel` and `planModel` that stand on the command line. */
export function codeOptions({
  parity,
  code,
  layers,
  hedge,
  segments,
  verify,
}: CodeArguments): Pick<ModelOptions, keyof CodeArguments> {
  return {
    layers,
    segments,
    verify,
    ...(parity === undefined ? {} : { parity }),
    ...(code === undefined ? {} : { code }),
    ...(hedge === undefined ? {} : { hedge }),
  };
}

/** A bar for the shards on their way. */
export interface DeployBar extends Disposable {
  readonly onProgress: (progress: DeployProgress) => void;
}

/** `onSent` hears of the bytes also where nobody looks at a bar. */
export function openDeployBar(onSent: (sentBytes: number) => void = () => undefined): DeployBar {
  const format = ' deploying {bar} {percentage}% | layer {layer} | {sent}';
  const bar = openProgress(format, 1, { layer: '-', sent: '' });
  return {
    onProgress({ layer, layerNumber, layerCount, sentBytes, totalBytes }) {
      onSent(sentBytes);
      const done = (layerNumber + (totalBytes === 0 ? 1 : sentBytes / totalBytes)) / layerCount;
      bar.update(done, () => ({ layer, sent: formatBytes(sentBytes) }));
    },
    [Symbol.dispose]: () => bar[Symbol.dispose](),
  };
}

export class Workers implements AsyncDisposable {
  readonly cluster: Cluster;
  readonly kills: KillPlan;
  /** Those that were started here. */
  readonly local: LocalWorkers | undefined;
  #sentBytes = 0;

  private constructor(cluster: Cluster, kills: KillPlan, local: LocalWorkers | undefined) {
    this.cluster = cluster;
    this.kills = kills;
    this.local = local;
  }

  /** Starts local workers if asked to, and connects. What fails leaves no process behind. */
  static async open(args: ClusterArguments, kills: readonly Kill[], signal: Signal): Promise<Workers> {
    const { engine, threads, id, maxInFlight } = args;
    const extraArgs = args.allowFaults === true ? ['--allow-faults'] : [];
    const local =
      args.local === undefined
        ? undefined
        : await startLocalWorkers(args.local, { engine, threads, extraArgs, signal });
    try {
      const plan = new KillPlan(kills, index => local?.pidOf(index), systemClock);
      const hooks: DispatchHooks = plan.hooks;
      const workers = local?.addresses ?? args.workers ?? [];
      const about = { workers, engine, threads, hooks, signal, ...(id === undefined ? {} : { id }) };
      const cluster = await connect({ ...about, ...(maxInFlight === undefined ? {} : { maxInFlight }) });
      for (const { kind, message } of cluster.events) if (kind === 'lost') note(`${message}; going on without it`);
      return new Workers(cluster, plan, local);
    } catch (error) {
      await local?.close();
      throw error;
    }
  }

  /** Shard bytes that went to workers; what they had already is not in it. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** `codedModel` with a bar for the shards on their way. */
  async deploy(modelPath: string, options: Omit<ModelOptions, 'onProgress'>): Promise<CodedModel> {
    using bar = openDeployBar(sentBytes => (this.#sentBytes = sentBytes));
    const coded = await codedModel(modelPath, { ...options, cluster: this.cluster, onProgress: bar.onProgress });
    for (const refusal of coded.plan.refusals) note(`${refusalWords(refusal)}; going on without it`);
    return coded;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.cluster.close();
    } finally {
      await this.local?.close();
    }
  }
}
