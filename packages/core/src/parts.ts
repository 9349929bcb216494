/**
 * Long computations in parts: generators that yield wherever somebody else may have the thread. Who is in nobody's way runs one `atOnce`;
 * who shares the event loop with requests runs it `inTurns` with them.
 */
import { sleep, type Signal } from './abort.js';
import type { Clock } from './clock.js';

export type Parts<T> = Generator<undefined, T, void>;

/** Values that a part reads, moves or adds up: a fraction of a millisecond on a machine of today, one or two on a small board. */
export const PART_VALUES = 2 ** 16;

/** Work without a rest; a request waits for no more than that, and a part. */
const TURN_MS = 2;

/** A matrix of float32 whose rows are read when they are needed. */
export interface RowSource {
  /**
   * Rows `first` to `end`, row-major; neither side changes them. They may be put in `scratch`, which has as many values, and are then good
   * until it is used again. Throws what reading them throws.
   */
  read(first: number, end: number, scratch?: Float32Array): Parts<Float32Array>;
}

/**
 * A matrix of float32 from its first row to its last, a part at a time, each good until the next is asked for; undefined where somebody else
 * may have the thread, too.
 */
export type Bands = Generator<Float32Array | undefined, void, void>;

/** Throws what the work throws. */
export function atOnce<T>(work: Parts<T>): T {
  for (;;) {
    const step = work.next();
    if (step.done === true) return step.value;
  }
}

/** All of `bands`, in `into`: copied there unless they were made there. */
export function* joined(bands: Bands, into: Float32Array): Parts<Float32Array> {
  let at = 0;
  for (const band of bands) {
    if (band !== undefined) {
      if (band.buffer !== into.buffer) into.set(band, at);
      at += band.length;
    }
    yield;
  }
  return into;
}

/**
 * What `work` yields, each after a turn of TURN_MS or one part, and a rest as long. Throws what the work throws, or the signal's reason; ends the
 * work when nobody wants more.
 */
export async function* spread<T>(
  clock: Clock,
  work: Generator<T | undefined, void, void>,
  signal?: Signal,
): AsyncGenerator<T> {
  let start = clock.now();
  for (const value of work) {
    const tookMs = clock.now() - start;
    if (value === undefined && tookMs < TURN_MS) continue;
    if (value !== undefined) yield value;
    await sleep(clock, tookMs, signal);
    start = clock.now();
  }
}

/** Works for TURN_MS, or one part, and rests as long, until all is done. Throws what the work throws, or the signal's reason. */
export async function inTurns<T>(clock: Clock, work: Parts<T>, signal?: Signal): Promise<T> {
  for (;;) {
    const start = clock.now();
    let step = work.next();
    while (step.done !== true && clock.now() - start < TURN_MS) step = work.next();
    if (step.done === true) return step.value;
    await sleep(clock, clock.now() - start, signal);
  }
}
