/**
 * Where each mark of a request stands in its lanes: one lane a worker, time from left to right, a band for each coded step. Nothing here
 * draws; lanes-view.tsx does.
 */
import type { ReplyLine, RequestLine, StepLine } from '../protocol.js';

export interface LaneBox {
  /** Of the drawing, in CSS pixels. */
  readonly width: number;
  /** Left of time 0: for the workers' names. */
  readonly left: number;
  /** Above the first lane: for the layers' names. */
  readonly top: number;
  readonly laneHeight: number;
}

/**
 * - used: arrived in time
 * - late: nobody waited for it, and its block was computed from parity
 * - lost: its worker failed, and its block was computed from parity
 * - failed: its worker failed, and nothing was missed
 * - spare: nobody waited for it, and nothing was missed
 */
export type MarkKind = 'used' | 'late' | 'lost' | 'failed' | 'spare';

export interface Mark {
  readonly kind: MarkKind;
  readonly worker: number;
  readonly block: number;
  readonly isParity: boolean;
  readonly x: number;
  readonly y: number;
  /** From the request's start; null when no reply came, and the mark stands where the answer was ready. */
  readonly atMs: number | null;
  /** Where a line to it begins: the answer was ready without it. Equal to x without one. */
  readonly tailX: number;
  /** It came later than the drawing shows. */
  readonly isBeyond: boolean;
}

export interface Band {
  readonly step: StepLine;
  readonly x: number;
  readonly width: number;
  /** Where the answer was ready: the last reply that was needed. Null when no worker's was. */
  readonly readyX: number | null;
  readonly label: string;
}

export interface Lanes {
  readonly height: number;
  /** Of each lane its worker's number, and its middle. */
  readonly rows: readonly { readonly worker: number; readonly y: number }[];
  readonly bands: readonly Band[];
  readonly marks: readonly Mark[];
  readonly ticks: readonly { readonly x: number; readonly ms: number }[];
}

/** Late replies are shown up to so much more than the request took. */
const LATE_PART = 0.25;
const CHARACTER_PX = 6.2;
const MOST_TICKS = 8;

export function layOut(request: RequestLine, box: LaneBox): Lanes {
  const { width, left, top, laneHeight } = box;
  const workers = workersOf(request);
  const endMs = spanMs(request);
  const xOf = (ms: number) => left + (Math.min(ms, endMs) / endMs) * (width - left - 8);
  const rows = workers.map((worker, row) => ({ worker, y: top + (row + 0.5) * laneHeight }));
  const yOf = new Map(rows.map(({ worker, y }) => [worker, y]));
  const bands = request.steps.map(step => bandOf(step, xOf));
  const marks = request.steps.flatMap((step, index) =>
    step.replies.map(reply => markOf(reply, step, bands[index]!, { xOf, endMs, y: yOf.get(reply.worker)! })),
  );
  const stepMs = tickStep(endMs);
  const ticks = Array.from({ length: Math.floor(endMs / stepMs) + 1 }, (_, tick) => ({
    x: xOf(tick * stepMs),
    ms: tick * stepMs,
  }));
  return { height: top + workers.length * laneHeight, rows, bands, marks, ticks };
}

/** Of those that were asked, ascending. */
export function workersOf({ steps }: RequestLine): number[] {
  return [...new Set(steps.flatMap(({ replies }) => replies.map(({ worker }) => worker)))].sort((a, b) => a - b);
}

/** What the drawing spans: the request, and late replies as far as they are shown. */
function spanMs({ ms, queueMs, steps }: RequestLine): number {
  const runMs = Math.max(ms - queueMs, 0.01);
  const ends = steps.flatMap(({ startMs, replies }) => replies.map(reply => startMs + (reply.ms ?? 0)));
  return Math.min(Math.max(runMs, ...ends), runMs * (1 + LATE_PART));
}

function bandOf(step: StepLine, xOf: (ms: number) => number): Band {
  const { startMs, ms, readyMs, layers } = step;
  const x = xOf(startMs);
  const width = Math.max(1, xOf(startMs + ms) - x);
  return { step, x, width, readyX: readyMs === null ? null : xOf(startMs + readyMs), label: fitted(layers, width) };
}

function markOf(
  { worker, block, kind, ms, isRecovered }: ReplyLine,
  { startMs, k }: StepLine,
  band: Band,
  { xOf, endMs, y }: { xOf: (ms: number) => number; endMs: number; y: number },
): Mark {
  const readyX = band.readyX ?? band.x + band.width;
  const atMs = ms === null ? null : startMs + ms;
  const x = atMs === null ? readyX : xOf(atMs);
  return {
    kind:
      kind === 'arrived'
        ? 'used'
        : kind === 'failed'
          ? isRecovered
            ? 'lost'
            : 'failed'
          : isRecovered
            ? 'late'
            : 'spare',
    worker,
    block,
    isParity: block >= k,
    x,
    y,
    atMs,
    tailX: kind === 'cancelled' ? Math.min(readyX, x) : x,
    isBeyond: atMs !== null && atMs > endMs,
  };
}

/** As much of the names as fits; nothing rather than a letter or two. */
function fitted(layers: readonly string[], width: number): string {
  const name = layers.length === 1 ? layers[0]! : `${layers[0]!} +${layers.length - 1}`;
  const most = Math.floor((width - 4) / CHARACTER_PX);
  if (name.length <= most) return name;
  return most < 4 ? '' : `${name.slice(0, most - 1)}…`;
}

/** 1, 2 or 5 times a power of ten. */
export function tickStep(endMs: number, most = MOST_TICKS): number {
  const rough = endMs / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5, 10].find(factor => factor * power >= rough) ?? 10);
}

/** One sentence: what a reader who does not see the lanes is told of them. */
export function inWords(request: RequestLine): string {
  if (request.error !== null) return `Request ${request.number} failed with ${request.error}.`;
  const replies = request.steps.flatMap(step => step.replies);
  const workers = (kind: ReplyLine['kind']) =>
    [...new Set(replies.filter(reply => reply.kind === kind && reply.isRecovered).map(({ worker }) => worker))].sort();
  const late = workers('cancelled');
  const lost = workers('failed');
  const steps = `${request.steps.length} coded step${request.steps.length === 1 ? '' : 's'}`;
  const recovered = [
    ...(lost.length > 0 ? [`what worker ${lost.join(', ')} lost`] : []),
    ...(late.length > 0 ? [`what worker ${late.join(', ')} was late with`] : []),
  ];
  const how = recovered.length === 0 ? 'nothing had to be recovered' : `recovered from parity: ${recovered.join('; ')}`;
  return `Request ${request.number} was answered in ${request.ms.toFixed(1)} ms over ${steps}; ${how}.`;
}
