/**
 * What the page and the server tell each other: `GET /kofn/v1/state` answers a PageState; `GET /kofn/v1/events` (Server-Sent Events) begins
 * with one (`event: state`) and goes on with PagePatch messages (`event: patch`), each with an id from which it can be resumed: RUN-NUMBER,
 * and a server that is started again has another RUN. Times are milliseconds of the cluster's clock where a name says `at`, else durations.
 */

export interface PageState {
  readonly atMs: number;
  /** Whether `POST /kofn/v1/faults` takes FaultRequest. */
  readonly faults: boolean;
  readonly workers: readonly WorkerLine[];
  readonly models: readonly ModelLine[];
  readonly health: readonly HealthLine[];
  readonly figures: readonly Figures[];
  readonly load: Load;
  /** A sample of the latest, oldest first. */
  readonly requests: readonly RequestLine[];
  /** The latest, oldest first. */
  readonly events: readonly EventLine[];
}

/** What has changed: workers by index, requests and events that are new, and all else as a whole. */
export type PagePatch = Partial<Omit<PageState, 'faults'>>;

export interface WorkerLine {
  readonly index: number;
  readonly address: string;
  readonly state: string;
  /** Why it is not ready; empty when it is. */
  readonly reason: string;
  /** As `WorkerSpeed` of the master; null where nothing was seen lately. */
  readonly macsPerSecond: number | null;
  readonly rttMs: number | null;
  readonly slowness: number | null;
  readonly isStraggler: boolean;
  /** The part of its latest calls that were answered before the layer could do without. */
  readonly inTime: number | null;
}

export interface ModelLine {
  readonly name: string;
  readonly version: string;
  /** Class names in the order of the outputs. */
  readonly labels: readonly string[] | null;
  readonly inputs: readonly ValueLine[];
  readonly outputs: readonly ValueLine[];
  /** In the model's order. */
  readonly layers: readonly PlanLine[];
  /** Runs of nodes that are not coded. */
  readonly segments: readonly SegmentLine[];
}

export interface ValueLine {
  readonly name: string;
  readonly dtype: string;
  /** A name for a size that the model leaves open. */
  readonly shape: readonly (number | string)[];
}

export interface PlanLine {
  readonly name: string;
  readonly operator: string;
  readonly reason: string;
  readonly macs: number | null;
  readonly weightBytes: number | null;
  readonly outputShape: readonly number[] | null;
  /** Null for a layer that the master runs itself. */
  readonly coded: {
    readonly code: string;
    readonly k: number;
    readonly r: number;
    readonly axis: string;
    readonly shardBytes: number;
  } | null;
}

export interface SegmentLine {
  readonly name: string;
  readonly nodes: number;
  readonly reason: string;
  /** None when the master runs it. */
  readonly workers: readonly number[];
}

/** How a model stands now. */
export interface HealthLine {
  readonly model: string;
  readonly version: string;
  /** How many blocks of the layer that has the fewest may still be lost; null when nothing is coded. */
  readonly margin: number | null;
  readonly layers: readonly {
    readonly layer: string;
    readonly k: number;
    readonly ready: number;
    readonly margin: number;
    /** Who holds each block. */
    readonly workers: readonly (readonly number[])[];
  }[];
}

export interface Load {
  readonly queued: number;
  readonly running: number;
}

/** Of one model, over the last minute. */
export interface Figures {
  readonly model: string;
  readonly version: string;
  /** Requests that ended in each of the last full seconds, oldest first. */
  readonly perSecond: readonly number[];
  /** Over the last ten of them. */
  readonly ratePerSecond: number;
  readonly answered: number;
  readonly failed: number;
  /** Within 2 %; null without an answer. The wait in the queue included. */
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  /** Blocks. */
  readonly recovered: { readonly lost: number; readonly late: number };
  readonly waits: Waits;
}

/**
 * What requests took, and what the same requests would have taken at least, had every layer waited for all its n replies. A reply that
 * came after the answer tells its time; one that was cancelled before its worker began, or has not come 2 s later, counts as no wait.
 */
export interface Waits {
  /** Of bars, one more than there are; ascending, each in the same ratio to the one before. */
  readonly edgesMs: readonly number[];
  /** Requests in each bar. */
  readonly first: readonly number[];
  readonly all: readonly number[];
  /** Answered requests of the last minute that were looked at. */
  readonly looked: number;
  /** Those with a reply that is not known. */
  readonly bounds: number;
  /** Those in which a worker had failed: to wait for it is to have no answer. */
  readonly lost: number;
  /** Null when there are none, and when it falls on those that would have no answer. */
  readonly firstP50Ms: number | null;
  readonly firstP99Ms: number | null;
  readonly allP50Ms: number | null;
  readonly allP99Ms: number | null;
}

export interface RequestLine {
  /** Numbers all that ended, sampled or not. */
  readonly number: number;
  readonly id: string;
  readonly model: string;
  readonly version: string;
  readonly atMs: number;
  readonly ms: number;
  readonly queueMs: number;
  /** Of a failure: its code. */
  readonly error: string | null;
  /** Coded steps by their beginning. */
  readonly steps: readonly StepLine[];
}

/** One coded step: a layer, or several that share their input and so their calls. */
export interface StepLine {
  readonly layers: readonly string[];
  readonly code: string;
  readonly k: number;
  readonly n: number;
  /** From the request's start, the queue not included. */
  readonly startMs: number;
  /** From dispatch to the decoded output. */
  readonly ms: number;
  /** From dispatch to the last reply that was needed; null when the master computed all. */
  readonly readyMs: number | null;
  readonly replies: readonly ReplyLine[];
  /** Blocks that the master computed itself. */
  readonly computedHere: readonly number[];
  readonly errorGain: number;
}

/**
 * What one worker did for one block: it answered in time; it failed; or nobody waited for it any more, and `ms` is when its reply came
 * nevertheless, without its wait behind other requests, where that is known.
 */
export interface ReplyLine {
  readonly worker: number;
  readonly block: number;
  readonly kind: 'arrived' | 'failed' | 'cancelled';
  /** From dispatch. */
  readonly ms: number | null;
  /** Its block was computed from parity. */
  readonly isRecovered: boolean;
  /** Of a failure: its code. */
  readonly error?: string;
}

export interface EventLine {
  readonly atMs: number;
  readonly kind: string;
  readonly message: string;
}

export const FAULT_ACTIONS = ['kill', 'pause', 'slow', 'restore'] as const;
export type FaultAction = (typeof FAULT_ACTIONS)[number];

/** Body of `POST /kofn/v1/faults`. */
export interface FaultRequest {
  readonly worker: number;
  readonly action: FaultAction;
}

/** Requests of the page itself have ids that begin so; it is told of all of them, as long as they are few. */
export const PAGE_REQUEST = 'kofn-page-';
