/**
 * Percentiles of latencies with 95 % intervals, for samples that are neither independent nor from one run.
 *
 * A cell's samples come in groups, one a repeat, each in the order of the requests. Two things lie between the requests of a cell and
 * independent draws: a stall or a fault spans several requests that follow each other, and a repeat has its own processes and its own
 * state of the machine. So the bootstrap has two levels: it draws repeats with replacement, and in each drawn repeat blocks of
 * ⌈n^(1/3)⌉ consecutive requests (circular blocks: Politis and Romano, 1992) until it has as many requests as the repeat had. Where
 * the repeats do not differ the first level adds spread that is not there, so that intervals are rather too wide than too narrow:
 * about 97 % instead of 95 % for 2 to 5 repeats that are alike. Where they do differ, a few say little about by how much: 2 repeats show
 * half of the variance between repeats, 5 show four fifths. With one repeat the second level stands alone.
 *
 * Invariants
 * 1. Deterministic: the same samples give the same intervals, whatever was computed before.
 * 2. A percentile with fewer than 10 samples beyond it is null, and so is every ratio that needs it.
 * 3. All percentiles of one resample are read from the same resample, so that figures made of two of them hang together.
 * 4. low ≤ value ≤ high.
 * 5. A resample costs O(n): it counts ranks and sorts nothing.
 */
import { seededRng, type Rng } from '@kofn/core';
import { largest, nearestRank } from '../../answers/stats.js';
import type { CellResult, Estimate, Ratios } from './result.js';

/** Milliseconds of answered requests in order, one array a repeat. */
export type Groups = readonly (readonly number[])[];

export const PERCENTS = { p50: 50, p90: 90, p99: 99, p999: 99.9 } as const;
export type PercentileName = keyof typeof PERCENTS;
export const PERCENTILE_NAMES = Object.keys(PERCENTS) as PercentileName[];

/** Samples that have to lie beyond a percentile for it to be more than chance. */
const BEYOND = 10;
const RESAMPLES = 1000;
/** Beyond so many samples fewer resamples do: the intervals are narrow then, and their edges need no third digit. */
const MANY_SAMPLES = 100_000;
const RESAMPLES_OF_MANY = 300;

/** What the samples of a cell hold of answered requests. */
export function answeredOf({ samples }: Pick<CellResult, 'samples'>): number[][] {
  return samples.map(({ ms }) => ms.filter(value => value !== null));
}

/** Whether `count` samples leave 10 beyond the percentile. */
export function isEnough(count: number, percent: number): boolean {
  // In thousandths, so that 10,000 samples are enough for 99.9 whatever 100 - 99.9 is in binary.
  return count * Math.round((100 - percent) * 1000) >= BEYOND * 100_000;
}

/** The percentile of all samples together, with its interval. */
export function estimateOf(groups: Groups, percent: number): Estimate | null {
  return estimatesOf(groups, [percent])[0]!;
}

/** As `estimateOf`, of several percentiles in one go; in the order of `percents`, each from 0 exclusive to 100. */
export function estimatesOf(groups: Groups, percents: readonly number[]): (Estimate | null)[] {
  const sampled = new Resampled(groups, seededRng(1));
  const wanted = rising(percents).filter(percent => isEnough(sampled.count, percent));
  const draws = collect(resamplesFor(sampled.count), wanted.length, () => sampled.draw(wanted));
  const points = sampled.percentiles(wanted);
  return percents.map(percent => {
    const at = wanted.indexOf(percent);
    return at === -1 ? null : interval(points[at]!, draws[at]!);
  });
}

/** What a cell's `latencyMs` holds. */
export function latency(samples: Groups): CellResult['latencyMs'] {
  const estimates = estimatesOf(samples, Object.values(PERCENTS));
  const [p50, p90, p99, p999] = estimates as [Estimate | null, Estimate | null, Estimate | null, Estimate | null];
  return { p50, p90, p99, p999, max: largest(samples.flat()) };
}

/** The percentiles over the baseline's. The two are resampled apart from each other: they ran apart from each other. */
export function ratios(samples: Groups, baselineSamples: Groups): Omit<Ratios, 'cell' | 'busy'> {
  const quotients: Quotient[] = PERCENTILE_NAMES.map(name => ({
    percents: [PERCENTS[name]],
    of: at => at(PERCENTS[name]),
  }));
  quotients.push({ percents: [50, 99.9], of: at => at(99.9) - at(50) });
  const [p50, p90, p99, p999, tailGap] = quotientsOf(samples, baselineSamples, quotients);
  return { p50: p50!, p90: p90!, p99: p99!, p999: p999!, tailGap: tailGap! };
}

/** One percentile over the baseline's: of requests that were hit over those that were not, say. */
export function ratioOf(samples: Groups, baselineSamples: Groups, percent: number): Estimate | null {
  return quotientsOf(samples, baselineSamples, [{ percents: [percent], of: at => at(percent) }])[0]!;
}

/** A figure made of percentiles, to be set over the same figure of a baseline. */
interface Quotient {
  readonly percents: readonly number[];
  readonly of: (at: (percent: number) => number) => number;
}

function quotientsOf(samples: Groups, baselines: Groups, quotients: readonly Quotient[]): (Estimate | null)[] {
  const above = new Resampled(samples, seededRng(1));
  const below = new Resampled(baselines, seededRng(2));
  const fewest = Math.min(above.count, below.count);
  const wanted = quotients.filter(({ percents }) => percents.every(percent => isEnough(fewest, percent)));
  const percents = rising(wanted.flatMap(each => each.percents));
  const over = (tops: readonly number[], bottoms: readonly number[]) =>
    wanted.map(
      ({ of }) => of(percent => tops[percents.indexOf(percent)]!) / of(percent => bottoms[percents.indexOf(percent)]!),
    );
  const resamples = resamplesFor(Math.max(above.count, below.count));
  const draws = collect(resamples, wanted.length, () => over(above.draw(percents), below.draw(percents)));
  const points = over(above.percentiles(percents), below.percentiles(percents));
  return quotients.map(quotient => {
    const at = wanted.indexOf(quotient);
    // A baseline of 0, or all of one value, has nothing that a ratio could be taken of.
    return at === -1 || !Number.isFinite(points[at]) ? null : interval(points[at]!, draws[at]!);
  });
}

const rising = (percents: readonly number[]) => [...new Set(percents)].sort((a, b) => a - b);

const resamplesFor = (count: number) => (count > MANY_SAMPLES ? RESAMPLES_OF_MANY : RESAMPLES);

/** `count` draws of `width` figures each; one array a figure. */
function collect(count: number, width: number, draw: () => readonly number[]): Float64Array[] {
  const draws = Array.from({ length: width }, () => new Float64Array(count));
  if (width === 0) return draws;
  for (let i = 0; i < count; i++) {
    const drawn = draw();
    for (let figure = 0; figure < width; figure++) draws[figure]![i] = drawn[figure]!;
  }
  return draws;
}

function interval(value: number, draws: Float64Array): Estimate {
  const finite = draws.filter(Number.isFinite).sort();
  const edge = (percent: number) => finite[nearestRank(finite.length, percent) - 1] ?? value;
  return { value, low: Math.min(value, edge(2.5)), high: Math.max(value, edge(97.5)) };
}

/**
 * Samples that can be drawn anew. Each sample is kept as its rank among all of them; a draw counts how often it got each rank, and its
 * percentiles are found by adding counts up.
 */
class Resampled {
  /** All samples, sorted. */
  readonly values: Float64Array;
  readonly #ranks: readonly Int32Array[];
  readonly #counts: Int32Array;
  readonly #rng: Rng;

  constructor(groups: Groups, rng: Rng) {
    const held = groups.filter(group => group.length > 0);
    const all = Float64Array.from(held.flat());
    const order = Int32Array.from(all.keys()).sort((a, b) => all[a]! - all[b]!);
    const rankOf = new Int32Array(all.length);
    order.forEach((sample, rank) => (rankOf[sample] = rank));
    this.values = all.sort();
    let start = 0;
    this.#ranks = held.map(({ length }) => rankOf.subarray(start, (start += length)));
    this.#counts = new Int32Array(all.length);
    this.#rng = rng;
  }

  get count(): number {
    return this.values.length;
  }

  /** Of the samples themselves; `percents` rise, here and below. */
  percentiles(percents: readonly number[]): number[] {
    this.#counts.fill(1);
    return this.#read(percents, this.count);
  }

  /** Of a new resample. */
  draw(percents: readonly number[]): number[] {
    const counts = this.#counts.fill(0);
    let total = 0;
    for (let i = 0; i < this.#ranks.length; i++) {
      const ranks = this.#ranks[this.#ranks.length === 1 ? 0 : this.#rng.integer(this.#ranks.length)]!;
      const { length } = ranks;
      const block = Math.ceil(Math.cbrt(length));
      for (let taken = 0; taken < length; taken += block) {
        let at = this.#rng.integer(length);
        for (let left = Math.min(block, length - taken); left > 0; left--) {
          counts[ranks[at]!]!++;
          if (++at === length) at = 0;
        }
      }
      total += length;
    }
    return this.#read(percents, total);
  }

  /** The nearest-rank percentiles of what was counted, `total` in all; `percents` rise. */
  #read(percents: readonly number[], total: number): number[] {
    let seen = 0;
    let next = 0;
    return percents.map(percent => {
      const rank = nearestRank(total, percent);
      while (seen < rank) seen += this.#counts[next++]!;
      return this.values[next - 1]!;
    });
  }
}
