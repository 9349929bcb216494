/**
 * Blobs on disk (blob-store.ts is the contract): DATA_DIR/shards/NAME/{model.onnx,weights.bin,owners.json}.
 *
 * Invariants
 * 1. A draft, of a blob or of a text, lives under DATA_DIR/tmp, which is emptied at start, and gets its name by one
 *    rename after fsync.
 * 2. One worker a data directory (folder-lock.ts).
 */
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat, writeFile, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { BLOB_FILES, type BlobDraft, type BlobFile, type BlobStore, type StoredBlob } from './blob-store.js';
import { ignoreMissing, releaseFolder, takeFolder } from './folder-lock.js';
import { storageError } from './storage-error.js';

const OWNERS_FILE = 'owners.json';
const READ_BYTES = 2 ** 20;

export class FsBlobStore implements BlobStore, AsyncDisposable {
  readonly dataDir: string;
  readonly #shards: string;
  readonly #tmp: string;
  #drafts = 0;

  private constructor(dataDir: string) {
    this.dataDir = dataDir;
    this.#shards = path.join(dataDir, 'shards');
    this.#tmp = path.join(dataDir, 'tmp');
  }

  /** Takes `dataDir`, making it when it is missing. Throws STORAGE, or INVALID_ARGUMENT when another worker has it. */
  static async open(dataDir: string): Promise<FsBlobStore> {
    const store = new FsBlobStore(path.resolve(dataDir));
    return guard(store.dataDir, async () => {
      await mkdir(store.#shards, { recursive: true });
      await takeFolder(store.dataDir);
      await rm(store.#tmp, { recursive: true, force: true });
      await mkdir(store.#tmp);
      return store;
    });
  }

  /** The text of DATA_DIR/`name`, or of `create()`, which is then kept there. */
  async remember(name: string, create: () => string): Promise<string> {
    const file = path.join(this.dataDir, name);
    return guard(file, async () => {
      const kept = await readFile(file, 'utf8').catch(ignoreMissing);
      if (kept !== undefined && kept.trim() !== '') return kept.trim();
      const text = create();
      const draft = path.join(this.#tmp, name);
      await writeFile(draft, `${text}\n`, { flush: true });
      await rename(draft, file);
      return text;
    });
  }

  async list(): Promise<StoredBlob[]> {
    return guard(this.#shards, async () => {
      const blobs: StoredBlob[] = [];
      for (const name of await readdir(this.#shards)) {
        const sizes = await Promise.all(BLOB_FILES.map(file => stat(this.#file(name, file)).catch(ignoreMissing)));
        const [model, weights] = sizes;
        if (model && weights) blobs.push({ name, modelBytes: model.size, weightsBytes: weights.size });
      }
      return blobs;
    });
  }

  async create(): Promise<BlobDraft> {
    const folder = path.join(this.#tmp, String(++this.#drafts));
    return guard(folder, async () => {
      await mkdir(folder);
      const handles = new Map<BlobFile, FileHandle>();
      const closeAll = async () => {
        for (const [file, handle] of handles) {
          handles.delete(file);
          await handle.close();
        }
      };
      const discard = async () => {
        await closeAll();
        await rm(folder, { recursive: true, force: true });
      };
      try {
        for (const file of BLOB_FILES) handles.set(file, await open(path.join(folder, file), 'wx'));
      } catch (error) {
        await discard();
        throw error;
      }
      return {
        write: (file, chunk) =>
          guard(path.join(folder, file), async () => {
            const handle = handles.get(file)!;
            for (let at = 0; at < chunk.byteLength;) at += (await handle.write(chunk, at)).bytesWritten;
          }),
        commit: (name, owners) =>
          guard(this.location(name), async () => {
            if (owners !== undefined) await writeFile(path.join(folder, OWNERS_FILE), owners, { flush: true });
            for (const handle of handles.values()) await handle.sync();
            await closeAll();
            await syncFolder(folder);
            try {
              await rename(folder, this.location(name));
            } catch (error) {
              const { code } = error as NodeJS.ErrnoException;
              if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
              await discard();
              if (owners !== undefined) await this.writeOwners(name, owners);
            }
            await syncFolder(this.#shards);
          }),
        discard: () => guard(folder, discard),
      };
    });
  }

  async *read(name: string, file: BlobFile): AsyncGenerator<Uint8Array> {
    const location = this.#file(name, file);
    try {
      for await (const chunk of createReadStream(location, { highWaterMark: READ_BYTES })) yield chunk as Buffer;
    } catch (error) {
      throw storageError(error, location);
    }
  }

  location(name: string): string {
    return path.join(this.#shards, name);
  }

  async readOwners(name: string): Promise<string | undefined> {
    const file = path.join(this.location(name), OWNERS_FILE);
    return guard(file, () => readFile(file, 'utf8').catch(ignoreMissing));
  }

  async writeOwners(name: string, owners: string): Promise<void> {
    const file = path.join(this.location(name), OWNERS_FILE);
    const draft = path.join(this.#tmp, String(++this.#drafts));
    await guard(file, async () => {
      try {
        await writeFile(draft, owners, { flush: true });
        await rename(draft, file);
      } catch (error) {
        await rm(draft, { force: true });
        throw error;
      }
      await syncFolder(this.location(name));
    });
  }

  async remove(name: string): Promise<void> {
    const doomed = path.join(this.#tmp, String(++this.#drafts));
    await guard(this.location(name), async () => {
      // Away in one step first, so that a crash leaves no half of it.
      const moved = await rename(this.location(name), doomed).then(() => true, ignoreMissing);
      // What cannot be deleted from there is no blob any more, and goes when the next start empties the folder.
      if (moved === true) await rm(doomed, { recursive: true, force: true }).catch(() => undefined);
    });
  }

  /** Gives the data directory back. */
  async [Symbol.asyncDispose](): Promise<void> {
    await releaseFolder(this.dataDir);
  }

  #file(name: string, file: BlobFile): string {
    return path.join(this.location(name), file);
  }
}

async function guard<T>(location: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw storageError(error, location);
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
