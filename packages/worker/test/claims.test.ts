import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'mocha';
import { float32 } from '@kofn/core';
import { codecs, connectChannel, METHODS, PROTOCOL_VERSION, WorkerClient, type MethodPath } from '@kofn/wire';
import { FsBlobStore } from '../src/store/fs-blob-store.js';
import { WorkerServer } from '../src/server/server.js';
import { startWorker } from '../src/start.js';
import { startRunning, x, type Running } from './support/running.js';
import { scaleShard, ScaleEngine } from './support/scale-engine.js';
import { HOUR_MS, owner } from './support/store.js';
import { temporaryFolder } from './support/temporary.js';
import { TestClock } from './support/test-clock.js';

const double = scaleShard(2, new Uint8Array(3 * 2 ** 20));
const triple = scaleShard(3);
const missing = 'f'.repeat(64);
const [a, b] = [owner('a'), owner('b')];
const blockOf = (layer: string, block: number) => ({ layers: [layer], code: 'sum', k: 2, r: 1, block });

async function ownersOf({ client }: Running, name: string) {
  return (await client.inventory()).shards.find(shard => shard.name === name)?.owners;
}

describe('claims over gRPC', () => {
  it('Put claims, also what is present; the inventory says for whom', async () => {
    await using t = await startRunning();
    assert.deepEqual(await t.client.put(double, { owner: a }), { present: false });
    assert.deepEqual(await t.client.put(double, { owner: b }), { present: true });
    await t.client.put(triple);
    assert.deepEqual(await ownersOf(t, double.name), [a, b]);
    assert.deepEqual(await ownersOf(t, triple.name), []);
    assert.equal((await t.client.inventory()).protocolVersion, PROTOCOL_VERSION);
    assert.match(await t.worker.server.metrics.metrics(), /^kofn_worker_shard_claims 3$/m);
  });

  it('Claim claims what is there and answers what is not', async () => {
    await using t = await startRunning();
    await t.client.put(double, { owner: a });
    assert.deepEqual(await t.client.claim([missing, double.name, 'no hash'], b), [missing, 'no hash']);
    assert.deepEqual(await ownersOf(t, double.name), [a, b]);
    assert.deepEqual(await t.client.claim([], b), []);
    assert.deepEqual(await t.client.claim([double.name], b), []);
    assert.deepEqual(await ownersOf(t, double.name), [a, b]);
  });

  it('Remove of one owner keeps the bytes of two, of both it frees them', async () => {
    await using t = await startRunning();
    await t.client.put(double, { owner: a });
    await t.client.put(double, { owner: b });
    const { diskUsedBytes } = await t.client.inventory();
    assert.deepEqual(await t.infer(double.name), [2, 4]);
    assert.deepEqual(await t.client.remove([double.name, missing], { owner: a }), []);
    assert.deepEqual(await ownersOf(t, double.name), [b]);
    assert.equal((await t.client.inventory()).diskUsedBytes, diskUsedBytes);
    assert.deepEqual(await t.infer(double.name), [2, 4]);
    assert.deepEqual(t.engine.closed, []);
    assert.deepEqual(await t.client.remove([double.name], { owner: b }), [double.name]);
    assert.equal((await t.client.inventory()).diskUsedBytes, 0);
    assert.deepEqual(await readdir(path.join(t.worker.dataDir, 'shards')), []);
    assert.deepEqual(t.engine.closed, [double.name]);
    await assert.rejects(t.infer(double.name), { code: 'NOT_FOUND' });
  });

  it('Remove without names drops all that an owner claims, without an owner whatever anybody claims', async () => {
    await using t = await startRunning();
    for (const shard of [double, triple]) await t.client.put(shard, { owner: a });
    await t.client.claim([triple.name], b);
    assert.deepEqual(await t.client.remove([], { owner: a }), [double.name]);
    assert.deepEqual(await ownersOf(t, triple.name), [b]);
    assert.deepEqual(await t.client.remove([]), []);
    assert.deepEqual(await t.client.remove([triple.name]), [triple.name]);
    assert.deepEqual((await t.client.inventory()).shards, []);
  });

  it('closes the session of a shard that is given up while it runs when the run ends', async () => {
    await using t = await startRunning();
    await t.client.put(double, { owner: a });
    await t.infer(double.name); // opens it
    t.engine.hold();
    const running = t.infer(double.name);
    await t.engine.started(2);
    assert.deepEqual(await t.client.remove([double.name], { owner: a }), [double.name]);
    assert.deepEqual(t.engine.closed, []);
    t.engine.release();
    assert.deepEqual(await running, [2, 4]);
    while (t.engine.closed.length === 0) await t.client.live();
    assert.deepEqual(t.engine.closed, [double.name]);
  });

  it('keeps the owners, and what it is to each, when the worker starts again', async () => {
    await using t = await startRunning();
    await t.client.put({ ...double, block: blockOf('conv1', 0) }, { owner: a });
    await t.client.claim([double.name], b);
    await t.client.put({ ...double, block: blockOf('conv2', 1) }, { owner: b }); // it is there already
    for (let i = 0; i < 2; i++) await t.client.claim([double.name], a, { block: blockOf('conv3', 2) });
    await t.client.claim([double.name], a);
    const uses = [
      { owner: a, block: blockOf('conv1', 0) },
      { owner: a, block: blockOf('conv3', 2) },
      { owner: b, block: blockOf('conv2', 1) },
    ];
    assert.deepEqual((await t.client.inventory()).shards[0]!.uses, uses);
    const { dataDir } = t.worker;
    await t.worker.close();
    await using again = await startWorker({ listen: '127.0.0.1:0', dataDir }, { engine: new ScaleEngine() });
    await using channel = connectChannel(again.address);
    const client = await WorkerClient.open(channel);
    const { shards, events } = await client.inventory();
    assert.deepEqual([shards[0]!.owners, shards[0]!.uses], [[a, b], uses]);
    assert.deepEqual(
      events.map(({ text }) => text),
      ['started, with 1 shard on its disk'],
    );
    await client.remove([double.name], { owner: a });
    assert.deepEqual((await client.inventory()).shards[0]!.uses, uses.slice(2));
  });

  it('refuses owners and requests that are over a limit, before anything is done', async () => {
    await using t = await startRunning();
    await t.client.put(double, { owner: a });
    const { claimRequest, removeRequest, putRequest } = codecs;
    const send = (method: MethodPath, request: Uint8Array) => t.channel.unary(method, request);
    const names = [double.name];
    const header = { name: double.name, model_bytes: double.model.byteLength, weights_bytes: 0 };
    for (const wrong of [owner(''), owner('c'.repeat(201)), owner('c', 1, 'm'.repeat(201))]) {
      const refused = { code: 'INVALID_ARGUMENT', message: /of an owner/ };
      await assert.rejects(send(METHODS.claim, claimRequest.encode({ names, owner: { ...wrong } })), refused);
      await assert.rejects(send(METHODS.remove, removeRequest.encode({ names, owner: { ...wrong } })), refused);
      const put = putRequest.encode({ header: { ...header, owner: { ...wrong } } });
      await assert.rejects(t.channel.clientStream(METHODS.put, only(put)), refused);
    }
    const right = blockOf('conv1', 2);
    for (const wrong of [{ layers: [] }, { layers: ['l'.repeat(4000)] }, { code: '' }, { k: 0 }, { block: 3 }]) {
      const refused = { code: 'INVALID_ARGUMENT', message: /the block of a shard/ };
      const block = { ...right, ...wrong };
      await assert.rejects(send(METHODS.claim, claimRequest.encode({ names, owner: { ...a }, block })), refused);
      const put = putRequest.encode({ header: { ...header, owner: { ...a }, block } });
      await assert.rejects(t.channel.clientStream(METHODS.put, only(put)), refused);
    }
    await assert.rejects(send(METHODS.claim, claimRequest.encode({ names })), { code: 'INVALID_ARGUMENT' });
    await assert.rejects(t.client.claim(Array<string>(10_001).fill('a'), a), {
      code: 'INVALID_ARGUMENT',
      message: /10001 shards.*10000/,
    });
    await assert.rejects(t.client.remove(Array<string>(10_001).fill('a'), { owner: a }), { code: 'INVALID_ARGUMENT' });
    const large = { code: 'RESOURCE_EXHAUSTED', message: /1048576/ };
    const long = ['n'.repeat(2 ** 20)];
    await assert.rejects(t.client.claim(long, a), large);
    await assert.rejects(t.client.remove(long), large);
    await assert.rejects(
      t.channel.clientStream(METHODS.put, only(putRequest.encode({ header: { ...header, name: long[0]! } }))),
      large,
    );
    assert.deepEqual(await ownersOf(t, double.name), [a]);
    assert.equal((await t.client.claim(Array<string>(10_000).fill(missing), a)).length, 10_000); // as many as may be
  });
});

describe('the end of a lease on a worker', () => {
  it('closes the session, when its run ends, and frees the bytes', async () => {
    await using folder = await temporaryFolder();
    await using blobs = await FsBlobStore.open(folder.path);
    const [clock, engine] = [new TestClock(), new ScaleEngine()];
    const limits = { threads: 1, memoryLimitBytes: 2 ** 30, diskLimitBytes: 2 ** 30, maxQueue: 8, cores: 1 };
    const parts = { engine, blobs, clock, workerId: 'w', processId: 'p', version: '1', ...limits };
    await using server = await WorkerServer.open(parts);
    const context = { signal: new AbortController().signal, peer: 'test' };
    const { name, model } = triple;
    const header = { name, model_bytes: model.byteLength, weights_bytes: 0, owner: { ...a } };
    const messages = async function* () {
      yield await Promise.resolve(codecs.putRequest.encode({ header }));
      yield codecs.putRequest.encode({ data: model });
    };
    await server.handlers.clientStream.get(METHODS.put)!(messages(), context);
    await server.executor.run(name, { x: float32([1, 2], x.data.slice()) });
    engine.hold();
    const running = server.executor.run(name, { x: float32([1, 2], x.data.slice()) });
    await engine.started(2);
    clock.advance(24 * HOUR_MS);
    while (server.executor.isOpen(name)) await new Promise(resolve => setImmediate(resolve));
    assert.deepEqual([server.store.has(name), engine.closed], [false, []]);
    assert.deepEqual(await readdir(path.join(folder.path, 'shards')), []);
    engine.release();
    assert.deepEqual([...((await running)['y']!.data as Float32Array)], [3, 6]);
    assert.deepEqual(engine.closed, [name]);
    const removed = server.handlers.unary.get(METHODS.remove)!(codecs.removeRequest.encode({ names: [name] }), context);
    assert.deepEqual(codecs.removeResponse.decode(await removed).removed, []);
    assert.equal(clock.armed, 0);
  });
});

async function* only(message: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(message);
}
