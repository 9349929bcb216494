/** The ratio of two means with its 95 % interval, as the statistics of the failure benchmark have it of percentiles. */
import { seededRng, type Rng } from '@kofn/core';
import { percentile } from 'kofn/measure';

const RESAMPLES = 1000;

export interface Interval {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

type Groups = readonly (readonly number[])[];

/**
 * `above` over `below`, each the latencies of its repeats in order: resampled apart, repeats first and then circular blocks of
 * ⌈n^(1/3)⌉ of each, because what spans several requests, or a whole repeat, makes them alike.
 */
export function meanRatio(above: Groups, below: Groups): Interval {
  const [rngAbove, rngBelow] = [seededRng(1), seededRng(2)];
  const draws = Array.from(
    { length: RESAMPLES },
    () => resampledMean(above, rngAbove) / resampledMean(below, rngBelow),
  );
  return {
    value: mean(above.flat()) / mean(below.flat()),
    low: percentile(draws, 2.5)!,
    high: percentile(draws, 97.5)!,
  };
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function resampledMean(groups: Groups, rng: Rng): number {
  let [sum, count] = [0, 0];
  for (let i = 0; i < groups.length; i++) {
    const values = groups[rng.integer(groups.length)]!;
    const { length } = values;
    const block = Math.ceil(Math.cbrt(length));
    for (let taken = 0; taken < length; taken += block) {
      const start = rng.integer(length);
      for (let j = 0; j < Math.min(block, length - taken); j++) sum += values[(start + j) % length]!;
    }
    count += length;
  }
  return sum / count;
}
