import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, it, type Context } from 'mocha';
import { FsBlobStore } from '../src/fs-blob-store.js';
import { ShardStore } from '../src/shard-store.js';
import { scaleShard } from './support/scale-engine.js';
import { temporaryFolder } from './support/temporary.js';

const run = promisify(execFile);

/** A file system of 1 MB, or a skip where this user may not mount one. */
async function smallDisk(context: Context, folder: string) {
  try {
    await run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder]);
  } catch {
    context.skip(); // needs the right to mount a tmpfs
  }
  return { [Symbol.asyncDispose]: async () => void (await run('umount', [folder])) };
}

async function put(store: ShardStore, weightsBytes: number) {
  const { name, model, weights } = scaleShard(2, new Uint8Array(weightsBytes));
  const source = async function* () {
    yield await Promise.resolve(model);
    yield weights;
  };
  return store.put({ name, modelBytes: model.byteLength, weightsBytes }, source());
}

describe('data directory on a disk of its own', () => {
  it('full: RESOURCE_EXHAUSTED with the path, nothing left behind, and smaller shards still fit', async function () {
    await using folder = await temporaryFolder();
    await using _disk = await smallDisk(this, folder.path);
    const store = await ShardStore.open(await FsBlobStore.open(folder.path), { diskLimitBytes: 2 ** 30 });
    await assert.rejects(put(store, 2 ** 21), {
      code: 'RESOURCE_EXHAUSTED',
      message: new RegExp(`no space left for ${folder.path}.*--data-dir`),
    });
    assert.deepEqual(await readdir(path.join(folder.path, 'tmp')), []);
    assert.deepEqual(await put(store, 1000), { present: false });
  });

  it('read-only: STORAGE with the path', async function () {
    await using folder = await temporaryFolder();
    await using _disk = await smallDisk(this, folder.path);
    const store = await ShardStore.open(await FsBlobStore.open(folder.path), { diskLimitBytes: 2 ** 30 });
    await run('mount', ['-o', 'remount,ro', folder.path]);
    const readOnly = { code: 'STORAGE', message: new RegExp(`${folder.path}.*read-only`) };
    await assert.rejects(put(store, 1000), readOnly);
    await assert.rejects(FsBlobStore.open(folder.path), readOnly);
  });
});
