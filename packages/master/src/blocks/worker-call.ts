/**
 * One call to one worker, for a block of a layer (dispatch.ts) or a segment (replicated-segment.ts).
 *
 * Invariants
 * 1. A reply is taken only when `verify` has seen it and thrown nothing.
 * 2. What the worker answers counts for or against it: a wrong reply is a mark, a shard that it does not hold is known to be
 *    missing. A call that was cancelled says nothing of it but how fast it is.
 */
import { abortable, KofnError, type Clock, type ErrorCode, type Signal } from '@kofn/core';
import type { EncodedInputs, InferReply, WorkerTimes } from '@kofn/wire';
import type { Connection } from '../fleet/connection.js';
import type { DispatchHooks, OnLoss } from '../contract/options.js';
import type { CallTimes } from '../contract/spans.js';
import type { SeenCall } from '../fleet/speeds.js';
import type { AuditOutcome } from '../contract/report.js';
import type { Suspicion } from './suspicion.js';

export interface RequestContext {
  readonly request: number;
  /** The caller's own, which workers are told. */
  readonly id?: string | undefined;
  /** Clock time at which it began. */
  readonly startedAt: number;
  /** Aborts when the caller cancels or the deadline passes. */
  readonly signal: Signal;
  /** Clock time at which the request must have ended. */
  readonly deadlineAt: number;
  readonly clock: Clock;
  readonly connections: readonly Connection[];
  readonly hooks: DispatchHooks;
  readonly onLoss: OnLoss;
  readonly systematicGraceMs: number;
  /** Replies that failed their check, to be looked into when the request is over. */
  readonly suspicions: Suspicion[];
  /** What becomes of its audits, behind its answer. */
  readonly audits: Promise<AuditOutcome>[];
}

export interface WorkerCall<T> {
  /** Name of the shard. */
  readonly shard: string;
  /** What the hooks are told. */
  readonly layer: string;
  /** What travels, there and back together. */
  readonly bytes: number;
  /** What its speed is measured by. */
  readonly block?: SeenCall['block'];
  readonly signal: Signal;
  /** The shard is on its way there, or known to be missing. */
  readonly putting?: Promise<void> | undefined;
  inputs(): EncodedInputs;
  /** The frame has been handed to the operating system; its size. */
  onWritten(bytes: number): void;
  /** What is wanted of the reply, at once or when it is known. Throws what is wrong with it. */
  verify(reply: InferReply): T | Promise<T>;
  take(value: T, times: CallTimes): void;
  /** The call was cancelled, and its worker had begun: what that says of its time, and the clock time at which it says so. */
  onLate?(times: WorkerTimes, atMs: number): void;
  /** Not when the call was cancelled. */
  onFailure(code: ErrorCode, message: string): void;
}

/** What no sound worker answers to a finite input of the right shape. NaN is not among them: a layer may overflow. */
const WRONG_REPLIES: readonly ErrorCode[] = ['PROTOCOL', 'SHAPE_MISMATCH', 'DTYPE_MISMATCH'];

/** Nobody sees it but calls that nobody waits for; made once, for an error takes its stack with it. */
export const ANSWERED = new KofnError('CANCELLED', 'the layer has its answer');

/** Resolves once the reply is taken; rejects with whatever came instead. */
export async function callWorker<T>(
  { request, clock, hooks, deadlineAt }: RequestContext,
  connection: Connection,
  call: WorkerCall<T>,
): Promise<void> {
  const { shard, signal, bytes, block } = call;
  const { speed, tally } = connection;
  const told = { request, layer: call.layer, worker: connection.index };
  try {
    if (call.putting !== undefined) await abortable(call.putting, signal);
    if (connection.takesCalls && !connection.isFull) hooks.beforeSend?.(told);
    let writtenAt: number | undefined;
    const sending = connection.infer(shard, call.inputs(), {
      signal,
      bytes,
      timeoutMs: Math.max(1, deadlineAt - clock.now()),
      onWritten: frameBytes => {
        writtenAt = clock.now();
        call.onWritten(frameBytes);
        hooks.afterWrite?.(told);
      },
      onLate: worker => {
        const atMs = clock.now();
        speed.late(seen(worker, atMs));
        call.onLate?.(worker, atMs);
      },
    });
    const sentAt = clock.now();
    const seen = (worker: WorkerTimes, atMs: number): SeenCall => ({ callMs: atMs - sentAt, bytes, worker, block });
    const reply = await sending;
    const repliedAt = clock.now();
    const verified = call.verify(reply);
    const value = verified instanceof Promise ? await abortable(verified, signal) : verified;
    if (reply.times !== undefined) speed.answered(seen(reply.times, repliedAt));
    tally.arrivals++;
    call.take(value, { sentAt, writtenAt, repliedAt, verifiedAt: clock.now(), worker: reply.times });
  } catch (error) {
    const { code, message } = KofnError.from(error);
    if (WRONG_REPLIES.includes(code)) connection.mark(message);
    if (code === 'NOT_FOUND' || code === 'DATA_LOSS') connection.lacks(shard);
    if (!signal.aborted) {
      tally.erased(code);
      call.onFailure(code, message);
    } else if (signal.reason === ANSWERED) {
      tally.missed++;
      speed.missed();
    }
    throw error;
  }
}
