import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'mocha';
import { KofnError } from '@kofn/core';
import { FsBlobStore } from '../src/store/fs-blob-store.js';
import { ShardStore } from '../src/store/shard-store.js';
import { scaleShard } from './support/scale-engine.js';
import { chunks, header } from './support/store.js';
import { temporaryFolder } from './support/temporary.js';

const GIB = 2 ** 30;
const shard = scaleShard(
  2,
  Uint8Array.from({ length: 5000 }, (_, i) => i),
);
const other = scaleShard(3, new Uint8Array(100));

async function open(dataDir: string, diskLimitBytes = GIB) {
  return ShardStore.open(await FsBlobStore.open(dataDir), { diskLimitBytes });
}

/** Everything under tmp and shards, as paths. */
async function files(dataDir: string): Promise<string[]> {
  const all = await Promise.all(
    ['tmp', 'shards'].map(async folder =>
      (await readdir(path.join(dataDir, folder), { recursive: true })).map(file => path.join(folder, file)),
    ),
  );
  return all.flat().sort();
}

describe('ShardStore on disk', () => {
  it('keeps a shard as model.onnx and weights.bin, across restarts', async () => {
    await using folder = await temporaryFolder();
    const store = await open(folder.path);
    assert.deepEqual(await store.put(header(shard), chunks(shard)), { present: false });
    assert.deepEqual(await store.put(header(shard), neverRead()), { present: true });
    const again = await open(folder.path);
    const bytes = shard.model.byteLength + shard.weights.byteLength;
    assert.deepEqual(again.list(), [{ name: shard.name, bytes, owners: [], uses: [] }]);
    assert.equal(again.diskUsedBytes, bytes);
    const location = await again.open(shard.name);
    assert.deepEqual(await readFile(path.join(location, 'model.onnx')), Buffer.from(shard.model));
    assert.deepEqual(await readFile(path.join(location, 'weights.bin')), Buffer.from(shard.weights));
    assert.equal(await again.remove(shard.name), true);
    assert.equal(await again.remove(shard.name), false);
    assert.deepEqual(await files(folder.path), []);
    await assert.rejects(again.open(shard.name), { code: 'NOT_FOUND' });
  });

  it('takes chunks of any size', async () => {
    for (const chunkBytes of [1, shard.model.byteLength, 4096, 2 ** 20]) {
      await using folder = await temporaryFolder();
      const store = await open(folder.path);
      const small = { ...shard, ...scaleShard(5, shard.weights.subarray(0, 50)) };
      await store.put(header(small), chunks(small, chunkBytes));
      await store.open(small.name);
    }
  });

  it('keeps nothing of a put that stops half-way, however it stops', async () => {
    await using folder = await temporaryFolder();
    const store = await open(folder.path);
    const broken = async function* () {
      yield* chunks(shard, 100, 1000);
      throw new KofnError('CANCELLED', 'the caller is gone');
    };
    await assert.rejects(store.put(header(shard), broken()), { code: 'CANCELLED' });
    await assert.rejects(store.put(header(shard), chunks(shard, 100, 1000)), {
      code: 'DATA_LOSS',
      message: /1000 of \d+ bytes/,
    });
    const controller = new AbortController();
    const aborted = async function* () {
      yield* chunks(shard, 100, 1000);
      controller.abort();
      yield new Uint8Array(1);
    };
    await assert.rejects(store.put(header(shard), aborted(), { signal: controller.signal }), { code: 'CANCELLED' });
    const long = async function* () {
      yield* chunks(shard);
      yield Uint8Array.of(1);
    };
    await assert.rejects(store.put(header(shard), long()), { code: 'PROTOCOL' });
    await assert.rejects(store.put({ ...header(shard), name: other.name }, chunks(shard)), {
      code: 'DATA_LOSS',
      message: /hash to/,
    });
    assert.deepEqual(await files(folder.path), []);
    assert.deepEqual([store.list(), store.diskUsedBytes], [[], 0]);
    assert.deepEqual(await store.put(header(shard), chunks(shard)), { present: false }); // nothing was left reserved
  });

  it('refuses what goes over the limit before it writes', async () => {
    await using folder = await temporaryFolder();
    const bytes = shard.model.byteLength + shard.weights.byteLength;
    const store = await open(folder.path, bytes + 10);
    await store.put(header(shard), chunks(shard));
    await assert.rejects(store.put(header(other), neverRead()), {
      code: 'RESOURCE_EXHAUSTED',
      message: new RegExp(`${bytes} of the ${bytes + 10}.*--max-disk`),
    });
    await store.remove(shard.name);
    await store.put(header(other), chunks(other));
  });

  it('counts what is on its way, so that two puts together stay within the limit', async () => {
    await using folder = await temporaryFolder();
    const store = await open(folder.path, 5200);
    let resume!: () => void;
    const waits = new Promise<void>(resolve => (resume = resolve));
    const slow = async function* () {
      await waits;
      yield* chunks(shard);
    };
    const first = store.put(header(shard), slow());
    await assert.rejects(store.put(header(scaleShard(9, new Uint8Array(300))), neverRead()), {
      code: 'RESOURCE_EXHAUSTED',
    });
    resume();
    await first;
  });

  it('takes the same shard from two at once', async () => {
    await using folder = await temporaryFolder();
    const store = await open(folder.path);
    const puts = [7, 11, 64].map(size => store.put(header(shard), chunks(shard, size)));
    assert.equal((await Promise.all(puts)).filter(({ present }) => !present).length, 1);
    assert.equal(store.diskUsedBytes, shard.model.byteLength + shard.weights.byteLength);
    await store.open(shard.name);
    assert.equal((await files(folder.path)).length, 3);
  });

  it('removes a shard with a flipped bit instead of opening it', async () => {
    for (const file of ['model.onnx', 'weights.bin']) {
      await using folder = await temporaryFolder();
      const store = await open(folder.path);
      await store.put(header(shard), chunks(shard));
      const damaged = path.join(folder.path, 'shards', shard.name, file);
      const bytes = await readFile(damaged);
      bytes[5]! ^= 1;
      await writeFile(damaged, bytes);
      await assert.rejects(store.open(shard.name), { code: 'DATA_LOSS', message: /removed/ });
      assert.deepEqual([store.has(shard.name), await files(folder.path)], [false, []]);
      assert.deepEqual(await store.put(header(shard), chunks(shard)), { present: false });
    }
  });

  it('refuses names that are no hash, and sizes that are none', async () => {
    await using folder = await temporaryFolder();
    const store = await open(folder.path);
    for (const name of ['', '../../etc', shard.name.toUpperCase(), `${shard.name}/`]) {
      await assert.rejects(store.put({ ...header(shard), name }, neverRead()), { code: 'INVALID_ARGUMENT' });
    }
    for (const sizes of [{ modelBytes: 0 }, { weightsBytes: -1 }, { weightsBytes: 2 ** 60 }]) {
      await assert.rejects(store.put({ ...header(shard), ...sizes }, neverRead()), { code: 'INVALID_ARGUMENT' });
    }
  });

  it('clears what a crash left, and ignores folders that are no shards', async () => {
    await using folder = await temporaryFolder();
    await mkdir(path.join(folder.path, 'tmp', '1'), { recursive: true });
    await writeFile(path.join(folder.path, 'tmp', '1', 'model.onnx'), 'half');
    await mkdir(path.join(folder.path, 'shards', 'notes'), { recursive: true });
    await mkdir(path.join(folder.path, 'shards', other.name), { recursive: true });
    const store = await open(folder.path);
    assert.deepEqual(store.list(), []);
    assert.deepEqual(await readdir(path.join(folder.path, 'tmp')), []);
  });

  it('says which path it cannot use, and why', async () => {
    await using folder = await temporaryFolder();
    const file = path.join(folder.path, 'file');
    await writeFile(file, '');
    await assert.rejects(FsBlobStore.open(file), { code: 'STORAGE', message: new RegExp(`${file}.*--data-dir`) });
    const store = await open(path.join(folder.path, 'data'));
    await writeFile(path.join(folder.path, 'data', 'tmp', '1'), ''); // in the way of the next draft
    await assert.rejects(store.put(header(shard), chunks(shard)), { code: 'STORAGE', message: /tmp/ });
    await store.put(header(shard), chunks(shard));
  });

  it('keeps its data directory from a second worker while the first lives', async () => {
    await using folder = await temporaryFolder();
    const stat = await readFile(`/proc/${process.ppid}/stat`, 'utf8').catch(() => undefined);
    const started = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    await writeFile(path.join(folder.path, 'worker.pid'), `${process.ppid} ${started ?? ''}`.trim());
    await assert.rejects(FsBlobStore.open(folder.path), {
      code: 'INVALID_ARGUMENT',
      message: new RegExp(`process ${process.ppid} uses it`),
    });
    // The same process id, another process: the first worker is gone.
    await writeFile(path.join(folder.path, 'worker.pid'), `${process.ppid} 1`);
    await using store = await FsBlobStore.open(folder.path);
    assert.match(await readFile(path.join(store.dataDir, 'worker.pid'), 'utf8'), new RegExp(`^${process.pid}\\b`));
  });
});

/** A source that fails the test when it is read. */
function neverRead(): AsyncIterable<Uint8Array> {
  return {
    [Symbol.asyncIterator]: () => {
      throw new assert.AssertionError({ message: 'the chunks were read' });
    },
  };
}
