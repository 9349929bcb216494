/** How often durations of the last minute were how long: bins that grow by 3 %, so a quantile is within 2 %. */
import type { Clock } from '@kofn/core';

const LEAST_MS = 0.01;
const GROWTH = 1.03;
/** Up to 100 s; what is more counts as that. */
const BINS = Math.ceil(Math.log(1e7) / Math.log(GROWTH));
const SLOT_MS = 5_000;
const SLOTS = 12;

/** A minute in slots of five seconds. Costs a microsecond a value, and 27 KB. */
export class RecentHistogram {
  readonly #clock: Clock;
  readonly #slots = Array.from({ length: SLOTS }, () => new Uint32Array(BINS));
  /** The number of the slot of time that is written now. */
  #current: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#current = Math.floor(clock.now() / SLOT_MS);
  }

  /** `ms` ≥ 0. */
  add(ms: number): void {
    this.#turn();
    this.#slots[this.#current % SLOTS]![binOf(ms)]!++;
  }

  /** Of the last 55 to 60 s. */
  counts(): Counts {
    this.#turn();
    const bins = new Uint32Array(BINS);
    for (const slot of this.#slots) for (let bin = 0; bin < BINS; bin++) bins[bin]! += slot[bin]!;
    return new Counts(bins);
  }

  #turn(): void {
    const now = Math.floor(this.#clock.now() / SLOT_MS);
    for (let turns = Math.min(SLOTS, now - this.#current); turns > 0; turns--) {
      this.#slots[(now - turns + 1) % SLOTS]!.fill(0);
    }
    this.#current = now;
  }
}

export class Counts {
  readonly total: number;
  readonly #bins: Uint32Array;

  constructor(bins: Uint32Array) {
    this.#bins = bins;
    this.total = bins.reduce((sum, count) => sum + count, 0);
  }

  /** The value at `part` (0 to 1) of all in order, where `endless` more are longer than any; null when it is one of those, or none. */
  quantile(part: number, endless = 0): number | null {
    let left = Math.ceil(part * (this.total + endless));
    if (left === 0) return null;
    for (let bin = 0; bin < BINS; bin++) {
      left -= this.#bins[bin]!;
      if (left <= 0) return LEAST_MS * GROWTH ** (bin + 0.5);
    }
    return null;
  }

  get range(): readonly [first: number, last: number] | undefined {
    const first = this.#bins.findIndex(count => count > 0);
    return first < 0 ? undefined : [first, this.#bins.findLastIndex(count => count > 0)];
  }

  /** Counts of bins `first` up to `first + bars.length · width`, `width` together. */
  bars(first: number, width: number, count: number): number[] {
    return Array.from({ length: count }, (_, bar) =>
      this.#bins.subarray(first + bar * width, first + (bar + 1) * width).reduce((sum, each) => sum + each, 0),
    );
  }
}

/** Bars over what any of `histograms` has, at most `most`, alike for all. */
export function barsOf(histograms: readonly Counts[], most: number): { edgesMs: number[]; bars: number[][] } {
  const ranges = histograms.flatMap(({ range }) => (range === undefined ? [] : [range]));
  if (ranges.length === 0) return { edgesMs: [], bars: histograms.map(() => []) };
  const first = Math.min(...ranges.map(([start]) => start));
  const bins = Math.max(...ranges.map(([, last]) => last)) - first + 1;
  const width = Math.ceil(bins / most);
  const count = Math.ceil(bins / width);
  return {
    edgesMs: Array.from({ length: count + 1 }, (_, edge) => LEAST_MS * GROWTH ** (first + edge * width)),
    bars: histograms.map(histogram => histogram.bars(first, width, count)),
  };
}

function binOf(ms: number): number {
  const bin = Math.floor(Math.log(ms / LEAST_MS) / Math.log(GROWTH));
  return Math.min(BINS - 1, Math.max(0, bin));
}
