/** Whether what processes hold has grown over a run: its end against its beginning, without the time in which all warms up. */
import { percentile } from 'kofn/measure';

export const FIGURES = ['rssBytes', 'files', 'sockets', 'handles', 'timers'] as const;
export type Figure = (typeof FIGURES)[number];

export interface Sample extends Readonly<Partial<Record<Figure, number>>> {
  /** From the beginning of the load. */
  readonly atMs: number;
}

/** From `start` on `times` as much and `plus` more is no growth. */
interface Allowance {
  readonly times: number;
  readonly plus: number;
}

/**
 * Memory: V8's young generation takes its size in steps of some 16 MB, late (bench/README.md, memory), and a worker that has just started
 * holds less than one that has not. The others go up and down with the requests under way and a worker that connects again.
 */
export const ALLOWANCES: Readonly<Record<Figure, Allowance>> = {
  rssBytes: { times: 1.1, plus: 32 * 2 ** 20 },
  files: { times: 1, plus: 4 },
  sockets: { times: 1, plus: 2 },
  handles: { times: 1, plus: 6 },
  timers: { times: 1, plus: 4 },
};

/** Fewer after the warm-up tell nothing. */
const MIN_SAMPLES = 16;
/** At both ends. */
const PART = 0.25;

export interface Growth {
  readonly process: string;
  readonly figure: Figure;
  /** Medians of the first and of the last quarter after the warm-up. */
  readonly start: number;
  readonly end: number;
  readonly allowed: number;
  readonly holds: boolean;
}

/** Of each process and figure with enough samples after `warmUpMs`. */
export function growthOf(series: ReadonlyMap<string, readonly Sample[]>, warmUpMs: number): Growth[] {
  return [...series].flatMap(([process, samples]) => {
    const warm = samples.filter(({ atMs }) => atMs >= warmUpMs);
    return FIGURES.flatMap((figure): Growth[] => {
      const values = warm.flatMap(sample => sample[figure] ?? []);
      if (values.length < MIN_SAMPLES) return [];
      const quarter = Math.floor(PART * values.length);
      const [start, end] = [values.slice(0, quarter), values.slice(-quarter)].map(part => percentile(part, 50)!) as [
        number,
        number,
      ];
      const { times, plus } = ALLOWANCES[figure];
      const allowed = Math.round(times * start + plus);
      return [{ process, figure, start, end, allowed, holds: end <= allowed }];
    });
  });
}
