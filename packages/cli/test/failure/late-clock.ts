import { seededRng, type Clock, type Timer } from '@kofn/core';

/** Time that goes from timer to timer, each up to 1 ms late, as a real machine's are. */
export class LateClock implements Clock {
  readonly #rng = seededRng(1);
  readonly #timers = new Set<{ readonly at: number; readonly fire: () => void }>();
  #now = 0;

  now(): number {
    return this.#now;
  }

  setTimer(fire: () => void, delayMs: number): Timer {
    const timer = { at: this.#now + delayMs + this.#rng.uniform(), fire };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  /** To `ms`, or until no timer is left. */
  run(ms = Infinity): void {
    for (;;) {
      const next = [...this.#timers].sort((a, b) => a.at - b.at)[0];
      if (next === undefined || next.at > ms) break;
      this.#timers.delete(next);
      this.#now = next.at;
      next.fire();
    }
    if (ms !== Infinity) this.#now = ms;
  }
}
