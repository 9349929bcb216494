/**
 * What senders have in common: a token bucket as deep as one frame, which frames take one after another.
 *
 * Invariants
 * 1. A sender has one frame before the air at a time, and asks for the next when that has left, as stations of Wi-Fi do: one with much
 *    to send does not shut the others out. Who asked first is first.
 * 2. A frame leaves when the air was free and the sender had asked, plus the time that its bytes take: reckoned from when that was and
 *    not from when a timer said so, so that late timers do not add up.
 */
import type { Clock, Timer } from '@kofn/core';
import { serialisationMs, shapeKey, type LinkShape } from './shape.js';

export interface Sender {
  /** When its first frame was there and what it has of its own was free; Infinity when it has none. */
  readonly asksAt: number;
  /** Sends its first frame at `atMs`; returns the bytes of it. */
  send(atMs: number): number;
}

export class Air {
  readonly #megabitsPerSecond: number | undefined;
  readonly #clock: Clock;
  readonly #asking = new Set<Sender>();
  #freeAt = -Infinity;
  #timer: Timer | undefined;
  #isRunning = false;

  /** Without a rate it is always free. */
  constructor(clock: Clock, megabitsPerSecond?: number) {
    this.#clock = clock;
    this.#megabitsPerSecond = megabitsPerSecond;
  }

  /** To be called when a sender's first frame comes; for those behind it, it is asked. */
  ask(sender: Sender): void {
    this.#asking.add(sender);
    this.#run();
  }

  /** For one that has nothing to send any more: no timer waits for it. */
  leave(sender: Sender): void {
    this.#asking.delete(sender);
    this.#run();
  }

  #run(): void {
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#timer?.cancel();
    this.#timer = undefined;
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      const at = Math.max(this.#freeAt, next.asksAt);
      const waitMs = at - this.#clock.now();
      if (waitMs > 0) {
        this.#timer = this.#clock.setTimer(() => this.#run(), waitMs);
        break;
      }
      this.#freeAt = at + serialisationMs(next.send(at), this.#megabitsPerSecond);
    }
    this.#isRunning = false;
  }

  #next(): Sender | undefined {
    let next: Sender | undefined;
    for (const sender of this.#asking) {
      if (sender.asksAt === Infinity) this.#asking.delete(sender);
      else if (next === undefined || sender.asksAt < next.asksAt) next = sender;
    }
    return next;
  }
}

/** The air of each shape whose links share it. */
export class Airs {
  readonly #clock: Clock;
  readonly #shared = new Map<string, Air>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** For one direction of a link of that shape. */
  of(shape: LinkShape): Air {
    if (shape.sharedMegabitsPerSecond === undefined) return new Air(this.#clock);
    const key = shapeKey(shape);
    const air = this.#shared.get(key) ?? new Air(this.#clock, shape.sharedMegabitsPerSecond);
    this.#shared.set(key, air);
    return air;
  }
}
