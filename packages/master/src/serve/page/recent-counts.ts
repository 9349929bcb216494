/** Counts of the last minute, second by second. */
import type { Clock } from '@kofn/core';

export const SECONDS = 60;

export class RecentCounts<Kind extends string> {
  readonly #clock: Clock;
  readonly #kinds: ReadonlyMap<Kind, Uint32Array>;
  /** The second that is counted now; it has a slot beside the full ones. */
  #current: number;

  constructor(clock: Clock, kinds: readonly Kind[]) {
    this.#clock = clock;
    this.#kinds = new Map(kinds.map(kind => [kind, new Uint32Array(SECONDS + 1)]));
    this.#current = Math.floor(clock.now() / 1000);
  }

  add(kind: Kind, count = 1): void {
    this.#turn();
    this.#kinds.get(kind)![this.#current % (SECONDS + 1)]! += count;
  }

  /** Of each full second of the last minute, oldest first. */
  perSecond(kind: Kind): number[] {
    this.#turn();
    const slots = this.#kinds.get(kind)!;
    return Array.from({ length: SECONDS }, (_, index) => slots[(this.#current + 1 + index) % (SECONDS + 1)]!);
  }

  /** Of the last minute and the second that runs. */
  sum(kind: Kind): number {
    this.#turn();
    return this.#kinds.get(kind)!.reduce((sum, count) => sum + count, 0);
  }

  #turn(): void {
    const now = Math.floor(this.#clock.now() / 1000);
    for (let turns = Math.min(SECONDS + 1, now - this.#current); turns > 0; turns--) {
      for (const slots of this.#kinds.values()) slots[(now - turns + 1) % (SECONDS + 1)] = 0;
    }
    this.#current = now;
  }
}
