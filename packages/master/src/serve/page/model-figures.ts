/**
 * What is told of a model's requests of the last minute: how many, how long, and how long waiting for all workers would have taken.
 *
 * Invariant: a request costs microseconds here, whether anybody looks or not, and what is held is bounded.
 */
import type { Clock } from '@kofn/core';
import type { Figures } from '@kofn/dashboard';
import type { RunReport } from '../../contract/report.js';
import type { EndedRequest } from '../inference/served.js';
import { barsOf, RecentHistogram } from './histogram.js';
import { RecentCounts } from './recent-counts.js';
import { waitingForAll } from './waiting.js';

/** Replies that nobody needed are waited for so long. */
export const SETTLE_MS = 2_000;
/** So many reports are held meanwhile; requests beyond that are not looked at. */
const MOST_HELD = 1_024;
const MOST_BARS = 36;

export class ModelFigures {
  readonly #clock: Clock;
  readonly #latency: RecentHistogram;
  readonly #first: RecentHistogram;
  readonly #all: RecentHistogram;
  /** Of those that would have no answer, and of those whose wait is a lower bound. */
  readonly #lost: RecentHistogram;
  readonly #bounds: RecentHistogram;
  readonly #counts: RecentCounts<'answered' | 'failed' | 'blocksLost' | 'blocksLate'>;
  readonly #held: { readonly atMs: number; readonly ms: number; readonly report: RunReport }[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#latency = new RecentHistogram(clock);
    this.#first = new RecentHistogram(clock);
    this.#all = new RecentHistogram(clock);
    this.#lost = new RecentHistogram(clock);
    this.#bounds = new RecentHistogram(clock);
    this.#counts = new RecentCounts(clock, ['answered', 'failed', 'blocksLost', 'blocksLate']);
  }

  ended({ ms, report }: EndedRequest): void {
    this.#settle();
    if (report === undefined) return this.#counts.add('failed');
    this.#counts.add('answered');
    this.#latency.add(ms);
    for (const { recovered } of report.layers) {
      if (recovered.lost.length > 0) this.#counts.add('blocksLost', recovered.lost.length);
      if (recovered.late.length > 0) this.#counts.add('blocksLate', recovered.late.length);
    }
    if (report.layers.length > 0 && this.#held.length < MOST_HELD) {
      this.#held.push({ atMs: this.#clock.now(), ms, report });
    }
  }

  figures(): Omit<Figures, 'model' | 'version'> {
    this.#settle();
    const counts = this.#counts;
    const [latency, first, all] = [this.#latency, this.#first, this.#all].map(histogram => histogram.counts());
    const { edgesMs, bars } = barsOf([first!, all!], MOST_BARS);
    const [answered, failed] = [counts.perSecond('answered'), counts.perSecond('failed')];
    const perSecond = answered.map((count, second) => count + failed[second]!);
    const lost = this.#lost.counts().total;
    return {
      perSecond,
      ratePerSecond: perSecond.slice(-10).reduce((sum, count) => sum + count, 0) / 10,
      answered: counts.sum('answered'),
      failed: counts.sum('failed'),
      p50Ms: latency!.quantile(0.5),
      p99Ms: latency!.quantile(0.99),
      recovered: { lost: counts.sum('blocksLost'), late: counts.sum('blocksLate') },
      waits: {
        edgesMs,
        first: bars[0]!,
        all: bars[1]!,
        looked: first!.total,
        bounds: this.#bounds.counts().total,
        lost,
        firstP50Ms: first!.quantile(0.5),
        firstP99Ms: first!.quantile(0.99),
        allP50Ms: all!.quantile(0.5, lost),
        allP99Ms: all!.quantile(0.99, lost),
      },
    };
  }

  /** Looks at those whose late replies have come by now, if they come at all. */
  #settle(): void {
    const isSettledMs = this.#clock.now() - SETTLE_MS;
    while (this.#held.length > 0 && this.#held[0]!.atMs <= isSettledMs) {
      const { ms, report } = this.#held.shift()!;
      this.#first.add(ms);
      const waiting = waitingForAll(ms, report);
      if (waiting.ms === Infinity) this.#lost.add(ms);
      else this.#all.add(waiting.ms);
      if (!waiting.isKnown) this.#bounds.add(ms);
    }
  }
}
