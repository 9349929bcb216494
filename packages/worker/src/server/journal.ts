/** The latest of what happened to this worker, for whoever asks (`Inventory`); the same several times at once is one entry. */
import type { Clock, ErrorCode } from '@kofn/core';

const KEPT = 32;
/** What is the same as the entry before, so soon after it, is counted there. */
const SOON_MS = 10_000;

export interface JournalEntry {
  readonly ageMs: number;
  readonly text: string;
}

interface Kept {
  /** What is the same has the same. */
  readonly key: string;
  readonly count: number;
  /** The last time. */
  readonly atMs: number;
  readonly textOf: (count: number) => string;
}

export class Journal {
  readonly #clock: Clock;
  #entries: readonly Kept[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** From the oldest to the latest. */
  get latest(): JournalEntry[] {
    const nowMs = this.#clock.now();
    return this.#entries.map(({ atMs, count, textOf }) => ({ ageMs: nowMs - atMs, text: textOf(count) }));
  }

  started(shards: number): void {
    this.#add('started', () => `started, with ${plural(shards)} on its disk`);
  }

  /** A shard of `model` arrived whole. */
  took(model: string): void {
    this.#add(`took ${model}`, count => `took ${plural(count)}${ofModel(model)}`);
  }

  /** A shard of `model` was not taken. */
  refused(model: string, code: ErrorCode): void {
    this.#add(`refused ${model} ${code}`, count => `did not take ${plural(count)}${ofModel(model)} (${code})`);
  }

  /** The bytes of a shard went: given up, its leases over, or damaged. */
  dropped(): void {
    this.#add('dropped', count => `dropped ${plural(count)}`);
  }

  #add(key: string, textOf: (count: number) => string): void {
    const atMs = this.#clock.now();
    const last = this.#entries.at(-1);
    const isSame = last?.key === key && atMs - last.atMs < SOON_MS;
    const before = isSame ? this.#entries.slice(0, -1) : this.#entries;
    const count = isSame ? last.count + 1 : 1;
    this.#entries = [...before.slice(1 - KEPT), { atMs, count, textOf, key }];
  }
}

function ofModel(model: string): string {
  return model === '' ? '' : ` of ${model}`;
}

function plural(count: number): string {
  return `${count} shard${count === 1 ? '' : 's'}`;
}
