/**
 * The clock of a process that has nothing to do but to be in time (child.ts). Node's timers are up to 1 ms late, as much as a request
 * takes on a wired network; this one is about 0.1 ms late, and does not spin.
 *
 * It sleeps in the kernel (Atomics.wait) for what is left below COARSE_MS, by SLICE_MS at a time, and looks at sockets between: so what
 * arrives meanwhile waits for a slice at most.
 */
import { systemClock, type Clock, type Timer } from '@kofn/core';

const COARSE_MS = 2;
const SLICE_MS = 0.2;

interface Due {
  readonly at: number;
  readonly fire: () => void;
}

export class FineClock implements Clock {
  readonly #due = new Set<Due>();
  readonly #never = new Int32Array(new SharedArrayBuffer(4));
  #isLooking = false;

  now(): number {
    return systemClock.now();
  }

  setTimer(fire: () => void, delayMs: number): Timer {
    const due = { at: this.now() + delayMs, fire };
    if (delayMs < COARSE_MS) return this.#near(due);
    let timer = systemClock.setTimer(() => (timer = this.#near(due)), delayMs - COARSE_MS / 2);
    return { cancel: () => timer.cancel() };
  }

  #near(due: Due): Timer {
    this.#due.add(due);
    this.#look();
    return { cancel: () => void this.#due.delete(due) };
  }

  /** Immediates come after what sockets have to say. */
  #look(): void {
    if (this.#isLooking || this.#due.size === 0) return;
    this.#isLooking = true;
    setImmediate(() => {
      this.#sleep();
      this.#isLooking = false;
      for (const due of [...this.#due].sort((a, b) => a.at - b.at)) {
        // One that fires may cancel another.
        if (due.at <= this.now() && this.#due.delete(due)) due.fire();
      }
      this.#look();
    });
  }

  #sleep(): void {
    let earliest = Infinity;
    for (const { at } of this.#due) earliest = Math.min(earliest, at);
    const ms = Math.min(SLICE_MS, earliest - this.now());
    if (ms > 0) Atomics.wait(this.#never, 0, 0, ms);
  }
}
