/**
 * The clock of one machine: what runs there sees virtual time, stops while the machine is paused, and never runs again
 * once it is dead.
 *
 * Invariants
 * 1. Nothing of a dead machine fires; of a paused one nothing fires before the pause ends, and then in its order.
 * 2. `armed` counts the timers that were neither fired nor cancelled.
 */
import type { Clock, Timer } from '@kofn/core';

export class MachineClock implements Clock {
  readonly #world: Clock;
  readonly #armed = new Set<Timer>();
  #pausedUntilMs = 0;
  #isDead = false;

  constructor(world: Clock) {
    this.#world = world;
  }

  now(): number {
    return this.#world.now();
  }

  get armed(): number {
    return this.#armed.size;
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  setTimer(fire: () => void, delayMs: number): Timer {
    if (this.#isDead) return { cancel: () => undefined };
    let inner: Timer;
    const timer: Timer = {
      cancel: () => {
        inner.cancel();
        this.#armed.delete(timer);
      },
    };
    const onTime = () => {
      const restMs = this.#pausedUntilMs - this.#world.now();
      if (restMs > 0) {
        inner = this.#world.setTimer(onTime, restMs);
        return;
      }
      this.#armed.delete(timer);
      fire();
    };
    inner = this.#world.setTimer(onTime, delayMs);
    this.#armed.add(timer);
    return timer;
  }

  pause(untilMs: number): void {
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, untilMs);
  }

  die(): void {
    this.#isDead = true;
    for (const timer of [...this.#armed]) timer.cancel();
  }
}
