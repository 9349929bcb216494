/**
 * The shape of a link: what it does to every frame, whatever its mode. A *frame* is what a station has to send when it gets the air,
 * at most 64 KiB (an aggregate of 802.11n, A-MPDU); in the proxy, what one read gives, cut at that.
 */
import { KofnError } from '@kofn/core';
import { largestOf, type LinkTrace } from './trace.js';

export interface LinkShape {
  /** Each way, every frame. */
  readonly delayMs?: number | undefined;
  /** Added to it, drawn for each frame: lognormal in ms. */
  readonly jitter?: { readonly mu: number; readonly sigma: number } | undefined;
  /** A line of its own each way. */
  readonly megabitsPerSecond?: number | undefined;
  /** One token bucket that all links with this shape share in both directions: the air of a Wi-Fi cell. */
  readonly sharedMegabitsPerSecond?: number | undefined;
  /** A frame stalls with probability `rate` for minMs to maxMs (uniform); the station's next one that way with probability `burst`. */
  readonly stalls?:
    { readonly rate: number; readonly minMs: number; readonly maxMs: number; readonly burst: number } | undefined;
  /** A lost frame arrives after a retransmission timeout, doubled for each further loss of it: what a user of TCP sees of loss. */
  readonly loss?: { readonly rate: number; readonly rtoMs: number } | undefined;
  /** Recorded: delay (added to `delayMs`) and rate (instead of `megabitsPerSecond`) over time, from the beginning again at its end. */
  readonly trace?: LinkTrace | undefined;
}

export const FRAME_BYTES = 64 * 1024;

/** One cell of 802.11n: 20 Mbit/s for all that is sent in it, and frames that wait for a busy or fading channel. */
export const WIFI: LinkShape = {
  delayMs: 5,
  jitter: { mu: 0, sigma: 1 },
  sharedMegabitsPerSecond: 20,
  stalls: { rate: 0.02, minMs: 50, maxMs: 500, burst: 0.3 },
};

/** Switched Fast Ethernet, as between single-board computers. */
export const WIRED: LinkShape = { delayMs: 0.2, megabitsPerSecond: 100 };

const BITS_PER_MEGABIT_MS = 1000;
/** What is in flight on a line without a rate is that of 1 Gbit/s. */
const FASTEST_MEGABITS = 1000;
const MAX_FLIGHT_BYTES = 8 * 2 ** 20;

/** Milliseconds that `bytes` take to leave. */
export function serialisationMs(bytes: number, megabitsPerSecond = Infinity): number {
  return (8 * bytes) / (BITS_PER_MEGABIT_MS * megabitsPerSecond);
}

/** How much can be on its way in one direction, waiting for nothing. */
export function flightBytes(shape: LinkShape): number {
  const { delayMs = 0, jitter, trace } = shape;
  const jitterMs = jitter === undefined ? 0 : Math.exp(jitter.mu + jitter.sigma ** 2 / 2);
  const wholeMs = delayMs + jitterMs + largestOf(trace?.delayMs, 0);
  const rates = [
    shape.megabitsPerSecond,
    shape.sharedMegabitsPerSecond,
    largestOf(trace?.megabitsPerSecond, undefined),
  ];
  const rate = Math.min(FASTEST_MEGABITS, ...rates.map(rate => rate ?? Infinity));
  return Math.min(MAX_FLIGHT_BYTES, Math.ceil((wholeMs * rate * BITS_PER_MEGABIT_MS) / 8));
}

/** Links whose shapes have the same key share one bucket. */
export function shapeKey({ trace, ...shape }: LinkShape): string {
  const { delayMs, jitter, megabitsPerSecond, sharedMegabitsPerSecond, stalls, loss } = shape;
  const numbers = [delayMs, megabitsPerSecond, sharedMegabitsPerSecond, jitter?.mu, jitter?.sigma];
  const drawn = [stalls?.rate, stalls?.minMs, stalls?.maxMs, stalls?.burst, loss?.rate, loss?.rtoMs];
  return JSON.stringify([numbers, drawn, trace?.origin]);
}

/** Throws INVALID_ARGUMENT: a value outside its range. */
export function checkShape(shape: LinkShape): void {
  const { delayMs, jitter, megabitsPerSecond, sharedMegabitsPerSecond, stalls, loss, trace } = shape;
  const check = (name: string, value: number | undefined, low: number, high: number) => {
    if (value === undefined || (value >= low && value <= high)) return;
    throw new KofnError('INVALID_ARGUMENT', `${name} of a link is ${value}: must be from ${low} to ${high}`);
  };
  check('delayMs', delayMs, 0, 60_000);
  check('mu of the jitter', jitter?.mu, -20, 10);
  check('sigma of the jitter', jitter?.sigma, 0, 4);
  check('megabitsPerSecond', megabitsPerSecond, 0.001, 100_000);
  check('sharedMegabitsPerSecond', sharedMegabitsPerSecond, 0.001, 100_000);
  check('rate of the stalls', stalls?.rate, 0, 1);
  check('burst of the stalls', stalls?.burst, 0, 1);
  check('minMs of the stalls', stalls?.minMs, 0, 60_000);
  check('maxMs of the stalls', stalls?.maxMs, stalls?.minMs ?? 0, 60_000);
  check('rate of the loss', loss?.rate, 0, 0.9);
  check('rtoMs of the loss', loss?.rtoMs, 1, 60_000);
  if (megabitsPerSecond !== undefined && trace?.megabitsPerSecond !== undefined) {
    const also = `the trace ${trace.origin} has one too`;
    throw new KofnError(
      'INVALID_ARGUMENT',
      `megabitsPerSecond of a link is ${megabitsPerSecond}, and ${also}: give one`,
    );
  }
}
