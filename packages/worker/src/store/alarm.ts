/**
 * One background timer for the earliest of many times: shard-store.ts's ends of leases.
 *
 * Invariants
 * 1. While there is a time to wait for, one timer is set for it or an earlier one, or `ring` runs; never two timers.
 * 2. After dispose no timer is set, and `ring` does not run.
 */
import type { Clock, Timer } from '@kofn/core';

export class Alarm implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #earliest: () => number;
  readonly #ring: () => Promise<void>;
  #timer: (Timer & { readonly atMs: number }) | undefined;
  #ringing: Promise<void> | undefined;
  #isClosed = false;

  /**
   * Calls `ring`, which does not reject, at each time that was set, and perhaps before. `earliest` says, after each
   * ring, when the next one is due; Infinity for never.
   */
  constructor(clock: Clock, earliest: () => number, ring: () => Promise<void>) {
    this.#clock = clock;
    this.#earliest = earliest;
    this.#ring = ring;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** A timer for an earlier time stays: it costs one ring, and times that only move later cost nothing. */
  set(atMs: number): void {
    if (this.#isClosed || this.#ringing !== undefined || atMs >= (this.#timer?.atMs ?? Infinity)) return;
    this.#timer?.cancel();
    const delayMs = Math.max(0, atMs - this.#clock.now());
    const timer = this.#clock.setTimer(() => this.#fire(), delayMs, { background: true });
    this.#timer = { atMs, cancel: () => timer.cancel() };
  }

  #fire(): void {
    this.#timer = undefined;
    this.#ringing = this.#ring().finally(() => {
      this.#ringing = undefined;
      this.set(this.#earliest());
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#timer = undefined;
    await this.#ringing;
  }
}
