import type { Clock } from '@kofn/core';

/** Time that moves when the test says so. */
export class TestClock implements Clock {
  #now = 0;
  readonly #timers = new Set<{ at: number; fire: () => void; background: boolean }>();

  now(): number {
    return this.#now;
  }

  setTimer(fire: () => void, delayMs: number, { background = false } = {}) {
    const timer = { at: this.#now + delayMs, fire, background };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  advance(ms: number): void {
    this.#now += ms;
    for (const timer of [...this.#timers]) {
      if (timer.at > this.#now || !this.#timers.delete(timer)) continue;
      timer.fire();
    }
  }

  /** As a machine that wakes after `ms`: timers are overdue and have not fired yet. */
  oversleep(ms: number): void {
    this.#now += ms;
  }

  get armed(): number {
    return this.#timers.size;
  }

  /** How long from now until each timer that does not keep the process alive. */
  get background(): number[] {
    return [...this.#timers].filter(({ background }) => background).map(({ at }) => at - this.#now);
  }
}
