/**
 * Quantiles of what was seen lately, in little memory: DDSketch (Masson, Rim and Lee, VLDB 2019), whose quantiles are off by at most
 * RELATIVE_ERROR of the value. A sketch cannot forget, so there are two that begin a window apart. Both take every value, and the
 * older tells: it has those of the last window and up to one more. Then it makes room for a new one.
 */
import { LogCollapsingLowestDenseDDSketch as Sketch } from '@datadog/sketches-js';
import type { Clock } from '@kofn/core';

export const RELATIVE_ERROR = 0.02;
export const WINDOW_MS = 300_000;
/** Over a range of 1 to 800 million; of more, the smallest values are taken for one. At most 4 KB. */
const BINS = 512;

export class RecentValues {
  readonly #clock: Clock;
  /** Made with the first value. */
  #older: Sketch | undefined;
  #younger: Sketch | undefined;
  /** When the younger becomes the older. */
  #turnMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#turnMs = clock.now() + WINDOW_MS;
  }

  get count(): number {
    this.#turn();
    return this.#older?.count ?? 0;
  }

  /** A finite number ≥ 0, seen `times` times. */
  add(value: number, times = 1): void {
    this.#turn();
    (this.#older ??= newSketch()).accept(value, times);
    (this.#younger ??= newSketch()).accept(value, times);
  }

  /** The value that is at `part` of all in order, from 0 (the smallest) to 1; undefined when there are none. */
  quantile(part: number): number | undefined {
    this.#turn();
    return this.#older?.getValueAtQuantile(part);
  }

  #turn(): void {
    const nowMs = this.#clock.now();
    if (nowMs < this.#turnMs) return;
    // After so long a silence the younger has nothing that is recent either.
    const isRecent = nowMs < this.#turnMs + WINDOW_MS;
    this.#older = isRecent ? this.#younger : undefined;
    this.#younger = undefined;
    this.#turnMs = (isRecent ? this.#turnMs : nowMs) + WINDOW_MS;
  }
}

function newSketch(): Sketch {
  return new Sketch({ relativeAccuracy: RELATIVE_ERROR, binLimit: BINS });
}
