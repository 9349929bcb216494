/**
 * The contract of a benchmark: it measures figures, each a ratio against a baseline of the same run. main.ts runs them,
 * benches.ts lists them, README.md says what each measures and what it does not.
 */
import { percentile, roundMs } from 'kofn/measure';
import { quartiles, ratioInterval } from './statistics.js';

export interface Bench {
  /** `npm run bench -- NAME`; a group before the slash. */
  readonly name: string;
  /** What is measured, and against what, each in a few words. */
  readonly what: string;
  readonly baseline: string;
  run(context: BenchContext): Promise<Figure[]>;
  /** For `--profile`: where the time goes, as lines to print. */
  profile?(context: BenchContext): Promise<string[]>;
}

export interface BenchContext {
  /** Call it as the work goes on; only a person sees it. */
  readonly progress: (done: number, total: number) => void;
}

/** What the ratio value / baseline has to be. */
export type Target = { readonly atMost: number } | { readonly atLeast: number };

export interface Figure {
  /** Unique within its benchmark. */
  readonly name: string;
  readonly unit: string;
  readonly value: number;
  readonly baseline: number;
  readonly ratio: number;
  readonly target: Target;
  readonly holds: boolean;
  /** Middle halves of the samples, and the 95 % interval of the ratio (bootstrap over rounds). */
  readonly spread: {
    readonly value: readonly (number | null)[];
    readonly baseline: readonly (number | null)[];
    readonly ratio95: readonly (number | null)[];
  };
  readonly samples: number;
}

/** What samples of a benchmark and of its baseline, round by round, say at `percent`: the median unless told. */
export function figure(
  of: { readonly name: string; readonly unit: string; readonly target: Target; readonly percent?: number },
  samples: { readonly value: readonly number[]; readonly baseline: readonly number[] },
): Figure {
  const { name, unit, target, percent = 50 } = of;
  const at = (values: readonly number[]) => percentile(values, percent) ?? NaN;
  const [value, baseline] = [at(samples.value), at(samples.baseline)];
  const ratio = value / baseline;
  return {
    name,
    unit,
    value: roundMs(value)!,
    baseline: roundMs(baseline)!,
    ratio: roundMs(ratio)!,
    target,
    holds: 'atMost' in target ? ratio <= target.atMost : ratio >= target.atLeast,
    spread: {
      value: quartiles(samples.value),
      baseline: quartiles(samples.baseline),
      ratio95: ratioInterval(samples.value, samples.baseline, percent),
    },
    samples: samples.value.length,
  };
}
