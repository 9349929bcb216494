/** How a command ends: its exit code, and one line for whatever went wrong. */
import { KofnError, type ErrorCode } from '@kofn/core';

export const EXIT_OK = 0;
/** The run failed, or lost or changed an answer. */
export const EXIT_FAILED = 1;
/** Wrong usage or bad input: nothing was run. */
export const EXIT_USAGE = 2;

/** Codes that say the caller gave something wrong, not that something went wrong. */
const BAD_INPUT: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'INVALID_ARGUMENT',
  'INVALID_MODEL',
  'NOT_FOUND',
  'SHAPE_MISMATCH',
  'DTYPE_MISMATCH',
  'NON_FINITE',
  'DATA_LOSS',
  'UNSUPPORTED',
]);

export function exitCodeOf(error: unknown): number {
  return error instanceof KofnError && BAD_INPUT.has(error.code) ? EXIT_USAGE : EXIT_FAILED;
}

/** `error` in one line; with its stack and causes when `debug`. */
export function describeError(error: unknown, debug: boolean): string {
  if (!(error instanceof Error)) return String(error);
  if (!debug) return error.message.replace(/\s*\n\s*/g, ' | ');
  const cause = error.cause === undefined ? '' : `\ncaused by: ${describeError(error.cause, true)}`;
  return `${error.stack ?? error.message}${cause}`;
}
