/**
 * Tells a run that takes long from an engine that hangs: a run is stuck when it has taken more than STUCK_MS and more than
 * STUCK_FACTOR times what runs of its shard take (their 99th percentile). server.ts answers ServerReady by it.
 */
import type { Clock } from '@kofn/core';

const STUCK_MS = 2_000;
const STUCK_FACTOR = 10;
/** Runs of a shard that are remembered. */
const REMEMBERED = 200;

export class RunWatch {
  readonly #clock: Clock;
  /** Milliseconds of the latest runs of each shard, the oldest first. */
  readonly #taken = new Map<string, number[]>();
  readonly #running = new Set<{ readonly shard: string; readonly start: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `run`, watched. */
  async watch<T>(shard: string, run: () => Promise<T>): Promise<T> {
    const running = { shard, start: this.#clock.now() };
    this.#running.add(running);
    try {
      return await run();
    } finally {
      this.#running.delete(running);
      const taken = this.#taken.get(shard) ?? [];
      this.#taken.set(shard, taken);
      taken.push(this.#clock.now() - running.start);
      if (taken.length > REMEMBERED) taken.shift();
    }
  }

  /** Forgets a shard that is gone. */
  forget(shard: string): void {
    this.#taken.delete(shard);
  }

  get isStuck(): boolean {
    return [...this.#running].some(({ shard, start }) => this.#clock.now() - start > this.#limitMs(shard));
  }

  #limitMs(shard: string): number {
    const sorted = [...(this.#taken.get(shard) ?? [])].sort((a, b) => a - b);
    const p99 = sorted[Math.ceil(0.99 * sorted.length) - 1] ?? 0;
    return Math.max(STUCK_MS, STUCK_FACTOR * p99);
  }
}
