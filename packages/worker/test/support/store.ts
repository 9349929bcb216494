/** A ShardStore on disk under a clock that the test moves, with what tests of ownership ask of it. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Owner, ShardFiles } from '@kofn/wire';
import type { BlobStore, StoredBlob } from '../../src/store/blob-store.js';
import { FsBlobStore } from '../../src/store/fs-blob-store.js';
import { ShardStore } from '../../src/store/shard-store.js';
import { temporaryFolder } from './temporary.js';
import { TestClock } from './test-clock.js';

export const HOUR_MS = 3600 * 1000;

export function owner(cluster: string, version = 1, model = 'mnist'): Owner {
  return { cluster, model, version };
}

export function header({ name, model, weights }: ShardFiles): StoredBlob {
  return { name, modelBytes: model.byteLength, weightsBytes: weights.byteLength };
}

export async function* chunks(
  { model, weights }: ShardFiles,
  chunkBytes = 7,
  until = Infinity,
): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.concat([model, weights]).subarray(0, until);
  for (let at = 0; at < bytes.byteLength; at += chunkBytes) {
    yield await Promise.resolve(bytes.subarray(at, at + chunkBytes));
  }
}

export class OwnedStore implements AsyncDisposable {
  readonly clock = new TestClock();
  readonly dataDir: string;
  readonly #folder: AsyncDisposable;
  readonly #wrap: (blobs: BlobStore) => BlobStore;
  #store!: ShardStore;
  #gone: string[] = [];
  #watchers: (() => void)[] = [];

  private constructor(folder: AsyncDisposable & { path: string }, wrap: (blobs: BlobStore) => BlobStore) {
    this.#folder = folder;
    this.dataDir = folder.path;
    this.#wrap = wrap;
  }

  /** `wrap` may stand between the store and its blobs. */
  static async open(wrap = (blobs: BlobStore) => blobs): Promise<OwnedStore> {
    const t = new OwnedStore(await temporaryFolder(), wrap);
    await t.#start();
    return t;
  }

  get store(): ShardStore {
    return this.#store;
  }

  /** Ends the store and opens another on the same data, `between` the two. */
  async restart(between: () => Promise<void> = () => Promise.resolve()): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
    await between();
    await this.#start();
  }

  put(shard: ShardFiles, by?: Owner): Promise<{ present: boolean }> {
    return this.#store.put(header(shard), chunks(shard, 4096), { owner: by });
  }

  /** Clusters that claim the shard, in order; undefined when it is not held. */
  ownersOf({ name }: ShardFiles): string[] | undefined {
    const held = this.#store.list().find(shard => shard.name === name);
    return held?.owners.map(({ cluster }) => cluster).sort();
  }

  /** Names of the shards whose bytes went, once there are `count` since the start. */
  async gone(count: number): Promise<string[]> {
    while (this.#gone.length < count) await new Promise<void>(resolve => this.#watchers.push(resolve));
    return this.#gone;
  }

  /** What lies in the shard's folder; empty when there is none. */
  async files({ name }: ShardFiles): Promise<string[]> {
    return (await readdir(path.join(this.dataDir, 'shards', name)).catch(() => [])).sort();
  }

  ownersFile({ name }: ShardFiles): string {
    return path.join(this.dataDir, 'shards', name, 'owners.json');
  }

  async ownersText(shard: ShardFiles): Promise<string | undefined> {
    return readFile(this.ownersFile(shard), 'utf8').catch(() => undefined);
  }

  async #start(): Promise<void> {
    const blobs = this.#wrap(await FsBlobStore.open(this.dataDir));
    this.#store = await ShardStore.open(blobs, { diskLimitBytes: 2 ** 30, clock: this.clock });
    this.#gone = [];
    this.#store.onGone(name => {
      this.#gone.push(name);
      for (const watcher of this.#watchers.splice(0)) watcher();
      return Promise.resolve();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#store[Symbol.asyncDispose]();
    await this.#folder[Symbol.asyncDispose]();
  }
}
