/**
 * The shards that this worker holds, by their hash, and who claims them. Below it a BlobStore keeps bytes and owners;
 * shard-rpc.ts puts, claims and removes, executor.ts opens.
 *
 * Invariants
 * 1. A shard is held only if all of it arrived and hashed to its name; nothing is left of one that did not.
 * 2. What does not hash to its name when it is opened is removed and never run.
 * 3. Held bytes and bytes on their way never exceed the limit together.
 * 4. A shard is held exactly while someone claims it. What changes its claims or its bytes runs one after another for
 *    each shard, so that a put or claim beside the end of the last claim either keeps the bytes or finds them gone.
 * 5. Claims change in the BlobStore first and here after, so that what fails there leaves both as they were.
 * 6. A put or claim whose caller is gone by its end claims nothing new: whoever gave up the owner's claims meanwhile would
 *    not know of it.
 */
import { abortReason, KofnError, systemClock, throwIfAborted, type Clock, type Signal } from '@kofn/core';
import { shardHash, type Owner, type ShardBlock } from '@kofn/wire';
import { Alarm } from './alarm.js';
import { BLOB_FILES, type BlobStore, type StoredBlob } from './blob-store.js';
import { Leases, NOBODY, textOf } from './leases.js';
import { OneByOne } from './one-by-one.js';
import { checkHash, checkHeader, NAME, short, sizeOf } from './shard-checks.js';

/** When to try again what a disk refused at the end of a lease. */
const RETRY_MS = 60_000;

export interface HeldShard {
  readonly name: string;
  readonly bytes: number;
  /** Without the nobody that holds what was put without an owner. */
  readonly owners: Owner[];
  /** What it is to them. */
  readonly uses: { owner: Owner; block: ShardBlock }[];
}

/** Who claims a shard, and what it is to them; of a caller that is gone by the end nothing is taken. */
export interface ClaimOptions {
  readonly block?: ShardBlock | undefined;
  readonly signal?: Signal | undefined;
}

interface Held {
  readonly blob: StoredBlob;
  /** Never empty. */
  readonly leases: Leases;
}

export class ShardStore implements AsyncDisposable {
  readonly diskLimitBytes: number;
  readonly #blobs: BlobStore;
  readonly #clock: Clock;
  readonly #held = new Map<string, Held>();
  readonly #changes = new OneByOne();
  readonly #alarm: Alarm;
  #onGone: ((name: string) => Promise<void>) | undefined;
  #heldBytes = 0;
  #incomingBytes = 0;

  private constructor(blobs: BlobStore, diskLimitBytes: number, clock: Clock) {
    this.#blobs = blobs;
    this.diskLimitBytes = diskLimitBytes;
    this.#clock = clock;
    const earliestEndMs = () =>
      [...this.#held.values()].reduce((ms, { leases }) => Math.min(ms, leases.earliestEndMs), Infinity);
    this.#alarm = new Alarm(clock, earliestEndMs, () => this.#endLeases());
  }

  /**
   * With what `blobs` holds already, which is kept even when it is over the limit; every lease begins anew. Throws
   * STORAGE.
   */
  static async open(blobs: BlobStore, options: { diskLimitBytes: number; clock?: Clock }): Promise<ShardStore> {
    const { diskLimitBytes, clock = systemClock } = options;
    const store = new ShardStore(blobs, diskLimitBytes, clock);
    for (const blob of await blobs.list()) {
      if (!NAME.test(blob.name)) continue;
      // What cannot be read is as without owners: held for a lease, so that nothing is lost early.
      const text = await blobs.readOwners(blob.name).catch(() => undefined);
      store.#add({ blob, leases: new Leases(text, clock.now()) });
    }
    return store;
  }

  /** Calls `listener` after the bytes of a shard went, however they did. What it throws goes to whoever removed them. */
  onGone(listener: (name: string) => Promise<void>): void {
    this.#onGone = listener;
  }

  get diskUsedBytes(): number {
    return this.#heldBytes;
  }

  list(): HeldShard[] {
    return [...this.#held.values()].map(({ blob, leases }) => ({
      name: blob.name,
      bytes: sizeOf(blob),
      owners: leases.owners(),
      uses: leases.uses(),
    }));
  }

  /** Claims on all shards together, those of nobody with them. */
  get claims(): number {
    return [...this.#held.values()].reduce((sum, { leases }) => sum + leases.size, 0);
  }

  /** The names of the shards that `owner` claims. */
  claimedBy(owner: Owner): string[] {
    return [...this.#held].filter(([, { leases }]) => leases.has(owner)).map(([name]) => name);
  }

  has(name: string): boolean {
    return this.#held.has(name);
  }

  /** Bytes of model and weights. Throws NOT_FOUND. */
  bytesOf(name: string): number {
    return sizeOf(this.#find(name).blob);
  }

  /**
   * Takes a shard from `chunks`: the model's bytes, then the weights', in pieces of any size; `owner`, or nobody, then
   * claims it. `present` says that it was held already or arrived another way; the rest is then not read. Throws
   * INVALID_ARGUMENT (name or sizes), RESOURCE_EXHAUSTED (limit, disk or owners), DATA_LOSS (cut off, or another hash),
   * PROTOCOL (more than announced), STORAGE, or the signal's reason: then it claims nothing that it did not before.
   */
  async put(
    shard: StoredBlob,
    chunks: AsyncIterable<Uint8Array>,
    { owner = NOBODY, ...claim }: ClaimOptions & { owner?: Owner | undefined } = {},
  ): Promise<{ present: boolean }> {
    const { block, signal } = claim;
    checkHeader(shard);
    if (await this.claim(shard.name, owner, claim)) return { present: true };
    const bytes = sizeOf(shard);
    const taken = this.#heldBytes + this.#incomingBytes;
    if (taken + bytes > this.diskLimitBytes) {
      throw new KofnError(
        'RESOURCE_EXHAUSTED',
        `shard ${short(shard.name)} takes ${bytes} bytes, ${taken} of the ${this.diskLimitBytes} that this worker may ` +
          `store are taken; remove shards or raise --max-disk`,
      );
    }
    this.#incomingBytes += bytes;
    try {
      const draft = await this.#blobs.create();
      try {
        const hash = shardHash(shard.modelBytes);
        let arrived = 0;
        for await (const chunk of chunks) {
          throwIfAborted(signal);
          if (this.has(shard.name) && (await this.claim(shard.name, owner, claim))) return { present: true };
          if (arrived + chunk.byteLength > bytes) {
            throw new KofnError('PROTOCOL', `shard ${short(shard.name)} has more than the ${bytes} bytes announced`);
          }
          const ofModel = Math.max(0, Math.min(chunk.byteLength, shard.modelBytes - arrived));
          await draft.write('model.onnx', chunk.subarray(0, ofModel));
          await draft.write('weights.bin', chunk.subarray(ofModel));
          hash.update(chunk);
          arrived += chunk.byteLength;
        }
        throwIfAborted(signal);
        if (arrived < bytes) {
          throw new KofnError('DATA_LOSS', `shard ${short(shard.name)} is cut off: ${arrived} of ${bytes} bytes came`);
        }
        checkHash(shard.name, hash.digest('hex'), 'nothing of it was kept; put it again');
        const add = async () => {
          const text = textOf(owner, block);
          await draft.commit(shard.name, text);
          this.#add({ blob: shard, leases: new Leases(text, this.#clock.now()) });
        };
        return { present: await this.#enter(shard.name, owner, claim, add) };
      } finally {
        await draft.discard();
      }
    } finally {
      this.#incomingBytes -= bytes;
    }
  }

  /**
   * Claims the shard for `owner`, or renews its lease. False when it is not held. Throws RESOURCE_EXHAUSTED (disk or
   * owners), STORAGE, or the signal's reason; then the claims are as they were.
   */
  claim(name: string, owner: Owner, options: ClaimOptions = {}): Promise<boolean> {
    return this.#enter(name, owner, options);
  }

  /**
   * Where the shard lies, after its bytes were hashed. Throws NOT_FOUND, STORAGE, or DATA_LOSS: then it has been removed.
   */
  async open(name: string): Promise<string> {
    const held = this.#find(name);
    const hash = shardHash(held.blob.modelBytes);
    try {
      for (const file of BLOB_FILES) for await (const chunk of this.#blobs.read(name, file)) hash.update(chunk);
    } catch (error) {
      this.#find(name); // NOT_FOUND when its last claim ended meanwhile
      throw error;
    }
    try {
      checkHash(name, hash.digest('hex'), 'it was removed here; put it again');
    } catch (error) {
      // Unless it was removed and put again meanwhile.
      await this.#change(name, async now => now === held && this.#delete(held));
      throw error;
    }
    return this.#blobs.location(name);
  }

  /**
   * Drops the claim of `owner`, or all claims without one. Whether the bytes went. Throws STORAGE or RESOURCE_EXHAUSTED
   * (disk); then claims and bytes are as they were.
   */
  remove(name: string, owner?: Owner): Promise<boolean> {
    return this.#change(name, held => (owner === undefined ? this.#delete(held) : this.#leave(held, [owner])));
  }

  /** Ends no more leases; resolves when nothing is being changed. The blobs stay their owner's. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#alarm[Symbol.asyncDispose]();
    await this.#changes.idle();
  }

  /** Drops the claims whose lease has ended. */
  async #endLeases(): Promise<void> {
    for (const { blob, leases } of [...this.#held.values()]) {
      if (this.#alarm.isClosed) return;
      if (leases.ended(this.#clock.now()).length === 0) continue;
      await this.#change(blob.name, async held => {
        const ended = held.leases.ended(this.#clock.now());
        try {
          return await this.#leave(held, ended);
        } catch {
          held.leases.postpone(ended, this.#clock.now(), RETRY_MS); // nobody is there to hear of it
          return false;
        }
      }).catch(() => undefined); // a session that does not close is no reason to keep the others
    }
  }

  /** Claims the shard in its turn, after `add` has added it with that claim when it is not held. Whether it was held. */
  async #enter(
    name: string,
    owner: Owner,
    { block, signal }: ClaimOptions,
    add?: () => Promise<void>,
  ): Promise<boolean> {
    let isGone = false;
    try {
      return await this.#changes.run(name, async () => {
        throwIfAborted(signal);
        const hadClaim = this.#held.get(name)?.leases.has(owner) === true;
        const wasHeld = await this.#join(name, owner, block);
        if (!wasHeld) await add?.();
        const held = this.#held.get(name);
        if (signal?.aborted !== true || hadClaim || held === undefined) return wasHeld;
        isGone = await this.#leave(held, [owner]);
        throw abortReason(signal);
      });
    } finally {
      if (isGone) await this.#onGone?.(name);
    }
  }

  /** Does `work`, which says whether the bytes went, in the shard's turn, when it is held then. */
  async #change(name: string, work: (held: Held) => Promise<boolean>): Promise<boolean> {
    const isGone = await this.#changes.run(name, async () => {
      const held = this.#held.get(name);
      return held !== undefined && work(held);
    });
    if (isGone) await this.#onGone?.(name);
    return isGone;
  }

  // The turns of one shard: each is called by #changes alone.

  async #join(name: string, owner: Owner, block: ShardBlock | undefined): Promise<boolean> {
    const held = this.#held.get(name);
    if (held === undefined) return false;
    if (!held.leases.knows(owner, block)) await this.#blobs.writeOwners(name, held.leases.textWith(owner, block));
    held.leases.begin(owner, this.#clock.now(), block);
    return true;
  }

  async #leave(held: Held, owners: readonly Owner[]): Promise<boolean> {
    const leaving = owners.filter(owner => held.leases.has(owner));
    if (leaving.length === 0) return false;
    const text = held.leases.textWithout(leaving);
    if (text === undefined) return this.#delete(held);
    await this.#blobs.writeOwners(held.blob.name, text);
    held.leases.drop(leaving);
    return false;
  }

  async #delete(held: Held): Promise<boolean> {
    const { name } = held.blob;
    this.#held.delete(name); // first, so that nobody opens what is half gone
    this.#heldBytes -= sizeOf(held.blob);
    try {
      await this.#blobs.remove(name);
      return true;
    } catch (error) {
      this.#add(held);
      throw error;
    }
  }

  #add(held: Held): void {
    this.#held.set(held.blob.name, held);
    this.#heldBytes += sizeOf(held.blob);
    this.#alarm.set(held.leases.earliestEndMs);
  }

  #find(name: string): Held {
    const held = this.#held.get(name);
    if (held === undefined)
      throw new KofnError('NOT_FOUND', `this worker holds no shard "${short(name)}"; put it first`);
    return held;
  }
}
