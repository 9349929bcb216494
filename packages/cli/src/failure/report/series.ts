/**
 * What the plots draw, thinned: a run has more samples than a page has room for.
 *
 * Invariants
 * 1. Thinning never takes what is rare: the slowest requests are all in the tail, and the slowest and fastest of each moment in the
 *    course. Every moment that lost a request or had a fault shows it.
 * 2. A lost request counts as slower than any that was answered.
 */
import type { CellResult } from '../result/result.js';

/** Points of one line. */
const MOST_POINTS = 300;
/** The slowest requests, which are all drawn. */
const EXACT = 100;
/** Moments that the course of a cell is cut into. */
const MOMENTS = 240;
/** A log axis has no 0. */
const LEAST_MS = 1e-3;
const MARKED = [0.5, 0.1, 0.01, 0.001];

export interface TailPoint {
  readonly ms: number;
  /** Share of all requests that took at least so long. */
  readonly share: number;
}

/** 1 - ECDF of a cell's requests, falling; at most 300 points. */
export function tailOf({ samples }: Pick<CellResult, 'samples'>): TailPoint[] {
  const { answered, requests } = sortedOf(samples);
  const count = answered.length;
  const shareAt = (index: number) => (requests - index) / requests;
  const indices = new Set<number>();
  const thinned = count - EXACT;
  if (count <= MOST_POINTS) for (let i = 0; i < count; i++) indices.add(i);
  else {
    for (let i = thinned; i < count; i++) indices.add(i);
    // Even on the axis, which is logarithmic.
    const steps = MOST_POINTS - EXACT;
    for (let i = 0; i < steps; i++) {
      const share = shareAt(thinned) ** (i / steps);
      indices.add(Math.max(0, Math.min(thinned, Math.round(requests * (1 - share)))));
    }
  }
  return [...indices].sort((a, b) => a - b).map(index => ({ ms: answered[index]!, share: shareAt(index) }));
}

/** The points of the tail at p50, p90, p99 and p99.9, as far as requests were answered there. */
export function tailMarks({ samples }: Pick<CellResult, 'samples'>): TailPoint[] {
  const { answered, requests } = sortedOf(samples);
  return MARKED.flatMap(share => {
    const index = Math.round(requests * (1 - share));
    return index < answered.length && requests * share >= 1 ? [{ ms: answered[index]!, share }] : [];
  });
}

export interface Course {
  /** Of each moment with an answer: when, in seconds with the repeats one after the other, and the latencies of then. */
  readonly moments: readonly {
    readonly at: number;
    readonly low: number;
    readonly mid: number;
    readonly high: number;
    readonly run: number;
  }[];
  readonly lost: readonly { readonly at: number }[];
  readonly faults: readonly { readonly at: number; readonly kind: string }[];
  /** Where repeats after the first begin. */
  readonly starts: readonly { readonly at: number }[];
  readonly seconds: number;
}

/** How a cell went over time. */
export function courseOf({ samples, faults }: Pick<CellResult, 'samples' | 'faults'>): Course {
  const requests: { readonly at: number; readonly ms: number | null }[] = [];
  const starts: number[] = [];
  let begin = 0;
  for (const { atMs, ms } of samples) {
    starts.push(begin);
    atMs.forEach((at, i) => requests.push({ at: begin + at, ms: ms[i] ?? null }));
    begin = Math.max(begin, ...lastOf(requests));
  }
  const end = Math.max(begin, LEAST_MS);
  const momentOf = (at: number) => Math.min(MOMENTS - 1, Math.floor((at / end) * MOMENTS));
  const middle = (moment: number) => ((moment + 0.5) / MOMENTS) * (end / 1000);

  const byMoment = new Map<number, number[]>();
  const lost = new Set<number>();
  for (const { at, ms } of requests) {
    const moment = momentOf(at);
    if (ms === null) lost.add(moment);
    else if (byMoment.has(moment)) byMoment.get(moment)!.push(Math.max(ms, LEAST_MS));
    else byMoment.set(moment, [Math.max(ms, LEAST_MS)]);
  }
  let run = 0;
  let before = -1;
  const moments = [...byMoment].map(([moment, values]) => {
    const sorted = values.sort((a, b) => a - b);
    // Where requests came seldom a moment without one is no gap; where it is long, nothing was answered, and the line is cut.
    if (moment - before > MOMENTS / 24) run++;
    before = moment;
    return { at: middle(moment), low: sorted[0]!, mid: sorted[sorted.length >> 1]!, high: sorted.at(-1)!, run };
  });
  const marks = new Map<string, { at: number; kind: string }>();
  for (const { repeat, atMs, kind } of faults) {
    const at = (starts[repeat] ?? 0) + atMs;
    marks.set(`${momentOf(at)} ${kind}`, { at: at / 1000, kind });
  }
  return {
    moments,
    lost: [...lost].map(moment => ({ at: middle(moment) })),
    faults: [...marks.values()],
    starts: starts.slice(1).map(at => ({ at: at / 1000 })),
    seconds: end / 1000,
  };
}

function sortedOf(samples: CellResult['samples']): { answered: Float64Array; requests: number } {
  const all = samples.flatMap(({ ms }) => ms);
  const answered = Float64Array.from(all.filter(value => value !== null)).map(value => Math.max(value, LEAST_MS));
  return { answered: answered.sort(), requests: all.length };
}

/** When the last request ended, if there is one; a lost one ends when it began, as nothing says more. */
function lastOf(requests: readonly { readonly at: number; readonly ms: number | null }[]): number[] {
  const last = requests.at(-1);
  return last === undefined ? [] : [last.at + (last.ms ?? 0)];
}
