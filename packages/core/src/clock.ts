/**
 * Time behind a seam, so that a simulation can replace it. Nothing outside this file reads the real clock or sets a
 * real timer.
 */

export interface Timer {
  /** Disarms the timer; harmless after it fired. */
  cancel(): void;
}

export interface Clock {
  /** Monotonic milliseconds from an arbitrary origin, with sub-millisecond resolution. */
  now(): number;
  /** Calls `fire` once, `delayMs` (≥ 0) from now. The timer keeps the process alive unless `background`. */
  setTimer(fire: () => void, delayMs: number, options?: { background?: boolean }): Timer;
}

/** setTimeout's own limit: longer delays would fire at once. */
const MAX_DELAY_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => performance.now(),
  setTimer(fire, delayMs, options) {
    const handle = setTimeout(fire, Math.min(Math.max(0, delayMs), MAX_DELAY_MS));
    if (options?.background) handle.unref();
    return { cancel: () => clearTimeout(handle) };
  },
};
