/**
 * The requests that the page shows: all while they are few, at most twenty a second of more, and as many again of those that the page
 * itself made. A request is told some time after its answer, when most replies that nobody needed have come too.
 */
import type { Clock } from '@kofn/core';
import { PAGE_REQUEST, type ReplyLine, type RequestLine, type StepLine } from '@kofn/dashboard';
import type { LayerReport } from '../../contract/report.js';
import type { EndedRequest } from '../inference/served.js';
import { stepsOf } from './waiting.js';

export const SAMPLES_PER_SECOND = 20;
/** Between the answer and the telling. */
export const TELL_AFTER_MS = 250;
const KEPT = 32;

interface Sample {
  readonly number: number;
  readonly request: EndedRequest;
  readonly endedAtMs: number;
}

export class Samples {
  readonly #clock: Clock;
  readonly #kept: Sample[] = [];
  readonly #pages: TokenBucket;
  readonly #others: TokenBucket;
  #ended = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#pages = new TokenBucket(SAMPLES_PER_SECOND, clock.now());
    this.#others = new TokenBucket(SAMPLES_PER_SECOND, clock.now());
  }

  ended(request: EndedRequest): void {
    const number = this.#ended++;
    const now = this.#clock.now();
    const bucket = request.id.startsWith(PAGE_REQUEST) ? this.#pages : this.#others;
    if (!bucket.take(now)) return;
    this.#kept.push({ number, request, endedAtMs: now });
    if (this.#kept.length > KEPT) this.#kept.shift();
  }

  /** Those that can be told by now with a number above `after`, oldest first; at most the last 32. */
  since(after: number): RequestLine[] {
    const isTold = this.#clock.now() - TELL_AFTER_MS;
    const told = this.#kept.filter(({ number, endedAtMs }) => number > after && endedAtMs <= isTold);
    return told.map(({ number, request }) => requestLine(number, request));
  }
}

/** Fills at a rate, and holds a second's worth. */
class TokenBucket {
  readonly #perSecond: number;
  #tokens: number;
  #filledAtMs: number;

  constructor(perSecond: number, nowMs: number) {
    this.#perSecond = perSecond;
    this.#tokens = perSecond;
    this.#filledAtMs = nowMs;
  }

  /** Whether there was one. */
  take(nowMs: number): boolean {
    const filled = this.#tokens + ((nowMs - this.#filledAtMs) * this.#perSecond) / 1000;
    this.#tokens = Math.min(this.#perSecond, filled);
    this.#filledAtMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}

export function requestLine(number: number, request: EndedRequest): RequestLine {
  const { id, model, version, atMs, ms, queueMs, error, report } = request;
  return {
    number,
    id,
    model,
    version,
    atMs: rounded(atMs),
    ms: rounded(ms),
    queueMs: rounded(queueMs),
    error: error ?? null,
    steps: stepsOf(report?.layers ?? []).map(stepLine),
  };
}

function stepLine(layers: readonly LayerReport[]): StepLine {
  const { code, k, r, startMs, ms, arrivals, erasures, unanswered, computedHere } = layers[0]!;
  const late = new Set(layers.flatMap(({ recovered }) => recovered.late));
  const lost = new Set(layers.flatMap(({ recovered }) => recovered.lost));
  const readyMs = arrivals.at(-1)?.ms;
  const replies: ReplyLine[] = [
    ...arrivals.map(
      arrival => ({ ...arrival, kind: 'arrived', ms: rounded(arrival.ms), isRecovered: false }) satisfies ReplyLine,
    ),
    ...erasures.map(
      ({ worker, block, code: error }) =>
        ({ worker, block, kind: 'failed', ms: null, isRecovered: lost.has(block), error }) satisfies ReplyLine,
    ),
    ...unanswered.map(({ worker, block, lateMs }) => {
      const came = lateMs === undefined ? null : rounded(Math.max(lateMs, readyMs ?? 0));
      return { worker, block, kind: 'cancelled', ms: came, isRecovered: late.has(block) } satisfies ReplyLine;
    }),
  ];
  return {
    layers: layers.map(({ name }) => name),
    code,
    k,
    n: k + r,
    startMs: rounded(startMs),
    ms: rounded(ms),
    readyMs: readyMs === undefined ? null : rounded(readyMs),
    replies,
    computedHere,
    errorGain: Math.max(...layers.map(({ errorGain }) => errorGain)),
  };
}

/** To a microsecond's tens, for the message is made of text. */
function rounded(ms: number): number {
  return Math.round(ms * 100) / 100;
}
