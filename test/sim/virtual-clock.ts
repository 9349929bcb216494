/**
 * Time that moves only when everything is idle: a heap of timers, and a loop that lets all that can run run before it
 * fires the next one.
 *
 * Invariants
 * 1. `now` never goes back, and moves only between two timers.
 * 2. Timers fire in the order of their times, those of one time in the order in which they were set.
 * 3. Of two runs that set the same timers, each fires them in the same order.
 */
import type { Clock, Timer } from '@kofn/core';

/** Fewer are not worth the sorting. */
const LEAST_CANCELLED = 1000;

interface Armed {
  readonly atMs: number;
  readonly number: number;
  fire: (() => void) | undefined;
}

export class VirtualClock implements Clock {
  #nowMs = 0;
  #timers = 0;
  #fired = 0;
  #heap: Armed[] = [];
  /** Cancelled timers in the heap. */
  #cancelled = 0;

  now(): number {
    return this.#nowMs;
  }

  /** Timers that have fired. */
  get events(): number {
    return this.#fired;
  }

  setTimer(fire: () => void, delayMs: number): Timer {
    const timer: Armed = { atMs: this.#nowMs + Math.max(0, delayMs), number: this.#timers++, fire };
    this.#push(timer);
    return { cancel: () => this.#cancel(timer) };
  }

  /**
   * Moves time until `goal` settles, and gives what it gave. `undefined` when it never would: no timer is left, or
   * `limitMs` is reached.
   */
  async runUntil<T>(goal: Promise<T>, limitMs: number): Promise<{ value: T } | undefined> {
    let settled: { value: T } | { error: unknown } | undefined;
    goal.then(
      value => (settled = { value }),
      (error: unknown) => (settled = { error }),
    );
    for (;;) {
      await new Promise(setImmediate); // promises and ticks are all done by then
      if (settled !== undefined) {
        if ('error' in settled) throw settled.error;
        return settled;
      }
      const next = this.#pop();
      if (next === undefined || next.atMs > limitMs) return undefined;
      this.#nowMs = next.atMs;
      this.#fired++;
      const fire = next.fire!;
      next.fire = undefined;
      fire();
    }
  }

  /** It stays in the heap until its time comes, or until most of what is there is cancelled. */
  #cancel(timer: Armed): void {
    if (timer.fire === undefined) return;
    timer.fire = undefined;
    this.#cancelled++;
    if (this.#cancelled < LEAST_CANCELLED || 2 * this.#cancelled < this.#heap.length) return;
    this.#heap = this.#heap.filter(({ fire }) => fire !== undefined).sort((a, b) => (isBefore(a, b) ? -1 : 1));
    this.#cancelled = 0;
  }

  #push(timer: Armed): void {
    const heap = this.#heap;
    let at = heap.push(timer) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(timer, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = timer;
  }

  /** The next timer that was not cancelled. */
  #pop(): Armed | undefined {
    const heap = this.#heap;
    while (heap.length > 0) {
      const first = heap[0]!;
      const last = heap.pop()!;
      if (heap.length > 0) this.#sink(last);
      if (first.fire !== undefined) return first;
      this.#cancelled--;
    }
    return undefined;
  }

  #sink(timer: Armed): void {
    const heap = this.#heap;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, timer)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = timer;
  }
}

function isBefore(a: Armed, b: Armed): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.number < b.number);
}
