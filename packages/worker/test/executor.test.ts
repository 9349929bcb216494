import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { float32, systemClock } from '@kofn/core';
import { shardName, type ShardFiles } from '@kofn/wire';
import { RunWatch } from '../src/inference/run-watch.js';
import { Executor, SESSION_BYTES } from '../src/inference/executor.js';
import { FsBlobStore } from '../src/store/fs-blob-store.js';
import { ShardStore } from '../src/store/shard-store.js';
import { scaleShard, ScaleEngine } from './support/scale-engine.js';
import { temporaryFolder } from './support/temporary.js';

const x = float32([1, 2], Float32Array.of(1, 2));
/** Shards of one size, so that the limit is a count. */
const SHARDS = [2, 3, 4, 5].map(scale => scaleShard(scale, new Uint8Array(1000)));
const SLOT_BYTES = SHARDS[0]!.model.byteLength + 1000 + SESSION_BYTES;

async function setup(options: { room: number }) {
  const folder = await temporaryFolder();
  const store = await ShardStore.open(await FsBlobStore.open(folder.path), { diskLimitBytes: 2 ** 30 });
  const put = async ({ name, model, weights }: ShardFiles) => {
    const source = async function* () {
      yield await Promise.resolve(Buffer.concat([model, weights]));
    };
    await store.put({ name, modelBytes: model.byteLength, weightsBytes: weights.byteLength }, source());
    return name;
  };
  const names = [];
  for (const shard of SHARDS) names.push(await put(shard));
  const engine = new ScaleEngine();
  const executor = new Executor({
    engine,
    store,
    memoryLimitBytes: options.room * SLOT_BYTES,
    threads: 1,
    watch: new RunWatch(systemClock),
  });
  const [a = '', b = '', c = '', d = ''] = names;
  return { executor, engine, store, put, a, b, c, d, [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose]() };
}

describe('Executor', () => {
  it('opens a shard when it is first used, and once', async () => {
    await using t = await setup({ room: 4 });
    assert.deepEqual(t.engine.opened, []);
    const runs = await Promise.all([1, 2, 3].map(() => t.executor.run(t.a, { x })));
    assert.deepEqual(
      runs.map(({ y }) => [...(y!.data as Float32Array)]),
      [
        [2, 4],
        [2, 4],
        [2, 4],
      ],
    );
    assert.deepEqual(t.engine.opened, [t.a]);
    assert.equal(t.executor.usedBytes, SLOT_BYTES);
  });

  it('closes the session unused for longest when memory is short', async () => {
    await using t = await setup({ room: 2 });
    await t.executor.run(t.a, { x });
    await t.executor.run(t.b, { x });
    await t.executor.run(t.a, { x });
    await t.executor.run(t.c, { x }); // b was unused for longest
    assert.deepEqual(t.engine.closed, [t.b]);
    await t.executor.run(t.b, { x }); // then a
    assert.deepEqual(t.engine.closed, [t.b, t.a]);
    assert.equal(t.executor.usedBytes, 2 * SLOT_BYTES);
    assert.deepEqual(t.executor.counters, { opened: 4, closed: 2 });
    await t.executor[Symbol.asyncDispose]();
    assert.equal(t.executor.usedBytes, 0);
  });

  it('never closes a session that runs: the next one waits for it', async () => {
    await using t = await setup({ room: 1 });
    await t.executor.run(t.a, { x });
    t.engine.hold();
    const running = t.executor.run(t.a, { x });
    await t.engine.started(2);
    const waiting = t.executor.run(t.b, { x });
    const controller = new AbortController();
    const given = assert.rejects(t.executor.run(t.c, { x }, controller.signal), { code: 'CANCELLED' });
    await t.executor.close(t.a); // an unload while it runs waits as well
    controller.abort();
    await given;
    assert.deepEqual([t.engine.opened, t.engine.closed], [[t.a], []]);
    t.engine.release();
    assert.deepEqual([...((await running)['y']!.data as Float32Array)], [2, 4]);
    assert.deepEqual([...((await waiting)['y']!.data as Float32Array)], [3, 6]);
    assert.deepEqual([t.engine.opened, t.engine.closed], [[t.a, t.b], [t.a]]);
  });

  it('refuses a shard that alone is over the limit, and gives back what a failed one took', async () => {
    await using t = await setup({ room: 1 });
    const large = await t.put(scaleShard(9, new Uint8Array(4000)));
    await assert.rejects(t.executor.run(large, { x }), {
      code: 'RESOURCE_EXHAUSTED',
      message: new RegExp(`${SLOT_BYTES}.*--max-memory`),
    });
    const model = Buffer.from('{}');
    const weights = new Uint8Array();
    const name = await t.put({ name: shardName(model, weights), model, weights });
    for (let attempt = 0; attempt < 2; attempt++) {
      await assert.rejects(t.executor.run(name, { x }), { code: 'INVALID_MODEL' });
    }
    assert.equal(t.executor.usedBytes, 0);
    await assert.rejects(t.executor.run('f'.repeat(64), { x }), { code: 'NOT_FOUND' });
    await t.executor.run(t.d, { x });
  });

  it('keeps the session when a run fails', async () => {
    await using t = await setup({ room: 1 });
    await assert.rejects(t.executor.run(t.a, {}), { code: 'INVALID_ARGUMENT' });
    await t.executor.run(t.a, { x });
    assert.deepEqual(t.engine.opened, [t.a]);
  });
});
