/**
 * How much this worker computed lately and how long its engine took for it, of the inferences that said how many
 * multiply-accumulates they are (`kofn_macs`): what `Inventory` tells of its speed. Where requests queue or are cancelled makes no
 * difference: runs are counted, whoever waits for them.
 */
import type { Clock } from '@kofn/core';
import type { RecentWork } from '@kofn/wire';

const PERIOD_MS = 300_000;
const NOTHING: RecentWork = { runs: 0, macs: 0, engineMs: 0 };

export class WorkMeter {
  readonly #clock: Clock;
  #before = NOTHING;
  #now = NOTHING;
  /** Number of the period that runs. */
  #period = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** What ran in this period of five minutes and the one before it. */
  get recent(): RecentWork {
    this.#turn();
    return sum(this.#before, this.#now);
  }

  /** A run of `macs`, which says nothing when there are none. */
  ran(macs: number, engineMs: number): void {
    if (!Number.isSafeInteger(macs) || macs <= 0) return;
    this.#turn();
    this.#now = sum(this.#now, { runs: 1, macs, engineMs });
  }

  #turn(): void {
    const period = Math.floor(this.#clock.now() / PERIOD_MS);
    if (period === this.#period) return;
    this.#before = period === this.#period + 1 ? this.#now : NOTHING;
    this.#now = NOTHING;
    this.#period = period;
  }
}

function sum(a: RecentWork, b: RecentWork): RecentWork {
  return { runs: a.runs + b.runs, macs: a.macs + b.macs, engineMs: a.engineMs + b.engineMs };
}
