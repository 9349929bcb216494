/**
 * Recorded links: delay and rate over time, which begin again at their end. Two formats are read, told apart by the first line:
 *
 * - Mahimahi's packet-delivery traces (R. Netravali et al., USENIX ATC 2015): a whole number of milliseconds a line, at which 1500 bytes
 *   can be delivered. Here these are sent evenly in the millisecond that ends then, so a packet of 1500 bytes is there at that time.
 * - CSV with the header `ms,delayMs,megabitsPerSecond`, or with one of the last two: each line holds until the next, and the last for as
 *   long as the one before it. Times count from the first line's.
 */
import { readFile, stat } from 'node:fs/promises';
import { KofnError } from '@kofn/core';

/** Steps: value i holds from `ms[i]` to `ms[i + 1]`, the last to `periodMs`. All arrays that there are have one length. */
export interface LinkTrace {
  /** Name of the file. */
  readonly origin: string;
  /** From 0, rising. */
  readonly ms: Float64Array;
  readonly periodMs: number;
  readonly delayMs?: Float64Array | undefined;
  /** 0: nothing passes. Not all are 0. */
  readonly megabitsPerSecond?: Float64Array | undefined;
}

const MAX_FILE_BYTES = 64 * 2 ** 20;
const MAHIMAHI_MEGABITS = 12; // 1500 bytes in a millisecond
const COLUMNS = ['delayMs', 'megabitsPerSecond'] as const;
const HIGHEST = { ms: 1e12, delayMs: 60_000, megabitsPerSecond: 100_000 };
const NUMBER = /^\d+(\.\d*)?(e[+-]?\d+)?$/i;
const BITS_PER_MEGABIT_MS = 1000;

/** Throws NOT_FOUND (no such file), INVALID_ARGUMENT (over 64 MiB, or not a trace: the message has the line). */
export async function readTrace(file: string): Promise<LinkTrace> {
  try {
    const { size } = await stat(file);
    if (size <= MAX_FILE_BYTES) return parseTrace(await readFile(file, 'utf8'), file);
  } catch (error) {
    throw KofnError.from(error, 'NOT_FOUND', `trace ${file} cannot be read`);
  }
  throw new KofnError('INVALID_ARGUMENT', `trace ${file} has more than 64 MiB: give a shorter recording`);
}

/** `origin` goes into messages. Throws INVALID_ARGUMENT. */
export function parseTrace(text: string, origin: string): LinkTrace {
  const lines = linesOf(text);
  const first = lines.next();
  if (first.done) throw new KofnError('INVALID_ARGUMENT', `trace ${origin} is empty`);
  return /^\d+$/.test(first.value.text) ? mahimahi(first.value, lines, origin) : csv(first.value.text, lines, origin);
}

interface Line {
  readonly number: number;
  readonly text: string;
}

/** Those that are not blank, from 1. */
function* linesOf(text: string): Generator<Line, undefined> {
  for (let at = 0, number = 1; at < text.length; number++) {
    const end = text.indexOf('\n', at);
    const line = text.slice(at, end === -1 ? undefined : end).trim();
    if (line !== '') yield { number, text: line };
    at = end === -1 ? text.length : end + 1;
  }
  return undefined;
}

function mahimahi(first: Line, rest: Iterable<Line>, origin: string): LinkTrace {
  const ms: number[] = [];
  const rates: number[] = [];
  const step = (at: number, rate: number) => {
    if (rate === rates.at(-1)) return;
    ms.push(at);
    rates.push(rate);
  };
  let packets = 1;
  let before = parsed(first, first.text, 'ms', origin);
  let endsAt = Math.max(1, before); // an opportunity at 0 counts to the first millisecond
  let doneTo = 0;
  const deliver = () => {
    if (endsAt - 1 > doneTo) step(doneTo, 0);
    step(endsAt - 1, packets * MAHIMAHI_MEGABITS);
    doneTo = endsAt;
  };
  for (const line of rest) {
    if (!/^\d+$/.test(line.text)) throw malformed(line, origin, `"${short(line.text)}" is no whole number of ms`);
    const at = parsed(line, line.text, 'ms', origin);
    if (at < before) throw malformed(line, origin, `time goes back from ${before} to ${at} ms`);
    before = at;
    if (Math.max(1, at) === endsAt) packets++;
    else {
      deliver();
      endsAt = at;
      packets = 1;
    }
  }
  deliver();
  return { origin, ms: Float64Array.from(ms), periodMs: endsAt, megabitsPerSecond: Float64Array.from(rates) };
}

function csv(header: string, rest: Iterable<Line>, origin: string): LinkTrace {
  const [time, ...names] = header.split(',').map(name => name.trim());
  const isKnown = names.every(name => COLUMNS.some(column => column === name)) && new Set(names).size === names.length;
  if (time !== 'ms' || names.length === 0 || !isKnown) {
    const expected = 'expected "ms,delayMs,megabitsPerSecond" (or one of the last two), or a whole number of ms';
    throw malformed({ number: 1, text: header }, origin, `it begins with "${short(header)}": ${expected}`);
  }
  const ms: number[] = [];
  const values = names.map((): number[] => []);
  let startsAt = 0;
  for (const line of rest) {
    const cells = line.text.split(',');
    if (cells.length !== names.length + 1) {
      throw malformed(line, origin, `${cells.length} values, but ${names.length + 1} columns`);
    }
    const at = parsed(line, cells[0]!, 'ms', origin);
    if (ms.length === 0) startsAt = at;
    else if (at - startsAt <= ms.at(-1)!) {
      throw malformed(line, origin, `time does not rise: ${at} ms after ${ms.at(-1)! + startsAt} ms`);
    }
    ms.push(at - startsAt);
    names.forEach((name, i) => values[i]!.push(parsed(line, cells[i + 1]!, name as (typeof COLUMNS)[number], origin)));
  }
  if (ms.length === 0) throw new KofnError('INVALID_ARGUMENT', `trace ${origin} has a header and no line behind it`);
  const columns = Object.fromEntries(names.map((name, i) => [name, Float64Array.from(values[i]!)]));
  const { megabitsPerSecond: rates, delayMs } = columns as Pick<LinkTrace, (typeof COLUMNS)[number]>;
  if (rates?.every(rate => rate === 0)) {
    throw new KofnError(
      'INVALID_ARGUMENT',
      `trace ${origin}: megabitsPerSecond is 0 throughout, so nothing would pass`,
    );
  }
  const last = ms.at(-1)!;
  const periodMs = ms.length === 1 ? 1 : 2 * last - ms.at(-2)!;
  return { origin, ms: Float64Array.from(ms), periodMs, delayMs, megabitsPerSecond: rates };
}

function parsed(line: Line, cell: string, name: keyof typeof HIGHEST, origin: string): number {
  const text = cell.trim();
  const value = NUMBER.test(text) ? Number(text) : NaN;
  if (value <= HIGHEST[name]) return value;
  throw malformed(line, origin, `${name} is "${short(text)}": must be a number from 0 to ${HIGHEST[name]}`);
}

function malformed({ number }: Line, origin: string, what: string): KofnError {
  return new KofnError('INVALID_ARGUMENT', `trace ${origin}, line ${number}: ${what}`);
}

function short(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

/** Of values that may be many; `none` without any. */
export function largestOf<T>(values: Float64Array | undefined, none: T): number | T {
  return values === undefined || values.length === 0 ? none : values.reduce((a, b) => Math.max(a, b));
}

/** Bits that can have been sent by the beginning of each step, and by the end. */
const sums = new WeakMap<LinkTrace, Float64Array>();

function sumsOf(trace: LinkTrace, rates: Float64Array): Float64Array {
  const known = sums.get(trace);
  if (known !== undefined) return known;
  const made = new Float64Array(rates.length + 1);
  for (let i = 0; i < rates.length; i++) {
    const lengthMs = (trace.ms[i + 1] ?? trace.periodMs) - trace.ms[i]!;
    made[i + 1] = made[i]! + lengthMs * rates[i]! * BITS_PER_MEGABIT_MS;
  }
  sums.set(trace, made);
  return made;
}

/** A trace that began at `startMs`. */
export class TraceClock {
  readonly #trace: LinkTrace;
  readonly #startMs: number;

  constructor(trace: LinkTrace, startMs: number) {
    this.#trace = trace;
    this.#startMs = startMs;
  }

  delayAt(ms: number): number {
    return this.#trace.delayMs?.[this.#stepAt((ms - this.#startMs) % this.#trace.periodMs)] ?? 0;
  }

  /** When `bytes` have left whose first left at `atMs`, not before the start; undefined where the trace has no rate. */
  sentAt(atMs: number, bytes: number): number | undefined {
    const { megabitsPerSecond: rates, ms, periodMs } = this.#trace;
    if (rates === undefined) return undefined;
    const bits = sumsOf(this.#trace, rates);
    const perPeriod = bits.at(-1)!;
    const begins = Math.max(0, atMs - this.#startMs);
    const offset = begins % periodMs;
    const first = this.#stepAt(offset);
    const before = bits[first]! + (offset - ms[first]!) * rates[first]! * BITS_PER_MEGABIT_MS;
    const target = before + 8 * bytes;
    const periods = Math.max(0, Math.ceil(target / perPeriod) - 1);
    const rest = Math.max(Number.MIN_VALUE, target - periods * perPeriod);
    // The step in which that many have gone, which is none of rate 0.
    const last = Math.min(lastBelow(bits, rest), rates.length - 1);
    const inStep = (rest - bits[last]!) / (rates[last]! * BITS_PER_MEGABIT_MS);
    return this.#startMs + (begins - offset) + periods * periodMs + ms[last]! + inStep;
  }

  #stepAt(offsetMs: number): number {
    return Math.max(0, lastBelow(this.#trace.ms, offsetMs, true));
  }
}

/** The last index whose value is below `limit`, or `orEqual`; -1 when none is. `values` rise. */
function lastBelow(values: Float64Array, limit: number, orEqual = false): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const isBelow = orEqual ? values[middle]! <= limit : values[middle]! < limit;
    if (isBelow) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
