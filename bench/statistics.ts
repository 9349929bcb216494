/** Samples of a benchmark and its baseline: taken in turn, and what they say. */
import { seededRng, systemClock } from '@kofn/core';
import { percentile, roundMs } from 'kofn/measure';

const RESAMPLES = 1000;

/** One sample: milliseconds, or whatever the benchmark counts. */
export type Sample = () => Promise<number>;

/**
 * Takes `rounds` samples of each, in turn, who is first changing each round; what is not steady on this machine then meets
 * both alike. `warmUp` rounds before are not kept.
 */
export async function interleaved<Name extends string>(
  samplers: Readonly<Record<Name, Sample>>,
  { rounds, warmUp, progress }: { rounds: number; warmUp: number; progress?: (done: number, total: number) => void },
): Promise<Record<Name, number[]>> {
  const names = Object.keys(samplers) as Name[];
  const samples = Object.fromEntries(names.map(name => [name, []])) as unknown as Record<Name, number[]>;
  for (let round = -warmUp; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : [...names].reverse()) {
      const sample = await samplers[name]();
      if (round >= 0) samples[name].push(sample);
    }
    progress?.(Math.max(0, round + 1), rounds);
  }
  return samples;
}

/** How long `work` takes, in milliseconds. */
export function timed(work: () => Promise<unknown>): Sample {
  return async () => {
    const start = systemClock.now();
    await work();
    return systemClock.now() - start;
  };
}

/** `sample`, and then `settle`, outside its time: the next sample must not meet what this one left under way. */
export function settled(sample: Sample, settle: () => Promise<void>): Sample {
  return async () => {
    const value = await sample();
    await settle();
    return value;
  };
}

export function quartiles(values: readonly number[]): (number | null)[] {
  return [25, 75].map(percent => roundMs(percentile(values, percent)));
}

/** The 95 % interval of the ratio of two percentiles, by resampling rounds (bootstrap, percentile method). */
export function ratioInterval(
  values: readonly number[],
  baselines: readonly number[],
  percent = 50,
): (number | null)[] {
  const groups = (of: readonly number[]) => of.map(value => [value]);
  return groupedInterval(groups(values), groups(baselines), percent);
}

/** As `ratioInterval`, of samples that come in groups: whole groups are drawn, for what is in one is alike. */
export function groupedInterval(
  values: readonly (readonly number[])[],
  baselines: readonly (readonly number[])[],
  percent = 50,
): (number | null)[] {
  const count = Math.min(values.length, baselines.length);
  if (count === 0) return [null, null];
  const rng = seededRng(1);
  const ratios = Array.from({ length: RESAMPLES }, () => {
    const drawn = Array.from({ length: count }, () => rng.integer(count));
    const at = (groups: readonly (readonly number[])[]) =>
      percentile(
        drawn.flatMap(i => groups[i]!),
        percent,
      )!;
    return at(values) / at(baselines);
  });
  return [2.5, 97.5].map(edge => roundMs(percentile(ratios, edge)));
}
