/** Where the time of a request goes: measured by dispatch.ts for a coded layer, added up by run.ts for a request. */
import type { WorkerTimes } from '@kofn/wire';

/**
 * Milliseconds, on the way to the arrival that completed the decode set; they add up to the layer's time. Those of a request are
 * added up along its critical path: from the outputs back, at each step from the input that came last.
 */
export interface Spans {
  /** Until the call's frame was handed to the transport: waiting for room, shapes, checksum, framing; a recovery before it. */
  readonly serialise: number;
  /** Until the frame was handed to the operating system. */
  readonly send: number;
  /** On the worker: waiting for its turn, in the engine, and the rest (reading the request, writing the reply). */
  readonly queue: number;
  readonly engine: number;
  readonly worker: number;
  /** The way there and back, and until the reply was read here. Of a worker that tells no times, its time too. */
  readonly receive: number;
  /** Looking at the reply. */
  readonly verify: number;
  /** From then on until the output was there; a systematic grace too. */
  readonly decode: number;
  /** In the master's own engine: segments between coded layers, and layers or blocks that it computed itself. */
  readonly local: number;
}

/** One call to a worker: clock times. */
export interface CallTimes {
  readonly sentAt: number;
  /** Undefined when the reply was faster than the news of it. */
  readonly writtenAt: number | undefined;
  readonly repliedAt: number;
  readonly verifiedAt: number;
  readonly worker: WorkerTimes | undefined;
}

const NONE: Spans = {
  serialise: 0,
  send: 0,
  queue: 0,
  engine: 0,
  worker: 0,
  receive: 0,
  verify: 0,
  decode: 0,
  local: 0,
};

/** Of a layer that was dispatched at `start` and decoded at `end`, where `call` brought the last block. */
export function spansOf(call: CallTimes, start: number, end: number): Spans {
  const { sentAt, writtenAt = call.repliedAt, repliedAt, verifiedAt, worker } = call;
  const { queueMs, engineMs, workerMs } = worker ?? { queueMs: 0, engineMs: 0, workerMs: 0 };
  // Two clocks, and the news of a frame that was written may be late: the whole is what this clock says.
  const away = Math.max(0, repliedAt - sentAt - workerMs);
  const send = Math.min(Math.max(0, writtenAt - sentAt), away);
  return {
    ...NONE,
    serialise: sentAt - start,
    send,
    queue: queueMs,
    engine: engineMs,
    worker: workerMs - queueMs - engineMs,
    receive: away - send,
    verify: verifiedAt - repliedAt,
    decode: end - verifiedAt,
  };
}

export function localSpans(ms: number): Spans {
  return { ...NONE, local: ms };
}

/** What is known of a step that has run: its data, when it ended, and where its time went. */
export interface StepTimes {
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly endedAt: number;
  readonly spans: Spans;
}

/** Adds up the spans of the steps on the way to `outputs` that each waited for. */
export function alongCriticalPath(steps: readonly StepTimes[], outputs: readonly string[]): Spans {
  const makers = new Map(steps.flatMap(step => step.outputs.map(name => [name, step] as const)));
  const lastOf = (names: readonly string[]) =>
    names
      .flatMap(name => makers.get(name) ?? [])
      .reduce<StepTimes | undefined>(
        (last, step) => (last === undefined || step.endedAt > last.endedAt ? step : last),
        undefined,
      );
  let total = NONE;
  for (let step = lastOf(outputs); step !== undefined; step = lastOf(step.inputs)) total = sum(total, step.spans);
  return total;
}

function sum(a: Spans, b: Spans): Spans {
  return {
    serialise: a.serialise + b.serialise,
    send: a.send + b.send,
    queue: a.queue + b.queue,
    engine: a.engine + b.engine,
    worker: a.worker + b.worker,
    receive: a.receive + b.receive,
    verify: a.verify + b.verify,
    decode: a.decode + b.decode,
    local: a.local + b.local,
  };
}
