/** Counts over the requests of one run: what was lost, what was wrong, what was recovered, how long it took. */
import type { KofnError } from '@kofn/core';
import type { RunReport } from '@kofn/master';
import { isWrong, type OutputError } from './compare.js';
import { largest, percentile, roundMs } from './stats.js';

const RECENT = 100;

export interface RequestTime {
  readonly request: number;
  readonly ms: number;
}

export class Tally {
  /** Requests asked for, whether or not they ran. */
  readonly requests: number;
  /** Answers that were compared with the uncoded model's. */
  compared = 0;
  wrong = 0;
  readonly times: RequestTime[] = [];
  readonly failures: { readonly request: number; readonly code: string; readonly message: string }[] = [];
  /** Data blocks, over all layers and requests. */
  readonly recovered = { lost: 0, late: 0 };
  /** Data blocks that the master computed itself. */
  computedHere = 0;
  resent = 0;
  /** Blocks that were late, and asked of another worker. */
  hedged = 0;
  /** Answers of segments that stand on workers: a worker's, and the master's own. */
  readonly segments = { workers: 0, master: 0 };
  readonly #errors = new Map<string, Omit<OutputError, 'isWrong'>>();

  constructor(requests: number) {
    this.requests = requests;
  }

  answered({ ms, layers, segments }: RunReport, request: number): void {
    this.times.push({ request, ms });
    for (const layer of layers) {
      this.recovered.lost += layer.recovered.lost.length;
      this.recovered.late += layer.recovered.late.length;
      this.computedHere += layer.computedHere.length;
      this.resent += layer.resent.length;
      this.hedged += layer.hedged.length;
    }
    for (const { worker } of segments) this.segments[worker === null ? 'master' : 'workers']++;
  }

  failed(request: number, { code, message }: KofnError): void {
    this.failures.push({ request, code, message });
  }

  compare(errors: Readonly<Record<string, OutputError>>): void {
    this.compared++;
    if (isWrong(errors)) this.wrong++;
    for (const [name, { maxAbsError, maxRelError }] of Object.entries(errors)) {
      const before = this.#errors.get(name);
      this.#errors.set(name, {
        maxAbsError: Math.max(maxAbsError, before?.maxAbsError ?? 0),
        maxRelError: Math.max(maxRelError, before?.maxRelError ?? 0),
      });
    }
  }

  /** Requests without an answer. */
  get lost(): number {
    return this.requests - this.times.length;
  }

  /** Largest errors of each output over all compared answers. */
  get outputErrors(): ReadonlyMap<string, Omit<OutputError, 'isWrong'>> {
    return this.#errors;
  }

  /** null when nothing was compared. */
  get maxRelError(): number | null {
    return largest([...this.#errors.values()].map(({ maxRelError }) => maxRelError));
  }

  /** Percentile of the latencies of the requests that `counts`; null when there are none. */
  ms(percent: number, counts: (request: number) => boolean = () => true): number | null {
    const values = this.times.filter(({ request }) => counts(request)).map(({ ms }) => ms);
    return roundMs(percentile(values, percent));
  }

  /** Median of the latest answers, for a display that follows. */
  recentP50Ms(): number | null {
    const recent = this.times.slice(-RECENT).map(({ ms }) => ms);
    return percentile(recent, 50);
  }

  msOf(request: number): number | null {
    return roundMs(this.times.find(time => time.request === request)?.ms ?? null);
  }
}

/** For JSON, which has no infinity. */
export function jsonNumber(value: number | null): number | string | null {
  return value === null || Number.isFinite(value) ? value : String(value);
}
