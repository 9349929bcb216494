/**
 * The requests that wait for their turn: first in, first out, bounded. A worker submits the runs of its engine, the server of a
 * master the requests of its clients.
 *
 * Invariants
 * 1. A request that was cancelled or expired before its turn never starts.
 * 2. Every request settles; started = finished + running, and each submitted one is counted in exactly one of started,
 *    cancelledBeforeStart, expiredBeforeStart, refused, or still waits.
 * 3. After `drain` nothing new is taken, and what was taken ends.
 */
import { abortReason, KofnError, openScope, throwIfAborted, type Clock, type Scope, type Signal } from '@kofn/core';

export interface QueueCounters {
  started: number;
  finished: number;
  cancelledBeforeStart: number;
  expiredBeforeStart: number;
  refused: number;
}

export interface SubmitOptions {
  readonly signal?: Signal | undefined;
  /** The request is dropped when it has not started within this time. */
  readonly timeoutMs?: number | undefined;
}

interface Waiting {
  readonly scope: Scope;
  start(): void;
}

export class RequestQueue {
  readonly counters: QueueCounters = {
    started: 0,
    finished: 0,
    cancelledBeforeStart: 0,
    expiredBeforeStart: 0,
    refused: 0,
  };
  readonly #clock: Clock;
  readonly #who: string;
  readonly maxWaiting: number;
  readonly #concurrency: number;
  /** Insertion order is the order of turns. */
  readonly #waiting = new Set<Waiting>();
  readonly #idle: (() => void)[] = [];
  #running = 0;
  #isDraining = false;

  /** At most `maxWaiting` requests wait beside the `concurrency` (default 1) that run. `who` refuses, in messages: "this worker". */
  constructor(options: { clock: Clock; maxWaiting: number; concurrency?: number; who?: string }) {
    this.#clock = options.clock;
    this.#who = options.who ?? 'this worker';
    this.maxWaiting = options.maxWaiting;
    this.#concurrency = options.concurrency ?? 1;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  get running(): number {
    return this.#running;
  }

  /**
   * Runs `work` in its turn. Throws RESOURCE_EXHAUSTED (the queue is full), UNAVAILABLE (draining), the signal's reason
   * or DEADLINE_EXCEEDED (before its turn), else what `work` throws. Once started it is left to end.
   */
  async submit<T>(work: () => Promise<T>, { signal, timeoutMs }: SubmitOptions = {}): Promise<T> {
    this.#admit();
    await this.#turn(signal, timeoutMs);
    this.counters.started++;
    try {
      return await work();
    } finally {
      this.counters.finished++;
      this.#running--;
      this.#next();
    }
  }

  /** Takes nothing more; resolves when all that was taken has ended. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    if (this.#running === 0) return;
    await new Promise<void>(resolve => this.#idle.push(resolve));
  }

  #admit(): void {
    const isFull = this.#running >= this.#concurrency && this.#waiting.size >= this.maxWaiting;
    if (!this.#isDraining && !isFull) return;
    this.counters.refused++;
    if (this.#isDraining) throw new KofnError('UNAVAILABLE', `${this.#who} is shutting down; ask another`);
    const advice = 'send fewer requests at once or raise --max-queue';
    throw new KofnError('RESOURCE_EXHAUSTED', `${this.#waiting.size} requests wait already; ${advice}`);
  }

  /** Resolves with one of the running places taken. */
  async #turn(signal: Signal | undefined, timeoutMs: number | undefined): Promise<void> {
    if (this.#running < this.#concurrency && signal?.aborted !== true) {
      this.#running++;
      return;
    }
    using scope = openScope(this.#clock, { parent: signal, deadlineMs: timeoutMs, what: 'wait for its turn' });
    try {
      throwIfAborted(scope.signal);
      await new Promise<void>((resolve, reject) => {
        const start = () => {
          scope.signal.removeEventListener('abort', onAbort);
          resolve();
        };
        const waiting = { scope, start };
        const onAbort = () => {
          this.#waiting.delete(waiting);
          reject(abortReason(scope.signal));
        };
        this.#waiting.add(waiting);
        scope.signal.addEventListener('abort', onAbort, { once: true });
      });
    } catch (error) {
      if (KofnError.from(error).code === 'DEADLINE_EXCEEDED') this.counters.expiredBeforeStart++;
      else this.counters.cancelledBeforeStart++;
      throw error;
    }
  }

  #next(): void {
    for (const waiting of this.#waiting) {
      if (this.#running >= this.#concurrency) return;
      // Its timer is late: when a machine wakes, all that is overdue comes at once, in any order.
      if (waiting.scope.hasEnded()) continue;
      this.#waiting.delete(waiting);
      this.#running++;
      waiting.start();
    }
    if (this.#running === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }
}
