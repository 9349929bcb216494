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

  get pausedUntilMs(): number {
    return this.#pausedUntilMs;
  }

  get isDead(): boolean {
    return this.#isDead;
  }

  setTimer(fire: () => void, delayMs: number): Timer {
    if (this.#isDead) return { cancel: () => undefined };
    let isOver = false;
    const inner = this.#world.setTimer(() => {
      this.whenAwake(() => {
        if (isOver) return;
        timer.cancel();
        fire();
      });
    }, delayMs);
    const timer: Timer = {
      cancel: () => {
        isOver = true;
        inner.cancel();
        this.#armed.delete(timer);
      },
    };
    this.#armed.add(timer);
    return timer;
  }

  /** Does `work`, which comes from outside: now, when a pause ends, or never. */
  whenAwake(work: () => void): void {
    if (this.#isDead) return;
    const restMs = this.#pausedUntilMs - this.#world.now();
    if (restMs > 0) this.#world.setTimer(() => this.whenAwake(work), restMs);
    else work();
  }

  pause(untilMs: number): void {
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, untilMs);
  }

  die(): void {
    this.#isDead = true;
    for (const timer of [...this.#armed]) timer.cancel();
  }
}
