/**
 * The shards that this worker holds, by their hash. Below it a BlobStore keeps the bytes; server.ts puts and removes,
 * executor.ts opens.
 *
 * Invariants
 * 1. A shard is held only if all of it arrived and hashed to its name; nothing is left of one that did not.
 * 2. What does not hash to its name when it is opened is removed and never run.
 * 3. Held bytes and bytes on their way never exceed the limit together.
 */
import { KofnError, throwIfAborted } from '@kofn/core';
import { shardHash } from '@kofn/wire';
import { BLOB_FILES, type BlobStore, type StoredBlob } from './blob-store.js';

const NAME = /^[0-9a-f]{64}$/;

export interface HeldShard {
  readonly name: string;
  readonly bytes: number;
}

export class ShardStore {
  readonly diskLimitBytes: number;
  readonly #blobs: BlobStore;
  readonly #held = new Map<string, StoredBlob>();
  readonly #removals = new Map<string, Promise<void>>();
  #heldBytes = 0;
  #incomingBytes = 0;

  private constructor(blobs: BlobStore, diskLimitBytes: number) {
    this.#blobs = blobs;
    this.diskLimitBytes = diskLimitBytes;
  }

  /** With what `blobs` holds already, which is kept even when it is over the limit. Throws STORAGE. */
  static async open(blobs: BlobStore, options: { diskLimitBytes: number }): Promise<ShardStore> {
    const store = new ShardStore(blobs, options.diskLimitBytes);
    for (const blob of await blobs.list()) if (NAME.test(blob.name)) store.#add(blob);
    return store;
  }

  get diskUsedBytes(): number {
    return this.#heldBytes;
  }

  list(): HeldShard[] {
    return [...this.#held.values()].map(blob => ({ name: blob.name, bytes: sizeOf(blob) }));
  }

  has(name: string): boolean {
    return this.#held.has(name);
  }

  /** Bytes of model and weights. Throws NOT_FOUND. */
  bytesOf(name: string): number {
    return sizeOf(this.#find(name));
  }

  /**
   * Takes a shard from `chunks`: the model's bytes, then the weights', in pieces of any size. `present` says that it was
   * held already or arrived another way; the rest is then not read. Throws INVALID_ARGUMENT (name or sizes),
   * RESOURCE_EXHAUSTED (limit or disk), DATA_LOSS (cut off, or another hash), PROTOCOL (more than announced), STORAGE.
   */
  async put(shard: StoredBlob, chunks: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<{ present: boolean }> {
    checkHeader(shard);
    if (this.has(shard.name)) return { present: true };
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
          if (this.has(shard.name)) return { present: true };
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
        await this.#removals.get(shard.name); // the files of an earlier one must be gone, or they would stay
        await draft.commit(shard.name);
        if (this.has(shard.name)) return { present: true };
        this.#add(shard);
        return { present: false };
      } finally {
        await draft.discard();
      }
    } finally {
      this.#incomingBytes -= bytes;
    }
  }

  /**
   * Where the shard lies, after its bytes were hashed. Throws NOT_FOUND, STORAGE, or DATA_LOSS: then it has been removed.
   */
  async open(name: string): Promise<string> {
    const blob = this.#find(name);
    const hash = shardHash(blob.modelBytes);
    for (const file of BLOB_FILES) for await (const chunk of this.#blobs.read(name, file)) hash.update(chunk);
    try {
      checkHash(name, hash.digest('hex'), 'it was removed here; put it again');
    } catch (error) {
      await this.remove(name);
      throw error;
    }
    return this.#blobs.location(name);
  }

  /** Whether it was held. Throws STORAGE. */
  async remove(name: string): Promise<boolean> {
    const blob = this.#held.get(name);
    if (blob === undefined) return false;
    this.#held.delete(name);
    this.#heldBytes -= sizeOf(blob);
    const removal = this.#blobs.remove(name);
    this.#removals.set(name, removal);
    try {
      await removal;
    } finally {
      this.#removals.delete(name);
    }
    return true;
  }

  #add(blob: StoredBlob): void {
    this.#held.set(blob.name, blob);
    this.#heldBytes += sizeOf(blob);
  }

  #find(name: string): StoredBlob {
    const blob = this.#held.get(name);
    if (blob === undefined)
      throw new KofnError('NOT_FOUND', `this worker holds no shard "${short(name)}"; put it first`);
    return blob;
  }
}

function sizeOf({ modelBytes, weightsBytes }: StoredBlob): number {
  return modelBytes + weightsBytes;
}

/** Enough of a hash to tell shards apart in a message. */
function short(name: string): string {
  return name.length > 24 ? `${name.slice(0, 12)}…` : name;
}

function checkHeader({ name, modelBytes, weightsBytes }: StoredBlob): void {
  if (!NAME.test(name)) {
    throw new KofnError('INVALID_ARGUMENT', `shard name "${short(name)}": must be a SHA-256 in 64 hexadecimal digits`);
  }
  for (const [what, size, least] of [
    ['model_bytes', modelBytes, 1],
    ['weights_bytes', weightsBytes, 0],
  ] as const) {
    if (Number.isSafeInteger(size) && size >= least) continue;
    throw new KofnError(
      'INVALID_ARGUMENT',
      `${what} ${size} of shard ${short(name)}: must be from ${least} to 2^53 - 1`,
    );
  }
}

function checkHash(name: string, actual: string, advice: string): void {
  if (actual === name) return;
  throw new KofnError('DATA_LOSS', `the bytes of shard ${short(name)} hash to ${short(actual)}: ${advice}`);
}
