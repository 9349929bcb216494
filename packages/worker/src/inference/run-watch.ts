/**
 * Tells what takes long from an engine that hangs. A run is stuck when it has taken more than STUCK_MS and more than STUCK_FACTOR times
 * what runs of its shard take (their 99th percentile); a session that opens, when a slow card would have brought its weights.
 * server.ts answers ServerReady by it.
 */
import type { Clock } from '@kofn/core';

const STUCK_MS = 2_000;
const STUCK_FACTOR = 10;
/** Runs of a shard that are remembered. */
const REMEMBERED = 200;
const OPENING_MS = 10_000;
/** 1 MB/s: weights are hashed, then read by the engine, from whatever a board has for a disk. */
const OPENING_BYTES_PER_MS = 1_000;

export class RunWatch {
  readonly #clock: Clock;
  /** Milliseconds of the latest runs of each shard, the oldest first. */
  readonly #taken = new Map<string, number[]>();
  readonly #underWay = new Set<{ readonly start: number; readonly limitMs: () => number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `run` of `shard`, watched. */
  async watch<T>(shard: string, run: () => Promise<T>): Promise<T> {
    const start = this.#clock.now();
    try {
      return await this.#watched(run, () => this.#limitMs(shard));
    } finally {
      const taken = this.#taken.get(shard) ?? [];
      this.#taken.set(shard, taken);
      taken.push(this.#clock.now() - start);
      if (taken.length > REMEMBERED) taken.shift();
    }
  }

  /** `open`, watched, of a session whose shard has `bytes`. */
  watchOpening<T>(bytes: number, open: () => Promise<T>): Promise<T> {
    return this.#watched(open, () => OPENING_MS + bytes / OPENING_BYTES_PER_MS);
  }

  /** Forgets a shard that is gone. */
  forget(shard: string): void {
    this.#taken.delete(shard);
  }

  get isStuck(): boolean {
    return [...this.#underWay].some(({ start, limitMs }) => this.#clock.now() - start > limitMs());
  }

  async #watched<T>(work: () => Promise<T>, limitMs: () => number): Promise<T> {
    const underWay = { start: this.#clock.now(), limitMs };
    this.#underWay.add(underWay);
    try {
      return await work();
    } finally {
      this.#underWay.delete(underWay);
    }
  }

  #limitMs(shard: string): number {
    const sorted = [...(this.#taken.get(shard) ?? [])].sort((a, b) => a - b);
    const p99 = sorted[Math.ceil(0.99 * sorted.length) - 1] ?? 0;
    return Math.max(STUCK_MS, STUCK_FACTOR * p99);
  }
}
