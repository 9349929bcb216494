/** Workers that do not take their shards: a full disk, one that cannot be written, a link that breaks in the middle of an upload. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { seededRng, systemClock, type Clock, type Tensors } from '@kofn/core';
import { createEngine } from '@kofn/engine';
import { listenGrpc } from '@kofn/wire';
import { FsBlobStore, startWorker, WorkerServer, type BlobStore, type RunningWorker } from '@kofn/worker';
import { codedLayer, codedModel, connect, type CodeOptions, type ConnectOptions, type DeployProgress } from 'kofn';
import { Link } from 'kofn/measure';
import { after, before, describe, it } from 'mocha';
import { exact, weights } from '../support/dense-layer.js';
import { fails } from '../support/engines.js';
import { drawn, makeModel, runWhole, type ModelSpec } from '../support/onnx-models.js';
import { assertClose } from '../support/single-node.js';
import { untilEvent } from '../support/until-event.js';

/** Less than any shard has. */
const NO_ROOM = 100;
/** Workers 1 and 4 have no room. */
const FULL = [1, 4];

const rng = seededRng(31);
const spec = (): ModelSpec => ({
  nodes: [
    { op: 'MatMul', name: 'first', inputs: ['x', 'w1'], outputs: ['a'] },
    { op: 'Softmax', inputs: ['a'], outputs: ['s'], attributes: { axis: -1 } },
    { op: 'MatMul', name: 'last', inputs: ['s', 'w2'], outputs: ['y'] },
  ],
  inputs: { x: { dtype: 'float32', shape: ['N', 16] } },
  outputs: { y: { dtype: 'float32' } },
  initializers: { w1: drawn([16, 24], () => rng.normal()), w2: drawn([24, 12], () => rng.normal()) },
});
const feeds: Tensors = { x: drawn([2, 16], () => rng.normal()) };

describe('a worker that does not take its shards', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-refusals-'));
  const workers: RunningWorker[] = [];
  let started = 0;
  const start = (maxDiskBytes?: number) =>
    startWorker({ listen: '127.0.0.1:0', dataDir: path.join(folder, String(started++)), maxDiskBytes });
  const connected = (indices: readonly number[], options: Partial<ConnectOptions> = {}) =>
    connect({ workers: indices.map(index => workers[index]!.address), ...options });
  const dense = { type: 'dense', weights } as const;

  before(async () => {
    for (let index = 0; index < 5; index++) workers.push(await start(FULL.includes(index) ? NO_ROOM : undefined));
  });
  after(async () => {
    for (const worker of workers) await worker.close();
    rmSync(folder, { recursive: true });
  });

  it('is gone without as far as parity allows, which plan, health, events and reports say', async () => {
    await using cluster = await connected([0, 1, 2]);
    await using layer = await codedLayer(dense, { cluster, systematicGraceMs: 20_000 });
    const [refusal] = layer.plan.refusals;
    const { address } = workers[1]!;
    assert.deepEqual(
      [refusal!.worker, refusal!.address, refusal!.layers, refusal!.code],
      [1, address, ['layer'], 'RESOURCE_EXHAUSTED'],
    );
    assert.match(refusal!.message, /may store are taken.*--max-disk/);
    const { margin, ready, refusals } = layer.health;
    assert.deepEqual([margin, ready, refusals], [0, 2, layer.plan.refusals]);
    const failed = cluster.events.filter(({ kind }) => kind === 'failed');
    assert.deepEqual(
      failed.map(({ worker }) => worker),
      [1],
    );
    assert.match(
      failed[0]!.message,
      /^worker 1 \(\S+\) did not take its shard of layer: .*--max-disk; model "model" goes on/,
    );
    const { erasures, recovered } = await exact(layer);
    assert.deepEqual([erasures.map(({ worker, code }) => [worker, code]), recovered.lost], [[[1, 'NOT_FOUND']], [1]]);
    assert.match(erasures[0]!.message, /^it did not take its shard: .*--max-disk/);
    assert.equal(workers[1]!.server.queue.counters.started, 0, 'it was asked for nothing');
    assert.match(
      workers[1]!.server.journal.latest.at(-1)!.text,
      /^did not take 1 shard of model \(RESOURCE_EXHAUSTED\)$/,
    );
  });

  it('is named where it cannot be missed, and so is each other', async () => {
    await using cluster = await connected([0, 1, 2, 3, 4]);
    const refused = (options: CodeOptions, message: RegExp) =>
      fails(codedLayer(dense, { cluster, ...options }), 'RESOURCE_EXHAUSTED', message);
    await refused(
      { parity: 0 },
      /^layer layer needs 5 of 5 blocks: worker 1 \(\S+\) did not take.*; worker 4 \(\S+\) did not take/,
    );
    await refused(
      { parity: 1 },
      /^layer layer needs 4 of 5 blocks: worker 1 .*; worker 4 .*plan for the others \(workers\)/,
    );
    await using enough = await codedLayer(dense, { cluster, parity: 2 });
    assert.equal(enough.health.margin, 0);
    await exact(enough);
  });

  it('may be one of the two that a hedge or a replicated segment has, not both', async () => {
    await using cluster = await connected([0, 1, 2, 3, 4]);
    await using hedged = await codedLayer(dense, { cluster, workers: [0, 1, 2], parity: 0, hedge: 20 });
    assert.deepEqual([hedged.health.margin, hedged.health.ready], [0, 3]); // block 1 stands on worker 2 as well
    await exact(hedged);
    const files = makeModel(spec());
    const engine = await createEngine('native');
    const expected = await runWhole(engine, files, feeds);
    await engine[Symbol.asyncDispose]();
    await using model = await codedModel(files, {
      cluster,
      workers: [0, 1, 2],
      layers: ['first'],
      segments: 'replicated',
    });
    const [segment] = model.plan.segments.filter(({ workers: at }) => at.includes(1));
    assert.deepEqual(
      model.plan.refusals.map(({ worker, layers }) => [worker, layers]),
      [[1, ['first', segment!.name]]],
    );
    const { outputs } = await model.run(feeds);
    assertClose(outputs['y']!, expected['y']!, 1e-5, 'y');
    const both = codedModel(files, { cluster, workers: [1, 4], layers: [], segments: 'replicated', parity: 1 });
    await fails(both, 'RESOURCE_EXHAUSTED', /needs 1 of 2 blocks: worker 1 .*; worker 4 /);
  });

  it('is one that has too little memory to open them', async () => {
    const folderOf = path.join(folder, 'poor');
    await using poor = await startWorker({ listen: '127.0.0.1:0', dataDir: folderOf, maxMemoryBytes: 2e6 });
    await using cluster = await connect({ workers: [workers[0]!.address, poor.address, workers[2]!.address] });
    await using layer = await codedLayer(dense, { cluster });
    const [refusal] = layer.plan.refusals;
    assert.deepEqual([refusal!.worker, refusal!.code, layer.health.margin], [1, 'RESOURCE_EXHAUSTED', 0]);
    assert.match(refusal!.message, /bytes of memory, this worker may use 2000000; raise --max-memory/);
    await exact(layer);
  });

  it('has its block put to a spare, and is whole again', async () => {
    await using cluster = await connected([0, 1, 2, 3]);
    await using layer = await codedLayer(dense, { cluster, workers: [0, 1, 2], systematicGraceMs: 20_000 });
    const { message } = await untilEvent(cluster, ({ kind }) => kind === 'moved');
    assert.equal(message, 'what worker 1 held of layer layer stands on worker 3 now');
    const { margin, refusals, workers: at } = layer.health;
    assert.deepEqual([margin, refusals, at], [1, [], [[0], [3], [2]]]);
    assert.deepEqual((await exact(layer)).erasures, []);
  });

  it('takes the new version of an update once the old one has made room', async () => {
    const files = makeModel(spec());
    const next = makeModel(spec());
    await using first = await connected([0, 2, 3]);
    await using sized = await codedModel(files, { cluster: first });
    const tight = await start(1.5 * workers[2]!.server.store.diskUsedBytes);
    workers.push(tight);
    await sized.close();
    await using cluster = await connected([0, 2, 5]);
    await using model = await codedModel(files, { cluster });
    assert.deepEqual([model.health.margin, model.plan.refusals], [1, []]);
    await model.update(next);
    assert.deepEqual(
      model.plan.refusals.map(({ worker }) => worker),
      [2],
    );
    const isWhole = () => model.health.refusals.length === 0;
    while (!isWhole()) await new Promise<void>(resolve => void cluster.onEvent(() => resolve()));
    assert.deepEqual([model.version, model.health.margin], [2, 1]);
    assert.ok(cluster.events.some(({ kind, worker }) => kind === 'restored' && worker === 2));
  });

  it('keeps the old plan where a new one would come out with less margin', async () => {
    await using cluster = await connected([0, 2, 3]);
    await using layer = await codedLayer(dense, { cluster });
    const other = await start();
    workers.push(other);
    await cluster.add(other.address);
    rmSync(path.join(folder, String(started - 1), 'tmp'), { recursive: true }); // what is written begins there
    const words = /^layer layer needs 3 of 4 blocks and keeps a margin of 1: worker 3 \(\S+\) did not take.*ENOENT/;
    await fails(layer.replan(), 'STORAGE', words);
    assert.deepEqual([layer.health.margin, layer.health.n, layer.plan.refusals], [1, 3, []]);
    await exact(layer);
    await using again = await codedLayer(dense, { cluster });
    assert.deepEqual([again.plan.refusals.map(({ code }) => code), again.health.margin], [['STORAGE'], 0]);
  });

  it('is one whose link breaks in the middle of the upload, and is given the rest when it is back', async () => {
    await using link = await Link.open(workers[2]!.port);
    const addresses = [workers[0]!.address, `127.0.0.1:${link.port}`, workers[3]!.address];
    await using cluster = await connect({ workers: addresses });
    let broken = false;
    const onProgress = (_: DeployProgress) => {
      if (!broken) link.mode = { kind: 'hole' };
      if (!broken) link.mode = { kind: 'reset' };
      broken = true;
    };
    const large = {
      data: Float32Array.from({ length: 3 * 2 ** 20 }, () => rng.normal()),
      shape: [3 * 2 ** 10, 2 ** 10],
    };
    await using layer = await codedLayer({ type: 'dense', weights: large }, { cluster, onProgress });
    assert.deepEqual(
      layer.plan.refusals.map(({ worker, code }) => [worker, code]),
      [[1, 'UNAVAILABLE']],
    );
    assert.equal(layer.health.margin, 0);
    link.mode = { kind: 'forward' };
    await untilEvent(cluster, ({ kind, worker }) => kind === 'restored' && worker === 1);
    assert.deepEqual([layer.health.margin, layer.health.refusals], [1, []]);
  });

  it('is one whose disk hangs while it answers: no longer waited for than a minute without progress', async () => {
    const blobs = await FsBlobStore.open(path.join(folder, 'hangs'));
    const engine = await createEngine('native');
    const limits = { threads: 1, memoryLimitBytes: 2 ** 30, diskLimitBytes: 2 ** 30, maxQueue: 8, cores: 1 };
    const hanging: BlobStore = {
      list: () => blobs.list(),
      read: (name, file) => blobs.read(name, file),
      location: name => blobs.location(name),
      readOwners: name => blobs.readOwners(name),
      writeOwners: (name, owners) => blobs.writeOwners(name, owners),
      remove: name => blobs.remove(name),
      create: () => new Promise<never>(() => undefined),
    };
    const about = { workerId: 'hangs', processId: 'hangs', version: '0', ...limits };
    await using server = await WorkerServer.open({ engine, blobs: hanging, ...about });
    const listening = await listenGrpc(server.handlers, { host: '127.0.0.1', port: 0 });
    /** On which a minute without progress is over at once. */
    const clock: Clock = {
      now: () => systemClock.now(),
      setTimer: (work, ms, options) => systemClock.setTimer(work, ms === 60_000 ? 200 : ms, options),
    };
    try {
      await using cluster = await connect({
        workers: [workers[0]!.address, listening.address, workers[2]!.address],
        clock,
      });
      await using layer = await codedLayer(dense, { cluster });
      assert.deepEqual(
        layer.plan.refusals.map(({ worker, message }) => [worker, message]),
        [[1, 'it took nothing more of it for 60 s; look at its disk']],
      );
      assert.equal(layer.health.margin, 0);
    } finally {
      await listening.close(0);
      await engine[Symbol.asyncDispose]();
      await blobs[Symbol.asyncDispose]();
    }
  });
});
