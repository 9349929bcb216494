/** A new plan for another fleet while requests go on, what stands in its way, and a fleet of which not everybody is there. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { float32, seededRng } from '@kofn/core';
import { startWorker, type WorkerOptions } from '@kofn/worker';
import {
  codedLayer,
  codedModel,
  connect,
  startLocalWorkers,
  type Cluster,
  type CodedModel,
  type LocalWorkers,
  type RunResult,
  type ModelHealth,
} from 'kofn';
import { untilFleet } from 'kofn/measure';
import { after, before, describe, it } from 'mocha';
import { exact, weights } from '../support/dense-layer.js';
import { fails, normal } from '../support/engines.js';
import { makeModel } from '../support/onnx-models.js';
import { untilEvent } from '../support/until-event.js';

const WIDTH = 64;
const rng = seededRng(29);
const [a, b] = [normal([WIDTH, WIDTH]), normal([WIDTH, WIDTH])];
/** y = relu(x · a) · b: two coded layers. */
const network = makeModel({
  nodes: [
    { op: 'MatMul', name: 'first', inputs: ['x', 'a'], outputs: ['p'] },
    { op: 'Relu', inputs: ['p'], outputs: ['r'] },
    { op: 'MatMul', name: 'second', inputs: ['r', 'b'], outputs: ['y'] },
  ],
  inputs: { x: { dtype: 'float32', shape: ['N', WIDTH] } },
  outputs: { y: { dtype: 'float32' } },
  initializers: { a, b },
});
const x = float32(
  [1, WIDTH],
  Float32Array.from({ length: WIDTH }, () => rng.normal()),
);
const times = (row: readonly number[], { data }: { data: ArrayLike<unknown> }) =>
  row.map((_, j) => row.reduce((sum, value, i) => sum + value * Number(data[i * WIDTH + j]), 0));
const expected = times(
  times([...x.data], a).map(value => Math.max(0, value)),
  b,
);

/** The code of the one plan that the request was answered by. */
function planOf({ outputs, report }: RunResult): string {
  const y = [...outputs['y']!.data].map(Number);
  y.forEach((value, i) => assert.ok(Math.abs(value - expected[i]!) < 1e-2, `${i}: ${value} ${expected[i]}`));
  const codes = new Set(report.layers.map(({ k, r }) => `${k}+${r}`));
  assert.equal(codes.size, 1, `one request by the plans ${[...codes].join(' and ')}`);
  return [...codes][0]!;
}

/** Requests one after the other beside `work`; returns the plans that answered them, each once, in their order. */
async function beside(model: CodedModel, work: () => Promise<unknown>): Promise<string[]> {
  const seen: string[] = [];
  let isDone = false;
  const requests = (async () => {
    do seen.push(planOf(await model.run({ x })));
    while (!isDone);
  })();
  await work().finally(() => (isDone = true));
  await requests;
  seen.push(planOf(await model.run({ x })));
  return seen.filter((plan, i) => plan !== seen[i - 1]);
}

const shardsAt = (cluster: Cluster) => cluster.connections.map(({ shards }) => shards.size);

describe('a new plan for another fleet', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-replan-'));
  let workers: LocalWorkers;
  before(async () => (workers = await startLocalWorkers(5)));
  after(async () => {
    await workers.close();
    rmSync(folder, { recursive: true });
  });

  const startHere = (name: string, options: WorkerOptions = {}) =>
    startWorker({ listen: '127.0.0.1:0', dataDir: path.join(folder, name), ...options });

  it('spreads a model over workers that are added while it answers, and sends nothing where it is there', async () => {
    await using cluster = await connect({ workers: workers.addresses.slice(0, 3), id: 'grow' });
    await using model = await codedModel(network, { cluster });
    await fails(cluster.add(workers.addresses[1]!), 'INVALID_ARGUMENT', /is worker 1; each worker counts once/);
    const plans = await beside(model, async () => {
      for (const address of workers.addresses.slice(3)) await cluster.add(address);
      const dry = await cluster.replan({ dryRun: true });
      assert.deepEqual([dry[0]!.version, dry[0]!.workers, shardsAt(cluster)], [1, [0, 1, 2, 3, 4], [2, 2, 2, 0, 0]]);
      const stopped = new AbortController();
      const onProgress = () => stopped.abort(); // in the middle of the upload
      await fails(cluster.replan({ signal: stopped.signal, onProgress }), 'CANCELLED', /cancelled/);
      assert.deepEqual([model.version, shardsAt(cluster)], [1, [2, 2, 2, 0, 0]]);
      const [replanned] = await cluster.replan();
      assert.deepEqual([replanned!.version, replanned!.missingBytes], [2, dry[0]!.missingBytes]);
      assert.deepEqual(
        [replanned!.before.workers, replanned!.workers],
        [
          [0, 1, 2],
          [0, 1, 2, 3, 4],
        ],
      );
    });
    assert.deepEqual(plans, ['2+1', '4+1']);
    assert.deepEqual([shardsAt(cluster), model.health.margin], [[2, 2, 2, 2, 2], 1]);
    const { message } = cluster.events.find(({ kind }) => kind === 'replanned')!;
    assert.match(
      message,
      /for 5 workers \(sum, k = 4, r = 1\) in place of one for 3 \(sum, k = 2, r = 1\), as version 2/,
    );

    // Of the same length on others: the shards are the same, and only those that a worker lacks are sent.
    await model.replan({ workers: [0, 1, 2] });
    const sent = new Set<string>();
    const held = heldBy(model.health);
    const moved = await model.replan({ workers: [0, 1, 4], onProgress: ({ layer }) => sent.add(layer) });
    const holds = heldBy(model.health); // a worker that was slow for a moment gets parity, and lacks it like a new one
    const lacks = (worker: number) => holds(worker).filter(name => !held(worker).includes(name)).length;
    assert.deepEqual(
      moved.needs.map(({ worker, planned, missing }) => [worker, planned.shards, missing.shards]),
      [0, 1, 4].map(worker => [worker, 2, lacks(worker)]),
    );
    assert.equal(lacks(4), 2);
    assert.deepEqual(
      [[...sent], shardsAt(cluster)],
      [
        ['first', 'second'],
        [2, 2, 0, 0, 2],
      ],
    );
    assert.equal((await model.replan()).missingBytes, 0); // its own workers stay its own
  });

  it('takes a model off workers that then leave the cluster', async () => {
    await using cluster = await connect({ workers: workers.addresses, id: 'shrink' });
    await using model = await codedModel(network, { cluster, parity: 2, segments: 'replicated' });
    await fails(cluster.remove(4), 'INVALID_ARGUMENT', /worker 4 .* holds a part of model "model"; replan/);
    const plans = await beside(model, () => cluster.replan({ workers: [0, 1, 2], parity: 1 }));
    assert.deepEqual(
      [plans, shardsAt(cluster)],
      [
        ['3+2', '2+1'],
        [3, 3, 2, 0, 0], // two have the segment
      ],
    );
    await cluster.remove(4);
    assert.deepEqual([cluster.workers[4]!.state, cluster.events.at(-1)!.kind], ['removed', 'removed']);
    await fails(model.replan({ workers: [0, 4] }), 'UNAVAILABLE', /worker 4 .* is removed/);
    await fails(model.replan({ workers: [0] }), 'INVALID_ARGUMENT', /parity: 1 with 1 worker/);
    assert.equal(planOf(await model.run({ x })), '2+1');
  });

  it('is refused where both plans do not fit, before anything is sent', async () => {
    await using disk = await startHere('disk', { maxDiskBytes: 40_000 });
    await using memory = await startHere('memory', { maxMemoryBytes: 7_000_000 });
    const addresses = [workers.addresses[0]!, disk.address, memory.address, workers.addresses[1]!];
    await using cluster = await connect({ workers: addresses, id: 'small' });
    const refusals: [number[], RegExp][] = [
      [[0, 1], /worker 1 \(\S+\) would keep \d+ bytes on disk and may keep 40000 \(--max-disk\)/],
      [[0, 2], /worker 2 \(\S+\) would need \d+ bytes of memory and may use 7000000 \(--max-memory\)/],
    ];
    for (const [holders, message] of refusals) {
      await using model = await codedModel(network, { cluster, workers: holders });
      const stood = shardsAt(cluster);
      const onProgress = () => assert.fail('sent a shard');
      const plans = await beside(model, () =>
        fails(model.replan({ workers: [...holders, 3], onProgress }), 'RESOURCE_EXHAUSTED', message),
      );
      assert.deepEqual([plans, model.version, shardsAt(cluster)], [['1+1'], 1, stood]);
    }
  });

  it('connects without a worker that is not there, serves, and has it join when it comes', async () => {
    const late = await startHere('late');
    const { address, port } = late;
    await late.close();
    const addresses = [...workers.addresses.slice(0, 3), address];
    const all = { workers: addresses, minWorkers: 4 };
    await fails(
      connect(all),
      'UNAVAILABLE',
      /^3 of 4 workers answer and minWorkers is 4: worker 3 \(\S+\) is (dead|connecting): nobody/,
    );
    await fails(connect({ workers: [address] }), 'UNAVAILABLE', /^0 of 1 workers answer: worker 0 .*Is `kofn worker/);
    await using cluster = await connect({ workers: addresses, id: 'late' });
    assert.equal((await untilEvent(cluster, ({ kind }) => kind === 'lost')).worker, 3);
    await using layer = await codedLayer(
      { type: 'dense', weights },
      { cluster, onLoss: 'fail', systematicGraceMs: 20_000 },
    );
    assert.deepEqual((await exact(layer)).recovered, { lost: [], late: [] }); // the last block is parity
    assert.deepEqual([layer.health.n, layer.health.ready, layer.health.margin], [4, 3, 0]);
    await fails(
      codedLayer({ type: 'dense', weights }, { cluster, onLoss: 'fail', parity: 0 }),
      'UNAVAILABLE',
      /needs 4 of 4 blocks: worker 3 \(\S+\) is (dead|connecting): nobody/,
    );
    await using _now = await startHere('late', { listen: `127.0.0.1:${port}` });
    await untilEvent(cluster, ({ kind, worker }) => kind === 'restored' && worker === 3);
    assert.deepEqual([(await exact(layer)).erasures, layer.health.margin], [[], 1]);
  });

  it('leaves the old one as it was when a worker dies during the upload', async () => {
    await using cluster = await connect({ workers: workers.addresses.slice(1), id: 'dying' });
    await using model = await codedModel(network, { cluster, workers: [0, 1, 2] });
    let killed: Promise<void> | undefined;
    const onProgress = () => void (killed ??= workers.kill(4));
    const plans = await beside(model, () =>
      fails(model.replan({ workers: [0, 1, 2, 3], onProgress }), 'UNAVAILABLE', /worker 3 .* did not take its shard/),
    );
    await killed;
    assert.deepEqual([plans, model.version, model.health.margin], [['2+1'], 1, 1]);
    await fails(cluster.add(workers.addresses[4]!), 'INVALID_ARGUMENT', /is worker 3/);
    await untilFleet(cluster, fleet => fleet[3]!.state !== 'ready');
    await model.replan(); // for those that are left
    assert.deepEqual([model.version, model.health.margin, planOf(await model.run({ x }))], [2, 1, '2+1']);
  });
});

/** The names of the shards that a worker holds. */
function heldBy({ layers }: ModelHealth): (worker: number) => string[] {
  return worker =>
    layers.flatMap(({ shards, workers }) => shards.filter((_, block) => workers[block]!.includes(worker)));
}
