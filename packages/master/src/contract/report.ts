/**
 * What a request tells about itself: who answered when, what was recovered, how exact it can be. Workers are numbered
 * from 0 in the order given to `connect`; blocks from 0 to n - 1 as in the code.
 */
import type { CodeName } from '@kofn/encoder';
import type { ErrorCode } from '@kofn/core';
import type { Spans } from './spans.js';

export interface Arrival {
  readonly block: number;
  readonly worker: number;
  /** From the layer's dispatch to this reply, verified. */
  readonly ms: number;
}

/** A worker whose block is an erasure in this request, and why. */
export interface Erasure {
  readonly block: number;
  readonly worker: number;
  readonly code: ErrorCode;
  readonly message: string;
}

/** A call that was given up when the output could be decoded without it. */
export interface Unanswered {
  readonly block: number;
  readonly worker: number;
  /**
   * Its reply came after all: from the layer's dispatch, without its wait behind other requests at the worker. Absent until that is
   * known, which is after the answer; for good when the worker had not begun, is gone, or tells no times.
   */
  readonly lateMs?: number;
}

/** A reply that its fingerprint showed not to be its block (`verify`): an erasure, too. */
export interface Rejection {
  readonly block: number;
  readonly worker: number;
}

export interface LayerReport {
  readonly name: string;
  readonly code: CodeName;
  readonly k: number;
  readonly r: number;
  /** From the request's start to this layer's dispatch. */
  readonly startMs: number;
  /** From dispatch to the decoded output. */
  readonly ms: number;
  /** Where that time went. */
  readonly spans: Spans;
  /** Replies up to the one that completed the decode set, in order of arrival. */
  readonly arrivals: readonly Arrival[];
  readonly erasures: readonly Erasure[];
  /** Calls that nobody waited for any more. */
  readonly unanswered: readonly Unanswered[];
  readonly rejected: readonly Rejection[];
  /** Blocks that the output was decoded from, ascending; those computed by the master included. */
  readonly decodeSet: readonly number[];
  /** Data blocks computed from parity, by why: their worker failed, or had not answered yet. */
  readonly recovered: { readonly lost: readonly number[]; readonly late: readonly number[] };
  /** Data blocks that the master computed itself because fewer than k workers were left or the input is not finite. */
  readonly computedHere: readonly number[];
  /** Blocks that another worker was asked for because fewer than k were left (`onLoss: 'resend'`, `hedge`). */
  readonly resent: readonly number[];
  /** Blocks that another worker was asked for because they were late (`hedge`). */
  readonly hedged: readonly number[];
  /** Factor by which this decode set multiplies float rounding; 1 when nothing was solved for. */
  readonly errorGain: number;
  /**
   * Tensor and protocol bytes on the wire. Layers that share their input go to the workers in one call, whose bytes stand with
   * the first of them.
   */
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

/** A segment that stands on workers (`segments: 'replicated'`): who answered first, null for the master itself. */
export interface SegmentReport {
  readonly name: string;
  readonly worker: number | null;
  readonly ms: number;
}

export interface RunReport {
  /** Number of this request within its model, from 0. */
  readonly request: number;
  readonly ms: number;
  /** Where that time went, along the critical path. */
  readonly spans: Spans;
  /** Coded layers in the model's order. */
  readonly layers: readonly LayerReport[];
  /** In the model's order; none with `segments: 'local'`, nor those that stay with the master (`Plan.segments`). */
  readonly segments: readonly SegmentReport[];
}

/** How a request to a model ended: with an answer's report, or a failure's code. */
export type RequestEnd =
  { readonly model: string; readonly report: RunReport } | { readonly model: string; readonly code: ErrorCode };

/** A call while it may still be answered. */
export interface AskedCall {
  readonly block: number;
  readonly worker: number;
  lateMs?: number;
}

const NONE: readonly Rejection[] = [];

export function rejectedOf(erasures: readonly Erasure[]): readonly Rejection[] {
  if (erasures.length === 0) return NONE;
  return erasures.filter(({ code }) => code === 'WRONG_ANSWER').map(({ block, worker }) => ({ block, worker }));
}

/**
 * What became of a request's audits: replies of every layer fit together; of one they do not; or a layer could not be looked at,
 * because no more than k replies came in time, or there was no room to hold them.
 */
export type AuditOutcome = 'passed' | 'failed' | 'skipped';

/** Requests whose audit is over, by what became of it. */
export type AuditCounts = Readonly<Record<AuditOutcome, number>>;
