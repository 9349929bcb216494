/**
 * Sessions of the shards in use, within a memory limit. Beside it: shard-store.ts (the bytes), queue.ts (whose turn).
 *
 * Invariants
 * 1. The sessions open or opening never need more than the limit together, by `bytes of the shard + SESSION_BYTES` each.
 * 2. A session that is used is never closed; the one unused for longest goes first.
 * 3. However many ask for a shard at once, it is opened once.
 */
import { abortable, KofnError, type Signal, type Tensors } from '@kofn/core';
import type { Engine, Session, ValueInfo } from '@kofn/engine';
import type { RunWatch } from './run-watch.js';
import type { ShardStore } from '../store/shard-store.js';

/** What ONNX Runtime takes for a session beside its weights. */
export const SESSION_BYTES = 2 * 2 ** 20;

interface Slot {
  readonly name: string;
  readonly bytes: number;
  readonly session: Promise<Session>;
  users: number;
  /** No new user gets it; it closes when the last one leaves. */
  isRetired: boolean;
}

export interface ExecutorCounters {
  opened: number;
  closed: number;
}

export class Executor implements AsyncDisposable {
  readonly memoryLimitBytes: number;
  readonly counters: ExecutorCounters = { opened: 0, closed: 0 };
  readonly #engine: Engine;
  readonly #store: ShardStore;
  readonly #threads: number;
  readonly #watch: RunWatch;
  /** From the one unused for longest to the one used last. */
  readonly #slots = new Map<string, Slot>();
  #usedBytes = 0;
  #freed: { promise: Promise<void>; resolve: () => void } | undefined;

  constructor(options: {
    engine: Engine;
    store: ShardStore;
    memoryLimitBytes: number;
    threads: number;
    watch: RunWatch;
  }) {
    this.#watch = options.watch;
    this.#engine = options.engine;
    this.#store = options.store;
    this.memoryLimitBytes = options.memoryLimitBytes;
    this.#threads = options.threads;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  isOpen(name: string): boolean {
    return this.#slots.has(name);
  }

  /** Runs shard `name`. Throws NOT_FOUND, DATA_LOSS, RESOURCE_EXHAUSTED, and what the engine throws. */
  run(name: string, inputs: Tensors, signal?: Signal): Promise<Tensors> {
    // The inputs came off the wire for this run alone.
    const run = (session: Session) => this.#watch.watch(name, () => session.run(inputs, { transfer: true }));
    return this.#use(name, run, signal);
  }

  /** Inputs and outputs of shard `name`, which is opened for it. Throws as `run`. */
  describe(name: string, signal?: Signal): Promise<{ inputs: readonly ValueInfo[]; outputs: readonly ValueInfo[] }> {
    return this.#use(name, ({ inputs, outputs }) => Promise.resolve({ inputs, outputs }), signal);
  }

  /** Closes the session of `name`, when it has one: at once, or when its last user is done. */
  async close(name: string): Promise<void> {
    const slot = this.#slots.get(name);
    if (slot !== undefined) await this.#retire(slot);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#slots.keys()].map(name => this.close(name)));
  }

  async #use<T>(name: string, work: (session: Session) => Promise<T>, signal: Signal | undefined): Promise<T> {
    const slot = await this.#take(name, signal);
    try {
      return await work(await slot.session);
    } finally {
      slot.users--;
      if (slot.isRetired) await this.#closeUnused(slot);
      else this.#announceRoom();
    }
  }

  /** Throws RESOURCE_EXHAUSTED for a shard that cannot be opened here, alone as it may be. */
  requireRoom(name: string, shardBytes: number): void {
    const bytes = shardBytes + SESSION_BYTES;
    if (bytes <= this.memoryLimitBytes) return;
    throw new KofnError(
      'RESOURCE_EXHAUSTED',
      `shard ${name.slice(0, 12)}… needs about ${bytes} bytes of memory, this worker may use ` +
        `${this.memoryLimitBytes}; raise --max-memory or split the layer into more blocks`,
    );
  }

  /** The slot of `name` with one more user. */
  async #take(name: string, signal: Signal | undefined): Promise<Slot> {
    for (;;) {
      const open = this.#slots.get(name);
      if (open !== undefined) {
        open.users++;
        this.#slots.delete(name); // to the end: used last
        this.#slots.set(name, open);
        return open;
      }
      const shardBytes = this.#store.bytesOf(name);
      this.requireRoom(name, shardBytes);
      const bytes = shardBytes + SESSION_BYTES;
      if (this.#usedBytes + bytes <= this.memoryLimitBytes) return this.#openSlot(name, bytes);
      const unused = [...this.#slots.values()].find(slot => slot.users === 0);
      if (unused !== undefined) await this.#retire(unused);
      else await abortable(this.#room(), signal);
    }
  }

  #openSlot(name: string, bytes: number): Slot {
    this.#usedBytes += bytes;
    const open = async () => this.#engine.open(await this.#store.open(name), { threads: this.#threads });
    const session = this.#watch.watchOpening(bytes, open);
    const slot: Slot = { name, bytes, session, users: 1, isRetired: false };
    this.#slots.set(name, slot);
    session.then(
      () => this.counters.opened++,
      () => {
        if (this.#slots.get(name) === slot) this.#slots.delete(name);
        this.#usedBytes -= bytes;
        slot.isRetired = true;
        this.#announceRoom();
      },
    );
    return slot;
  }

  async #retire(slot: Slot): Promise<void> {
    this.#slots.delete(slot.name);
    if (slot.isRetired) return;
    slot.isRetired = true;
    await this.#closeUnused(slot);
  }

  async #closeUnused(slot: Slot): Promise<void> {
    if (slot.users > 0) return;
    try {
      const session = await slot.session.catch(() => undefined);
      if (session === undefined) return; // it never opened, and its bytes are back already
      await session[Symbol.asyncDispose]();
      this.counters.closed++;
      this.#usedBytes -= slot.bytes;
    } finally {
      this.#announceRoom();
    }
  }

  /** Resolves when a user leaves or a session closes. */
  #room(): Promise<void> {
    if (this.#freed === undefined) {
      let resolve!: () => void;
      const promise = new Promise<void>(done => (resolve = done));
      this.#freed = { promise, resolve };
    }
    return this.#freed.promise;
  }

  #announceRoom(): void {
    this.#freed?.resolve();
    this.#freed = undefined;
  }
}
