/**
 * How requests end. With at most r afflicted workers none is lost, none waits for them, and nobody else is blamed; beyond r
 * each ends exactly (exact.ts) or with one error of the kinds that say so; all end by their deadline.
 */
import { isFiniteTensor, type ErrorCode } from '@kofn/core';
import type { OnLoss } from '@kofn/master';
import type { RequestRecord, Violation } from './request.js';

/** Timers fire on time; only sums of floats are not exact. */
const CLOCK_ERROR_MS = 1e-6;
/** Much more than k healthy workers need, much less than the usual deadline. */
export const HEALTHY_MS = 5_000;

/** What a deployment may end with through faults, or when more workers than the code covers did not take it. */
export const DEPLOY_ERRORS: readonly ErrorCode[] = ['UNAVAILABLE', 'RESOURCE_EXHAUSTED', 'STORAGE', 'DATA_LOSS'];
const BEYOND: readonly ErrorCode[] = ['DEADLINE_EXCEEDED', 'NOT_ENOUGH_WORKERS'];

export function checkDeadlines(requests: readonly RequestRecord[]): Violation[] {
  return requests.flatMap(({ number, startMs, endMs, deadlineMs, cancelledMs, closedMs }) => {
    const ms = endMs - startMs;
    if (ms > deadlineMs + CLOCK_ERROR_MS)
      return [`request ${number} ended after ${ms} ms, its deadline was ${deadlineMs}`];
    // One that begins after the close ends at once, too.
    const overMs = Math.min(cancelledMs ?? Infinity, Math.max(closedMs ?? Infinity, startMs));
    if (endMs > overMs + CLOCK_ERROR_MS) {
      return [`request ${number} was cancelled or closed at ${overMs} ms and ended at ${endMs} ms`];
    }
    return [];
  });
}

/** For requests with at most as many afflicted workers as the code covers. */
export function checkNoneLost(requests: readonly RequestRecord[]): Violation[] {
  return requests.flatMap(
    ({ number, input, afflicted, startMs, endMs, deadlineMs, cancelledMs, closedMs, outcome }) => {
      if ('error' in outcome) {
        const { code, message } = outcome.error;
        if (code === 'CANCELLED' && (cancelledMs ?? closedMs) !== undefined) return [];
        if (code === 'DEADLINE_EXCEEDED' && deadlineMs < HEALTHY_MS) return [];
        return [`request ${number} was lost within r: ${code}: ${message}`];
      }
      const ms = endMs - startMs;
      const slow = ms > HEALTHY_MS ? [`request ${number} waited ${ms} ms for workers that it did not need`] : [];
      if (closedMs !== undefined) return slow; // whoever hears of the close first is an erasure
      const { layers } = outcome.report;
      const blamed = layers.flatMap(({ erasures }) => erasures).filter(({ worker }) => !afflicted.includes(worker));
      const here = isFiniteTensor(input) ? layers.filter(({ computedHere }) => computedHere.length > 0) : [];
      return [
        ...slow,
        ...blamed.map(({ worker, message }) => `request ${number} blames worker ${worker}: ${message}`),
        ...here.map(
          ({ name }) => `request ${number} was computed by the master at ${name}, which k workers could give`,
        ),
      ];
    },
  );
}

export function checkTypedErrors(requests: readonly RequestRecord[], onLoss: OnLoss): Violation[] {
  return requests.flatMap(({ number, cancelledMs, closedMs, outcome }) => {
    if (!('error' in outcome)) return [];
    const { code, message } = outcome.error;
    const isCovered =
      code === 'CANCELLED'
        ? (cancelledMs ?? closedMs) !== undefined
        : code !== 'NOT_ENOUGH_WORKERS' || onLoss !== 'local';
    return isCovered && [...BEYOND, 'CANCELLED'].includes(code)
      ? []
      : [`request ${number} ended with ${code}: ${message}`];
  });
}
