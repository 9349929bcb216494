/**
 * One worker as the master keeps it: its channel, what it said of itself, whether it answers, and the loop that brings it
 * back. Beside it: fleet.ts (all of them), dispatch.ts (calls), placement.ts (shards).
 *
 * Invariants
 * 1. One loop supervises the worker from `open` to dispose: connected, it asks again and again whether the worker is ready;
 *    when the worker has been silent for `silenceMs`, or the link breaks, the link is torn down and made anew with backoff.
 * 2. Calls to a worker that cannot take them fail at once, and calls that it cannot answer any more fail when that is known:
 *    UNAVAILABLE. What a worker took before it drains, it answers.
 * 3. After dispose nothing of this worker is pending, and no timer is left.
 */
import { abortReason, KofnError, openScope, sleep, type Rng, type Scope, type Signal } from '@kofn/core';
import type { EncodedInputs, InferReply, WorkerClient, WorkerInventory, WorkerTimes } from '@kofn/wire';
import { CallTally } from './call-tally.js';
import { isGone, type WorkerState } from './worker-state.js';
import {
  closeLink,
  isItThere,
  isLink,
  NOTHING_SAID,
  openLink,
  relink,
  shardsOf,
  stateOf,
  waitBehind,
  type Link,
  type LinkOptions,
} from './link.js';
import { sameProcess, type ListedWorker } from './processes.js';
import { SpeedRecord } from './speeds.js';
import { Trust } from './trust.js';

export interface InferCall {
  readonly signal?: Signal | undefined;
  readonly timeoutMs?: number | undefined;
  /** What travels, there and back together. */
  readonly bytes: number;
  /** The frame has been handed to the operating system; its size. */
  readonly onWritten?: ((bytes: number) => void) | undefined;
  /** As `InferOptions.onLate`. */
  readonly onLate?: ((times: WorkerTimes) => void) | undefined;
}

export interface ConnectionOptions extends LinkOptions {
  readonly rng: Rng;
  /** A worker that says nothing for so long is dead. */
  readonly silenceMs: number;
}

/** Parts of `silenceMs`: between two questions, until an unanswered one makes the worker suspect, and dead. */
const PROBE_EVERY = 0.25;
const SUSPECT_AFTER = 0.35;
const DEAD_AFTER = 0.7;
/** The last part of the way there is timed by itself: when this process was busy until then, an answer that lies unread is read. */
const LAST_LOOK = 0.1;

/** Of a shard that is put, no more than so many bytes wait in buffers. */
const BUFFERED_BYTES = 2 ** 23;
/** A question behind no more tells how long the way is. */
const LITTLE_BYTES = 2 ** 14;

/** A timer later than this has been held up by this process itself. */
const BUSY_MS = 200;

/** So many replies that broke the protocol put a worker aside for so long. */
const MARKS = 3;
const QUARANTINE_MS = 60_000;

export class Connection implements AsyncDisposable {
  readonly index: number;
  readonly address: string;
  readonly trust = new Trust();
  readonly tally = new CallTally();
  readonly speed: SpeedRecord;
  readonly #options: ConnectionOptions;
  readonly #life: Scope;
  /** The last one; none until the worker has answered for the first time. */
  #link: Link | undefined;
  /** Names of the shards that the worker holds, as far as the master knows. */
  #shards: Set<string>;
  #state: WorkerState;
  /** Why it was dead last. */
  #lastLoss = '';
  #marks = 0;
  #quarantineEnds = 0;
  #travellingBytes = 0;
  readonly #listeners = new Set<() => void>();
  readonly #supervised: Promise<void>;

  private constructor(index: number, address: string, link: Link | KofnError, options: ConnectionOptions) {
    this.index = index;
    this.address = address;
    this.#options = options;
    this.speed = new SpeedRecord(options.clock, () => this.#tell());
    const isAway = link instanceof KofnError;
    this.#link = isAway ? undefined : link;
    this.#shards = isAway ? new Set() : shardsOf(link);
    this.#state = isAway ? { kind: 'dead', reason: link.message } : link.state;
    if (isAway) this.#lastLoss = link.message;
    this.#life = openScope(options.clock);
    this.#supervised = this.#supervise();
  }

  /**
   * A worker that does not answer is dead to begin with, and connected to like one that was lost. Throws INVALID_ARGUMENT when `address`
   * leads to a worker that is connected to already, PROTOCOL when something else than a kofn worker answers there, CANCELLED.
   */
  static async open(
    index: number,
    address: string,
    { signal, ...options }: ConnectionOptions & { signal: Signal | undefined },
  ): Promise<Connection> {
    const worker = { index, address };
    let opened: Link | ListedWorker;
    try {
      opened = await openLink(worker, signal, options);
    } catch (error) {
      const cause = KofnError.from(error, 'UNAVAILABLE');
      if (cause.code === 'CANCELLED' || signal?.aborted === true) throw cause;
      if (cause.code === 'UNAVAILABLE' || cause.code === 'DEADLINE_EXCEEDED') {
        return new Connection(index, address, cause, options);
      }
      const message = `worker ${index} (${address}): ${cause.message}. ${isItThere(address)}`;
      throw new KofnError(cause.code, message, { cause });
    }
    if (isLink(opened)) return new Connection(index, address, opened, options);
    const [first, second] = opened.index < index ? [opened, worker] : [worker, opened];
    const who = `worker ${second.index} (${second.address}): ${sameProcess(first)}`;
    throw new KofnError('INVALID_ARGUMENT', `${who}; each worker counts once, so list it once`);
  }

  get state(): WorkerState {
    return this.#state;
  }

  /** Whether calls go to it: a worker that has just not answered may do so yet. */
  get takesCalls(): boolean {
    return this.#state.kind === 'ready' || (this.#state.kind === 'suspect' && this.#state.reason === 'silent');
  }

  /** Whether a call would be refused because as many are under way as may be. */
  get isFull(): boolean {
    return this.#link?.client.isFull === true;
  }

  /** Resolves when that may have changed. */
  room(signal: Signal): Promise<void> {
    return this.#link?.client.room(signal) ?? Promise.resolve();
  }

  /** What it said of itself when it was connected last; nothing before it has answered. */
  get inventory(): WorkerInventory {
    return this.#link?.inventory ?? NOTHING_SAID;
  }

  get shards(): Set<string> {
    return this.#shards;
  }

  /** Replies that came after their request was over. */
  get lateReplies(): number {
    return this.tally.lateReplies + (this.#link?.client.lateReplies ?? 0);
  }

  /** It said that it does not hold these shards, or not whole. */
  lacks(...names: readonly string[]): void {
    if (names.filter(name => this.#shards.delete(name)).length > 0) this.#tell();
  }

  /**
   * Calls `listener` after each change of state, when it turns out to lack a shard, and when it becomes a straggler or is none any
   * more, until the result is called.
   */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /**
   * Runs shard `name` there. Throws UNAVAILABLE when the worker cannot take it or is lost, RESOURCE_EXHAUSTED when it
   * `isFull`, else what it answered.
   */
  infer(model: string, inputs: EncodedInputs, call: InferCall): Promise<InferReply> {
    if (!this.takesCalls) return Promise.reject(this.#unavailable());
    const { signal, bytes, timeoutMs } = call;
    return this.#onLink(bytes, signal, client => client.infer({ model, inputs, timeoutMs }, call));
  }

  /**
   * What is asked of it beside inferences; `bytes` of it travel. Throws UNAVAILABLE when the link is lost before it is
   * answered, else what `question` throws.
   */
  async ask<T>(
    question: (client: WorkerClient) => Promise<T>,
    { signal, bytes = 0 }: { signal?: Signal | undefined; bytes?: number } = {},
  ): Promise<T> {
    if (!this.#isLinked) throw this.#unavailable();
    return this.#onLink(Math.min(bytes, BUFFERED_BYTES), signal, async client => question(client));
  }

  /** `call` rejects with its errors and throws none. */
  #onLink<T>(bytes: number, signal: Signal | undefined, call: (client: WorkerClient) => Promise<T>): Promise<T> {
    const link = this.#link;
    if (link === undefined) return Promise.reject(this.#unavailable());
    this.#travellingBytes += bytes;
    return call(link.client).then(
      value => {
        this.#travellingBytes -= bytes;
        return value;
      },
      (error: unknown) => {
        this.#travellingBytes -= bytes;
        const isLost = link !== this.#link || !this.#isLinked;
        throw isLost && signal?.aborted !== true ? this.#unavailable() : error;
      },
    );
  }

  /** It answered what is no answer. After MARKS of them the worker is put aside. */
  mark(reason: string): void {
    this.#marks++;
    if (this.#marks < MARKS || !this.takesCalls) return;
    this.#quarantineEnds = this.#options.clock.now() + QUARANTINE_MS;
    this.#enter({ kind: 'quarantined', reason: `${this.#marks} replies that cannot be used, the last: ${reason}` });
    // Not left to the next question, which with a long `silenceMs` is far off.
    sleep(this.#options.clock, QUARANTINE_MS, this.#life.signal).then(
      () => this.#endQuarantine(),
      () => undefined,
    );
  }

  /** An answer was looked into; `wrong` says to what, if it was wrong. After two it is put aside until `release`. */
  judged(wrong?: string): void {
    this.trust.count(wrong);
    if (this.trust.distrust !== undefined && this.takesCalls) this.#enter({ kind: 'ready' });
    else this.#tell();
  }

  /** It is believed again. */
  release(): void {
    this.trust.release();
    this.#quarantineEnds = 0;
    this.#endQuarantine();
  }

  #endQuarantine(): void {
    if (
      this.trust.distrust !== undefined ||
      this.#state.kind !== 'quarantined' ||
      this.#options.clock.now() < this.#quarantineEnds
    )
      return;
    this.#marks = 0;
    this.#enter({ kind: 'ready' });
  }

  /** It is no part of the cluster any more: its link ends and is not made again. */
  remove(): Promise<void> {
    return this.#end({ kind: 'removed' }, `worker ${this.index} (${this.address}) was removed from the cluster`);
  }

  [Symbol.asyncDispose](): Promise<void> {
    const why = 'the cluster is closed';
    return this.#end(this.#state.kind === 'removed' ? this.#state : { kind: 'dead', reason: why }, why);
  }

  async #end(state: WorkerState, why: string): Promise<void> {
    this.#life.abort(new KofnError('CANCELLED', why));
    this.#enter(state);
    await this.#supervised;
    this.#life[Symbol.dispose]();
  }

  get #isLinked(): boolean {
    return !isGone(this.#state);
  }

  #unavailable(): KofnError {
    if (this.#life.signal.aborted) return abortReason(this.#life.signal);
    return new KofnError('UNAVAILABLE', this.whyAway);
  }

  /** Who it is and its state, in words. */
  get whyAway(): string {
    const { kind } = this.#state;
    const reason = kind === 'connecting' ? this.#lastLoss : 'reason' in this.#state ? this.#state.reason : '';
    const why = reason === '' ? '' : `: ${reason}`;
    return `worker ${this.index} (${this.address}) is ${kind}${why}`;
  }

  #enter(entered: WorkerState): void {
    const { distrust } = this.trust;
    const isDistrusted = distrust !== undefined && (entered.kind === 'ready' || entered.kind === 'suspect');
    const state: WorkerState = isDistrusted ? { kind: 'quarantined', reason: distrust } : entered;
    if (this.#state.kind === state.kind && JSON.stringify(this.#state) === JSON.stringify(state)) return;
    this.#state = state;
    if (state.kind === 'dead') this.#lastLoss = state.reason;
    const answers = this.takesCalls || state.kind === 'draining' || state.kind === 'quarantined';
    if (!answers) this.#link?.client.abandon(this.#unavailable());
    this.#tell();
  }

  async #supervise(): Promise<void> {
    const { signal } = this.#life;
    for (;;) {
      if (this.#link !== undefined) {
        const lost = await this.#watch(this.#link).catch((error: unknown) => KofnError.from(error, 'UNAVAILABLE'));
        if (!signal.aborted) this.#enter({ kind: 'dead', reason: lost.message });
        await closeLink(this.#link);
      }
      const link = await this.#reconnect().catch(() => undefined); // only when the cluster closes
      if (link === undefined) return;
      if (this.#link !== undefined) this.tally.relinked(this.#link.client);
      this.#link = link;
      this.#shards = shardsOf(link);
      this.#marks = 0;
      this.#enter(link.state);
    }
  }

  /** Returns why the link was lost. Throws the reason of the cluster's end. */
  async #watch({ channel, client }: Link): Promise<KofnError> {
    const { clock } = this.#options;
    let broke: (error: KofnError) => void = () => undefined;
    const broken = new Promise<KofnError>(resolve => (broke = resolve));
    const stop = channel.onBroken(broke);
    using scope = openScope(clock, { parent: this.#life.signal });
    try {
      for (;;) {
        const probed = this.#probe(client, scope.signal).then(() => undefined);
        const lost = await Promise.race([broken, probed]);
        if (lost !== undefined) return lost;
      }
    } finally {
      stop();
      scope.abort(new KofnError('CANCELLED', 'the link is gone'));
    }
  }

  /** One wait and one question. Throws UNAVAILABLE when it is not answered. */
  async #probe(client: WorkerClient, signal: Signal): Promise<void> {
    const { clock, silenceMs } = this.#options;
    await sleep(clock, PROBE_EVERY * silenceMs, signal);
    const start = clock.now();
    const bytesAhead = this.#travellingBytes + client.abandonedBytes;
    const behindMs = waitBehind(bytesAhead);
    const deadlineMs = DEAD_AFTER * silenceMs + behindMs;
    const suspect = clock.setTimer(
      () => {
        if (this.#state.kind === 'ready') this.#enter({ kind: 'suspect', reason: 'silent' });
      },
      SUSPECT_AFTER * silenceMs + behindMs,
    );
    using scope = openScope(clock, { parent: signal });
    let dead = clock.setTimer(
      () => {
        dead = clock.setTimer(() => scope.abort(silent(deadlineMs)), LAST_LOOK * silenceMs);
      },
      deadlineMs - LAST_LOOK * silenceMs,
    );
    try {
      const state = stateOf(await client.health({ signal: scope.signal }));
      if (bytesAhead <= LITTLE_BYTES && state.kind === 'ready') this.speed.probed(clock.now() - start);
      if (signal.aborted) return;
      if (state.kind === 'ready') this.#answered();
      else this.#enter(state);
    } catch (error) {
      const { code, message } = KofnError.from(error);
      // The deadline came late, so this process was busy and the answer may lie there unread: ask again.
      if (code === 'DEADLINE_EXCEEDED' && clock.now() - start > deadlineMs + BUSY_MS) return;
      throw new KofnError('UNAVAILABLE', message, { cause: error });
    } finally {
      suspect.cancel();
      dead.cancel();
    }
  }

  #answered(): void {
    if (this.#state.kind === 'quarantined') this.#endQuarantine();
    else this.#enter({ kind: 'ready' });
  }

  /** Throws only when the cluster closes. */
  #reconnect(): Promise<Link> {
    return relink(this, this.#life.signal, this.#options, state => {
      // One that is still a duplicate is not told of at each attempt.
      if (state.kind !== 'connecting' || this.#state.kind !== 'duplicate') this.#enter(state);
    });
  }
}

function silent(ms: number): KofnError {
  return new KofnError('DEADLINE_EXCEEDED', `silent for ${Math.round(ms)} ms`);
}
