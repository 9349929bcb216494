/** Options of the public API, validated once. A message names the option, the value given and the range allowed. */
import { randomUUID } from 'node:crypto';
import { KofnError, systemClock, type Clock, type Signal, type Tensors } from '@kofn/core';
import { CODE_NAMES, defaultCode, type CodeName } from '@kofn/encoder';
import { ENGINE_NAMES, type EngineName } from '@kofn/engine';
import { parseWorkers } from '@kofn/wire';

/** Ms from the calls of a layer to its hedges, or the 95th percentile of what its replies took lately. */
export type HedgeAfter = number | 'p95';

/** A call that is about to go to a worker or has gone: what a {@link DispatchHooks} method is told. */
export interface DispatchCall {
  /** Number of the request within its model, from 0. */
  readonly request: number;
  /** Name of the layer, or of the segment where workers run it (`segments: 'replicated'`). */
  readonly layer: string;
  readonly worker: number;
}

/** Seen by failure-injection tools: called around each frame, synchronously. */
export interface DispatchHooks {
  beforeSend?(call: DispatchCall): void;
  /** The frame has been handed to the operating system. */
  afterWrite?(call: DispatchCall): void;
}

export interface ConnectOptions {
  /** `host:port` of each worker, or its host alone where it has the default port; their order numbers them from 0. */
  readonly workers: readonly string[];
  /** Engine of the master itself (segments between coded layers, local recovery). Default 'auto'. */
  readonly engine?: EngineName | 'auto';
  /** Threads of the master's engine. Default 1. */
  readonly threads?: number;
  /** Longest wait for a worker to answer. Default 10,000. */
  readonly connectDeadlineMs?: number;
  /**
   * So many workers must answer, or `connect` throws; with `workers.length` all of them. The others are connected to like workers that
   * were lost, and join when they come. Default 1.
   */
  readonly minWorkers?: number;
  /**
   * A worker that says nothing for so long is dead to the master, which then connects to it again: within this time a link
   * whose other end is gone is found. Default 2,000.
   */
  readonly silenceMs?: number;
  /**
   * What a worker held that has been lost for so long is put to another worker that holds nothing of the same layer, if there is
   * one; 0 at once, Infinity never: then a worker that comes back without its shards is not given them again either. Default 10,000.
   */
  readonly healAfterMs?: number;
  /**
   * Requests that may be under way at once: more are refused, RESOURCE_EXHAUSTED. Calls that may be under way at one worker:
   * those beyond wait. Default 64.
   */
  readonly maxInFlight?: number;
  /** Largest gRPC message. Default 256 MiB. */
  readonly maxMessageBytes?: number;
  /** Who claims shards on the workers. A program that says the same each time keeps its claims. Default: a random name. */
  readonly id?: string;
  readonly hooks?: DispatchHooks;
  readonly clock?: Clock;
  readonly signal?: Signal;
}

export interface ResolvedConnectOptions {
  readonly id: string;
  readonly workers: readonly string[];
  readonly engine: EngineName | 'auto';
  readonly threads: number;
  readonly connectDeadlineMs: number;
  readonly minWorkers: number;
  readonly silenceMs: number;
  readonly healAfterMs: number;
  readonly maxInFlight: number;
  readonly maxMessageBytes: number;
  readonly hooks: DispatchHooks;
  readonly clock: Clock;
  readonly signal: Signal | undefined;
}

/**
 * What happens when fewer than k workers are left for a layer: the master computes the missing blocks, other workers do (they
 * are given the shard where they lack it), or the request fails at once.
 */
export const ON_LOSS = ['local', 'resend', 'fail'] as const;
export type OnLoss = (typeof ON_LOSS)[number];

/** Who runs the segments between coded layers: the master, or two workers each. */
export const SEGMENTS = ['local', 'replicated'] as const;
export type SegmentChoice = (typeof SEGMENTS)[number];

/**
 * Whether what workers compute is checked: not (a reply of the right type and shape with finite numbers is believed), each reply
 * before it is used, or all replies to a layer against each other, behind the answer.
 */
export const VERIFY = ['none', 'fingerprint', 'audit'] as const;
export type VerifyChoice = (typeof VERIFY)[number];

/** Which linear layers are coded: all that can be, those for which it pays, or these by name. */
export type LayerChoice = 'all' | 'auto' | readonly string[];

export interface DeployProgress {
  /** Layer that is being put, and its number among those to code. */
  readonly layer: string;
  readonly layerNumber: number;
  readonly layerCount: number;
  /** Shard bytes sent so far and to send, over all layers so far encoded; bytes that a worker had already are in neither. */
  readonly sentBytes: number;
  readonly totalBytes: number;
}

export interface CodeOptions {
  /** What claims on workers call the model. Default: its file's name, or "model"; a number follows where it repeats. */
  readonly name?: string;
  /**
   * Numbers of the workers that hold it, in the order of the blocks; n is how many. Default: all of the cluster. So many models
   * spread over a large fleet, each on a few workers; the others are its spares, which take what a lost worker held.
   */
  readonly workers?: readonly number[];
  /** Parity blocks r: so many workers of a layer may fail. Default 1; 0 is uncoded. */
  readonly parity?: number;
  /** Default: uncoded for parity 0, sum for 1, rotation for more. */
  readonly code?: CodeName;
  readonly onLoss?: OnLoss;
  /** How long a layer waits for late data blocks once it could decode. Default 0. */
  readonly systematicGraceMs?: number;
  /**
   * So long after its calls a layer asks a second worker for each data block that has not come; the first reply wins. A number of
   * ms, or 'p95': the 95th percentile of what the layer's last 200 replies took, once 20 are known. A block whose worker fails is
   * asked of the second at once. Each data block then stands on two workers: its own and the next. Default: nobody is asked twice.
   */
  readonly hedge?: HedgeAfter;
  /**
   * 'fingerprint': a reply that its block does not give is an erasure, and a worker that is found wrong twice is quarantined until
   * `cluster.release`. 'audit': the calls that an answer does not need go on, and behind it the replies are checked against each other;
   * with parity 1 a wrong one is noticed, with more the worker is named, which counts as found wrong if the master's own computation
   * confirms it. Of coded layers, not of replicated segments. Default 'none'.
   */
  readonly verify?: VerifyChoice;
  /** What audits may hold, of all requests of the model: one that would hold more is not audited. Default 64 MiB. */
  readonly maxAuditBytes?: number;
  readonly onProgress?: (progress: DeployProgress) => void;
  readonly signal?: Signal;
}

export interface ModelOptions extends CodeOptions {
  /** Default 'all'. */
  readonly layers?: LayerChoice;
  /** Inputs to profile the model with; needed where a size other than the first is open. Default zeros, first size 1. */
  readonly sampleInputs?: Tensors;
  /**
   * Who runs what is not coded: the master, or two workers for each segment (a run of such nodes), both at once, and the first
   * answer counts; the master then only when they fail or are late. Default 'local'.
   */
  readonly segments?: SegmentChoice;
}

/** What a new plan may have of its own, from now on; all else is as the model was deployed. */
export interface ReplanOptions extends Pick<
  ModelOptions,
  'workers' | 'parity' | 'code' | 'layers' | 'hedge' | 'segments' | 'verify' | 'onProgress' | 'signal'
> {
  /** Plan, look whether there is room, tell, and change nothing. Default false. */
  readonly dryRun?: boolean;
}

export interface ResolvedCode {
  readonly code: CodeName;
  readonly k: number;
  readonly r: number;
  readonly n: number;
}

export interface RunOptions {
  readonly signal?: Signal;
  /** The request ends within this time, with an answer or DEADLINE_EXCEEDED. Default 60,000. */
  readonly deadlineMs?: number;
  /** What the caller calls it: workers log it beside what they ran of it (`--log-level debug`). */
  readonly id?: string | undefined;
}

export const DEFAULT_DEADLINE_MS = 60_000;

export function resolveConnectOptions(options: ConnectOptions): ResolvedConnectOptions {
  const { engine = 'auto', threads = 1, connectDeadlineMs = 10_000, maxMessageBytes = 2 ** 28 } = options;
  const { id = randomUUID(), silenceMs = 2_000, healAfterMs = 10_000, maxInFlight = 64, minWorkers = 1 } = options;
  const workers = parseWorkers('workers', options.workers);
  if (engine !== 'auto' && !ENGINE_NAMES.includes(engine)) {
    throw new KofnError(
      'INVALID_ARGUMENT',
      `engine: "${String(engine)}" is not one of auto, ${ENGINE_NAMES.join(', ')}`,
    );
  }
  requireName('id', id);
  requireWhole('threads', threads, 1, 1024);
  requireRange('connectDeadlineMs', connectDeadlineMs, 1, 2 ** 31 - 1);
  requireWhole('minWorkers', minWorkers, 1, workers.length);
  requireRange('silenceMs', silenceMs, 100, 2 ** 31 - 1);
  requireRange('healAfterMs', healAfterMs, 0, Infinity);
  requireWhole('maxInFlight', maxInFlight, 1, 65_536);
  requireWhole('maxMessageBytes', maxMessageBytes, 1024, 2 ** 31 - 1);
  return {
    id,
    workers,
    engine,
    threads,
    connectDeadlineMs,
    minWorkers,
    silenceMs,
    healAfterMs,
    maxInFlight,
    maxMessageBytes,
    hooks: options.hooks ?? {},
    clock: options.clock ?? systemClock,
    signal: options.signal,
  };
}

/** The numbers of the workers that hold a model, of `count` in the cluster. Throws INVALID_ARGUMENT. */
export function resolveWorkers({ workers }: CodeOptions, count: number): readonly number[] {
  if (workers === undefined) return Array.from({ length: count }, (_, worker) => worker);
  if (!Array.isArray(workers) || workers.length === 0) {
    const rule = 'give the numbers of one or more workers, or leave it out for all';
    throw new KofnError('INVALID_ARGUMENT', `workers: ${rule}`);
  }
  const numbers: readonly number[] = workers;
  for (const worker of numbers) requireWhole('workers', worker, 0, count - 1);
  const twice = numbers.find((worker, at) => numbers.indexOf(worker) !== at);
  if (twice === undefined) return [...numbers];
  throw new KofnError('INVALID_ARGUMENT', `workers: ${twice} is listed twice; each worker counts once`);
}

/** The code for `workers` machines and r parity blocks. Throws INVALID_ARGUMENT. */
export function resolveCode(options: CodeOptions, workers: number): ResolvedCode {
  if (options.onLoss !== undefined && !ON_LOSS.includes(options.onLoss)) {
    throw new KofnError('INVALID_ARGUMENT', `onLoss: "${String(options.onLoss)}" is not one of ${ON_LOSS.join(', ')}`);
  }
  const parity = options.parity ?? (options.code === 'uncoded' ? 0 : 1);
  requireWhole('parity', parity, 0, 1024);
  const code = options.code ?? defaultCode(parity);
  if (!CODE_NAMES.includes(code)) {
    throw new KofnError('INVALID_ARGUMENT', `code: "${String(code)}" is not one of ${CODE_NAMES.join(', ')}`);
  }
  if (parity >= workers) {
    throw new KofnError(
      'INVALID_ARGUMENT',
      `parity: ${parity} with ${workers} worker${workers === 1 ? '' : 's'} leaves no data block; ` +
        `give a parity below ${workers}, or more workers`,
    );
  }
  if (code === 'replication') {
    // Every block on parity + 1 workers survives the loss of any `parity` of them.
    const copies = parity + 1;
    const k = Math.floor(workers / copies);
    return { code, k, r: k * parity, n: k * copies };
  }
  if (code === 'uncoded' && parity !== 0) {
    throw new KofnError('INVALID_ARGUMENT', `code: uncoded has no parity blocks, got parity ${parity}; give parity 0`);
  }
  if (code === 'sum' && parity !== 1) {
    throw new KofnError('INVALID_ARGUMENT', `code: sum has exactly 1 parity block, got parity ${parity}; use rotation`);
  }
  return { code, k: workers - parity, r: parity, n: workers };
}

/** When late blocks are asked of a second worker, of `workers`; undefined for never. Throws INVALID_ARGUMENT. */
export function resolveHedge({ hedge }: CodeOptions, workers: number): HedgeAfter | undefined {
  if (hedge === undefined) return undefined;
  if (hedge !== 'p95') {
    const isNumber = typeof hedge === 'number';
    if (!isNumber)
      throw new KofnError('INVALID_ARGUMENT', `hedge: "${String(hedge)}" is neither a number of ms nor p95`);
    requireRange('hedge', hedge, 0, 2 ** 31 - 1);
  }
  requireSecond('hedge', workers);
  return hedge;
}

export interface ResolvedVerify {
  readonly how: VerifyChoice;
  readonly maxAuditBytes: number;
}

/** Throws INVALID_ARGUMENT. */
export function resolveVerify(
  { verify: how = 'none', maxAuditBytes = 2 ** 26 }: CodeOptions,
  { r }: ResolvedCode,
): ResolvedVerify {
  if (!VERIFY.includes(how)) {
    throw new KofnError('INVALID_ARGUMENT', `verify: "${String(how)}" is not one of ${VERIFY.join(', ')}`);
  }
  if (how === 'audit' && r === 0) {
    const advice = 'give parity 1 or more, or use fingerprint';
    throw new KofnError(
      'INVALID_ARGUMENT',
      `verify: audit checks replies against parity, and there is none; ${advice}`,
    );
  }
  requireWhole('maxAuditBytes', maxAuditBytes, 0, Number.MAX_SAFE_INTEGER);
  return { how, maxAuditBytes };
}

/** Who runs the segments, with `workers` to do it. Throws INVALID_ARGUMENT. */
export function resolveSegments({ segments = 'local' }: ModelOptions, workers: number): SegmentChoice {
  if (!SEGMENTS.includes(segments)) {
    throw new KofnError('INVALID_ARGUMENT', `segments: "${String(segments)}" is not one of ${SEGMENTS.join(', ')}`);
  }
  if (segments === 'replicated') requireSecond('segments', workers);
  return segments;
}

function requireSecond(option: string, workers: number): void {
  if (workers > 1) return;
  throw new KofnError(
    'INVALID_ARGUMENT',
    `${option}: needs a second worker, and there is 1; add workers, or leave it out`,
  );
}

/** Longest name that the shard store takes. */
const MAX_NAME_CHARS = 200;

export function requireName(option: string, name: string): void {
  if (typeof name === 'string' && name.length >= 1 && name.length <= MAX_NAME_CHARS) return;
  const range = `a string of 1 to ${MAX_NAME_CHARS} characters`;
  throw new KofnError('INVALID_ARGUMENT', `${option}: "${String(name).slice(0, 40)}" is not ${range}`);
}

export function requireWhole(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value)) {
    throw new KofnError('INVALID_ARGUMENT', `${name}: ${String(value)} is not a whole number from ${min} to ${max}`);
  }
  requireRange(name, value, min, max);
}

export function requireRange(name: string, value: number, min: number, max: number): void {
  if (!(value >= min && value <= max)) {
    throw new KofnError('INVALID_ARGUMENT', `${name}: ${String(value)} is outside the range ${min} to ${max}`);
  }
}
