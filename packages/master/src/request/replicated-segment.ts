/**
 * A segment (a run of nodes that are not coded) on two workers: both are asked at once, the first good answer wins and the other
 * is cancelled. Used by run.ts; deployment.ts makes it.
 *
 * The master computes the segment itself when both workers have failed, beside them when neither has answered within LATE_MS
 * (two stopped machines are to cost no more than that), and when an input is not finite, for then a reply cannot be told from rubbish. It
 * opens its session the first time and keeps it: a master that only encodes and decodes has none.
 *
 * Invariants
 * 1. A reply is used only when it has every output, of the right type, rank and declared sizes, and no NaN or infinity. A segment may
 *    make those of finite inputs (a mask of -inf, a division): then both replies are refused, and what the master computes is
 *    trusted.
 * 2. Nothing outlives the request but a run in the master's own engine, which `dispose` waits for.
 */
import {
  abortable,
  abortReason,
  isFiniteTensor,
  KofnError,
  openScope,
  sleep,
  throwIfAborted,
  type DType,
  type Signal,
  type Tensors,
} from '@kofn/core';
import { EncodedInputs, type InferReply } from '@kofn/wire';
import type { Session } from '@kofn/engine';
import pAny from 'p-any';
import type { Resends } from '../blocks/recover.js';
import type { SegmentReport } from '../contract/report.js';
import { localSpans, spansOf, type CallTimes, type Spans } from '../contract/spans.js';
import { ANSWERED, callWorker, type RequestContext } from '../blocks/worker-call.js';

/** Much more than a worker takes for a segment; where it takes longer the master computes it for nothing. */
const LATE_MS = 1_000;

/** What is known of an output before it comes; a size that the model leaves open is its name. */
export interface ExpectedOutput {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly (number | string)[];
}

export interface SegmentAnswer {
  readonly outputs: Tensors;
  readonly report: SegmentReport;
  readonly spans: Spans;
}

interface Answer {
  readonly outputs: Tensors;
  readonly worker: number | null;
  /** Undefined for the master's own. */
  readonly times: CallTimes | undefined;
}

export class ReplicatedSegment implements AsyncDisposable {
  readonly name: string;
  /** Of the shard that both workers hold. */
  readonly shard: string;
  /** Replaced as a whole when it moves (heal.ts). */
  workers: readonly number[];
  readonly resends: Resends;
  readonly #outputs: readonly ExpectedOutput[];
  readonly #openHere: () => Promise<Session>;
  #session: Promise<Session> | undefined;
  readonly #running = new Set<Promise<unknown>>();
  /** Of the largest reply; the link to a worker is allowed so much more time. */
  #replyBytes = 0;

  constructor(parts: {
    name: string;
    shard: string;
    workers: readonly number[];
    resends: Resends;
    outputs: readonly ExpectedOutput[];
    openHere: () => Promise<Session>;
  }) {
    this.name = parts.name;
    this.shard = parts.shard;
    this.workers = parts.workers;
    this.resends = parts.resends;
    this.#outputs = parts.outputs;
    this.#openHere = parts.openHere;
  }

  /** Throws ENGINE (the master's own, when no worker answered), DEADLINE_EXCEEDED or CANCELLED. */
  async run(feeds: Tensors, context: RequestContext): Promise<SegmentAnswer> {
    const { clock } = context;
    const start = clock.now();
    const isFinite = Object.values(feeds).every(isFiniteTensor);
    const { outputs, worker, times } = isFinite
      ? await this.#first(feeds, context)
      : await abortable(this.#here(feeds), context.signal);
    const end = clock.now();
    const ms = end - start;
    const spans = times === undefined ? localSpans(ms) : spansOf(times, start, end);
    return { outputs, report: { name: this.name, worker, ms }, spans };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.resends[Symbol.asyncDispose]();
    await Promise.allSettled(this.#running);
    const session = await this.#session?.catch(() => undefined);
    await session?.[Symbol.asyncDispose]();
  }

  async #first(feeds: Tensors, context: RequestContext): Promise<Answer> {
    const { clock, signal } = context;
    using scope = openScope(clock, { parent: signal });
    try {
      const inputs = new EncodedInputs(feeds, { requestId: context.id });
      const replied = pAny(this.workers.map(worker => this.#ask(worker, inputs, context, scope.signal)));
      const late = sleep(clock, LATE_MS, scope.signal);
      const none = () => undefined;
      const early = await abortable(Promise.race([replied.catch(none), late.then(none, none)]), signal);
      throwIfAborted(signal);
      if (early !== undefined) return early;
      const here = this.#here(feeds);
      return await abortable(
        pAny([replied, here]).catch(() => here), // both failed: the master's words say more
        signal,
      );
    } catch (error) {
      throw signal.aborted ? this.#unanswered(abortReason(signal)) : error;
    } finally {
      scope.abort(ANSWERED);
    }
  }

  async #ask(worker: number, inputs: EncodedInputs, context: RequestContext, signal: Signal): Promise<Answer> {
    let answer!: Answer;
    const connection = context.connections[worker]!;
    await callWorker(context, connection, {
      shard: this.shard,
      layer: this.name,
      bytes: this.#replyBytes + inputs.parts.reduce((sum, part) => sum + part.byteLength, 0),
      signal,
      putting: this.resends.missing(connection, 0, this.shard),
      inputs: () => inputs,
      onWritten: () => undefined,
      verify: reply => this.#verified(reply),
      take: (outputs, times) => (answer = { outputs, worker, times }),
      onFailure: () => undefined,
    });
    return answer;
  }

  /** Throws PROTOCOL, DTYPE_MISMATCH, ENGINE (another shape than the model's), NON_FINITE. */
  #verified({ outputs, bytesReceived }: InferReply): Tensors {
    this.#replyBytes = Math.max(this.#replyBytes, bytesReceived);
    const entries = this.#outputs.map(({ name, dtype, shape }) => {
      const value = outputs[name];
      if (value === undefined) throw new KofnError('PROTOCOL', `the reply has no output ${name}`);
      if (value.dtype !== dtype) {
        throw new KofnError('DTYPE_MISMATCH', `output ${name} of the reply is ${value.dtype}, not ${dtype}`);
      }
      const fits = shape.every((size, axis) => typeof size === 'string' || value.shape[axis] === size);
      if (!fits || value.shape.length !== shape.length) {
        // A model may be wrong about its own shapes: then it is not the worker's fault.
        const message = `output ${name} of the reply has shape [${value.shape.join(',')}], not [${shape.join(',')}]`;
        throw new KofnError('ENGINE', message);
      }
      if (!isFiniteTensor(value)) throw new KofnError('NON_FINITE', `output ${name} has NaN or infinity`);
      return [name, value] as const;
    });
    return Object.fromEntries(entries);
  }

  #here(feeds: Tensors): Promise<Answer> {
    const running = this.#runHere(feeds);
    const over = running.then(
      () => undefined,
      () => undefined, // whoever waits hears of it
    );
    this.#running.add(over);
    void over.then(() => this.#running.delete(over));
    return running;
  }

  async #runHere(feeds: Tensors): Promise<Answer> {
    try {
      if (this.#session === undefined) {
        const opening = this.#openHere();
        this.#session = opening;
        opening.catch(() => (this.#session = undefined));
      }
      const session = await this.#session;
      return { outputs: await session.run(feeds), worker: null, times: undefined };
    } catch (error) {
      const cause = KofnError.from(error, 'ENGINE');
      const what = `the master itself could not compute ${this.name}`;
      throw new KofnError(cause.code, `${what}: ${cause.message}`, { cause });
    }
  }

  /** `reason` (a deadline, a cancellation) with the segment and the workers that had not answered. */
  #unanswered(reason: KofnError): KofnError {
    if (reason.code !== 'DEADLINE_EXCEEDED') return reason;
    const who = `${this.name} had no answer from worker ${this.workers.join(' or ')}`;
    return new KofnError('DEADLINE_EXCEEDED', `${reason.message}: ${who}`, { cause: reason });
  }
}
