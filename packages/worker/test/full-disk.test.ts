import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, it, type Context } from 'mocha';
import type { Owner } from '@kofn/wire';
import { FsBlobStore } from '../src/store/fs-blob-store.js';
import { LEASE_MS } from '../src/store/leases.js';
import { ShardStore } from '../src/store/shard-store.js';
import { scaleShard } from './support/scale-engine.js';
import { owner } from './support/store.js';
import { temporaryFolder } from './support/temporary.js';
import { TestClock } from './support/test-clock.js';

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

async function put(store: ShardStore, weightsBytes: number, by?: Owner) {
  const { name, model, weights } = scaleShard(2, new Uint8Array(weightsBytes));
  const source = async function* () {
    yield await Promise.resolve(model);
    yield weights;
  };
  return store.put({ name, modelBytes: model.byteLength, weightsBytes }, source(), { owner: by });
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

  it('full: no owner joins or leaves, the claims stay, and the last one still frees the bytes', async function () {
    await using folder = await temporaryFolder();
    await using _disk = await smallDisk(this, folder.path);
    await using store = await ShardStore.open(await FsBlobStore.open(folder.path), { diskLimitBytes: 2 ** 30 });
    const [{ name }, other] = [scaleShard(2, new Uint8Array(1000)), scaleShard(2, new Uint8Array(2000))];
    for (const bytes of [1000, 2000]) await put(store, bytes);
    await store.claim(name, owner('a'));
    const filler = path.join(folder.path, 'filler');
    await assert.rejects(writeFile(filler, new Uint8Array(2 ** 21)), { code: 'ENOSPC' });
    const full = { code: 'RESOURCE_EXHAUSTED', message: /no space left for .*owners\.json/ };
    await assert.rejects(store.claim(name, owner('b')), full);
    await assert.rejects(put(store, 1000, owner('b')), full);
    await assert.rejects(store.remove(name, owner('a')), full);
    assert.equal(await store.claim(name, owner('a')), true); // renewing writes nothing
    const held = store.list().find(shard => shard.name === name);
    assert.deepEqual([held?.owners, await readdir(path.join(folder.path, 'tmp'))], [[owner('a')], []]);
    assert.equal(await store.remove(other.name), true);
    await rm(filler);
    await store.claim(name, owner('b'));
    assert.equal(store.claims, 3);
  });

  it('read-only: a shard that cannot be removed stays held for its owner, and goes later', async function () {
    await using folder = await temporaryFolder();
    await using _disk = await smallDisk(this, folder.path);
    const clock = new TestClock();
    const blobs = await FsBlobStore.open(folder.path);
    await using store = await ShardStore.open(blobs, { diskLimitBytes: 2 ** 30, clock });
    const { name } = scaleShard(2, new Uint8Array(1000));
    await put(store, 1000, owner('a'));
    const used = store.diskUsedBytes;
    await run('mount', ['-o', 'remount,ro', folder.path]);
    const readOnly = { code: 'STORAGE', message: new RegExp(`${name}.*read-only`) };
    await assert.rejects(store.remove(name, owner('a')), readOnly);
    await assert.rejects(store.remove(name), readOnly);
    await assert.rejects(store.claim(name, owner('b')), readOnly);
    assert.deepEqual([store.list()[0]?.owners, store.diskUsedBytes], [[owner('a')], used]);
    await store.open(name);
    clock.advance(LEASE_MS);
    while (clock.armed === 0) await new Promise(resolve => setImmediate(resolve));
    assert.equal(store.has(name), true);
    const gone = new Promise<string>(resolve => store.onGone(which => Promise.resolve(resolve(which))));
    await run('mount', ['-o', 'remount,rw', folder.path]);
    clock.advance(60_000);
    assert.equal(await gone, name);
    assert.deepEqual([await readdir(path.join(folder.path, 'shards')), store.diskUsedBytes], [[], 0]);
  });
});
