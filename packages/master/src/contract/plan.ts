/** What is coded, what stays local, and why: the plan of a model on a cluster, which explains itself in words. */
import type { ErrorCode } from '@kofn/core';
import type { CodeName } from '@kofn/encoder';

/** The figures behind the decision of `layers: 'auto'`; see planner.ts for the formula. */
export interface Costs {
  /** The whole layer on the master. */
  readonly localMs: number;
  readonly roundTripMs: number;
  /** Input to n workers and k replies over the master's link. */
  readonly transferMs: number;
  /** One block on one worker, the slowest of the k fastest: so many are needed. */
  readonly shardMs: number;
  /** roundTripMs + transferMs + shardMs. */
  readonly codedMs: number;
}

export interface LayerPlan {
  readonly name: string;
  readonly operator: string;
  readonly decision: 'coded' | 'local';
  /** In words: why it is coded or local. */
  readonly reason: string;
  /** Shapes of one request as profiled; absent for a node that cannot be coded. */
  readonly inputShape?: readonly number[];
  readonly outputShape?: readonly number[];
  /** Multiply-accumulates of one request. */
  readonly macs?: number;
  readonly weightBytes?: number;
  /** Bytes of one request's input and output. */
  readonly inputBytes?: number;
  readonly outputBytes?: number;
  /** Only when coded. */
  readonly coded?: {
    readonly code: CodeName;
    readonly k: number;
    readonly r: number;
    /** What the code splits: output rows (dense) or output channels (conv). */
    readonly axis: 'rows' | 'channels';
    /** Worker of each block. */
    readonly workers: readonly number[];
    /** With a hedge: the other worker of each data block. */
    readonly others?: readonly number[];
    /** Weights that each worker keeps: a block, with a hedge two. */
    readonly shardBytes: number;
    /** Tensor bytes to and from each worker in one request. */
    readonly inputBytes: number;
    readonly replyBytes: number;
  };
  readonly costs?: Costs;
}

/** A run of nodes that are not coded, and who runs it. */
export interface SegmentPlan {
  readonly name: string;
  readonly nodes: number;
  readonly decision: 'replicated' | 'local';
  /** In words: why it is replicated or local. */
  readonly reason: string;
  /** Those that are asked, among the model's workers; none when local. */
  readonly workers: readonly number[];
}

export interface Plan {
  readonly layers: readonly LayerPlan[];
  /** In the model's order. */
  readonly segments: readonly SegmentPlan[];
  /**
   * What is to be known of how the model runs, a sentence each: that it was not normalised, or cannot be cut, and why; outputs that it does
   * not give.
   */
  readonly notes: readonly string[];
  /** Where the figures of `costs` come from. */
  readonly speeds: Speeds;
  /** Workers that did not take what it gives them when it was put; `health` says who has not yet. */
  readonly refusals: readonly Refusal[];
}

/** Speeds that `costs` are computed from. */
export interface Speeds {
  readonly source: 'measured' | 'assumed';
  /** The longest of those workers', and the least rate. */
  readonly roundTripMs: number;
  readonly megabitsPerSecond: number;
  /** Of the slowest of the workers that are needed: any k, the fastest. A multiply-accumulate is two operations. */
  readonly workerGflops: number;
  readonly localGflops: number;
}

/** Places of the layers in the model's file, by name. */
export function fileOrder({ layers }: Plan): Map<string, number> {
  return new Map(layers.map(({ name }, index) => [name, index]));
}

/** What the master takes for a multiply-accumulate of `layers`, by name (`node`); undefined where that was not measured. */
export function measuredMsPerMac(plan: Plan, layers: readonly { readonly node: string }[]): number | undefined {
  if (plan.speeds.source === 'assumed') return undefined;
  const names = new Set(layers.map(({ node }) => node));
  const planned = plan.layers.filter(({ name }) => names.has(name));
  const sum = (of: (layer: LayerPlan) => number | undefined) => planned.reduce((all, each) => all + (of(each) ?? 0), 0);
  return sum(({ costs }) => costs?.localMs) / sum(({ macs }) => macs);
}

/** Used where nothing was measured: a Raspberry Pi on wired Ethernet, roughly. */
export const ASSUMED_SPEEDS: Speeds = {
  source: 'assumed',
  roundTripMs: 1,
  megabitsPerSecond: 100,
  workerGflops: 2,
  localGflops: 2,
};

/** A worker that did not take what a model gave it, and why; of several reasons the first. */
export interface Refusal {
  readonly worker: number;
  readonly address: string;
  /** Names of the layers and segments. */
  readonly layers: readonly string[];
  readonly code: ErrorCode;
  readonly message: string;
}

/** What a plan needs of one worker, beside what stands there of the model. Bytes. */
export interface WorkerNeed {
  readonly worker: number;
  readonly address: string;
  /** Shards of the plan that stands, and of the new one, each with its bytes. */
  readonly standing: { readonly shards: number; readonly bytes: number };
  readonly planned: { readonly shards: number; readonly bytes: number };
  /** Those of the new plan that the worker does not hold yet. */
  readonly missing: { readonly shards: number; readonly bytes: number };
  /** The shards of both plans, those that both have counted once. */
  readonly both: { readonly shards: number; readonly bytes: number };
  /** Shards of everybody on its disk once the missing ones are there, and what they may take (`--max-disk`). */
  readonly diskBytes: number;
  readonly diskLimitBytes: number;
  /** What the shards of both plans take when all are open, and what open ones may take (`--max-memory`). */
  readonly memoryBytes: number;
  readonly memoryLimitBytes: number;
}

export interface Replanned {
  readonly model: string;
  /** The one that answers now. */
  readonly version: number;
  /** The workers that the model stood on, and by which plan; undefined where another program made it. */
  readonly before: { readonly workers: readonly number[]; readonly plan: Plan | undefined };
  /** The workers that it stands on now, in the order of the blocks, and the plan for them. */
  readonly workers: readonly number[];
  readonly plan: Plan;
  /** What was needed of each of them. */
  readonly needs: readonly WorkerNeed[];
  /** Shard bytes that were missing, all of which were sent; with `dryRun` none were. */
  readonly missingBytes: number;
}
