/** Several models on one fleet, new versions of a model, and who holds the shards: seen in what the workers keep. */
import assert from 'node:assert/strict';
import { float32, seededRng, systemClock, type Clock, type Tensor } from '@kofn/core';
import { connectChannel, WorkerClient } from '@kofn/wire';
import { codedModel, connect, type Cluster, type CodedModel } from 'kofn';
import { after, before, beforeEach, describe, it } from 'mocha';
import { fails } from '../support/engines.js';
import { keptWorkers, type KeptWorkers } from '../support/kept-workers.js';
import { drawn, makeModel } from '../support/onnx-models.js';

const HOUR_MS = 3_600_000;
const rng = seededRng(23);

/** y = relu(x · a) · b: two coded layers with weights of their own. */
function network(a: Tensor, b: Tensor, { output = 'y', width = 16 } = {}) {
  return makeModel({
    nodes: [
      { op: 'MatMul', name: 'first', inputs: ['x', 'a'], outputs: ['p'] },
      { op: 'Relu', inputs: ['p'], outputs: ['r'] },
      { op: 'MatMul', name: 'second', inputs: ['r', 'b'], outputs: [output] },
    ],
    inputs: { x: { dtype: 'float32', shape: ['N', width] } },
    outputs: { [output]: { dtype: 'float32' } },
    initializers: { a, b },
  });
}

const weights = (rows = 16, columns = 16) => drawn([rows, columns], () => rng.normal());
const x = float32(
  [1, 16],
  Float32Array.from({ length: 16 }, () => rng.normal()),
);

function expected(a: Tensor, b: Tensor): number[] {
  const times = (row: readonly number[], { data, shape }: Tensor) =>
    Array.from({ length: shape[1]! }, (_, j) =>
      row.reduce((sum, value, i) => sum + value * Number(data[i * shape[1]! + j]), 0),
    );
  return times(
    times([...x.data], a).map(value => Math.max(0, value)),
    b,
  );
}

async function assertAnswers(model: CodedModel, a: Tensor, b: Tensor): Promise<void> {
  const { outputs, report } = await model.run({ x });
  const wanted = expected(a, b);
  [...outputs['y']!.data].forEach((value, i) => assert.ok(Math.abs(Number(value) - wanted[i]!) < 1e-3));
  assert.deepEqual(
    report.layers.map(({ name, erasures }) => [name, erasures]),
    [
      ['first', []],
      ['second', []],
    ],
  );
}

describe('models and their versions on one fleet', () => {
  let workers: KeptWorkers;
  let cluster: Cluster;
  before(async () => (workers = await keptWorkers(5)));
  beforeEach(async () => (cluster = await connect({ workers: workers.addresses, id: 'one' })));
  after(async () => workers[Symbol.asyncDispose]());

  /** Of every worker: its shards by owner, as "cluster/model/version", sorted. */
  const held = () =>
    Promise.all(
      workers.addresses.map(async address => {
        await using channel = connectChannel(address);
        const client = await WorkerClient.open(channel);
        const { shards } = await client.inventory();
        await client.close();
        return shards
          .map(({ owners }) => owners.map(({ cluster: who, model, version }) => `${who}/${model}/${version}`).sort())
          .map(owners => owners.join(' '))
          .sort();
      }),
    );
  const everyWorkerHolds = async (...owners: string[]) =>
    assert.deepEqual(await held(), new Array(5).fill(owners.sort()));

  it('two masters, three models, five workers: one master leaves and takes only what is its own', async () => {
    const [a, b, c] = [weights(), weights(), weights()];
    const one = await codedModel(network(a, b), { cluster, name: 'one' });
    const two = await codedModel(network(a, c), { cluster, name: 'two' });
    const other = await connect({ workers: workers.addresses, id: 'other' });
    const three = await codedModel(network(a, b), { cluster: other, name: 'three' });
    await everyWorkerHolds('one/one/1 one/two/1 other/three/1', 'one/one/1 other/three/1', 'one/two/1');
    await Promise.all([assertAnswers(one, a, b), assertAnswers(two, a, c), assertAnswers(three, a, b)]);

    await three.close();
    await other.close();
    await everyWorkerHolds('one/one/1 one/two/1', 'one/one/1', 'one/two/1');
    await Promise.all([assertAnswers(one, a, b), assertAnswers(two, a, c)]);
    await one.close();
    await everyWorkerHolds('one/two/1', 'one/two/1');
    await assertAnswers(two, a, c);
    await two.close();
    await everyWorkerHolds();
    await cluster.close();
  });

  it('models on workers of their own: only those hold and answer, updates stay there, and a close frees them', async () => {
    const [a, b, c] = [weights(), weights(), weights()];
    const left = await codedModel(network(a, b), { cluster, name: 'left', workers: [2, 0] });
    const right = await codedModel(network(a, c), { cluster, name: 'right', workers: [1, 3, 4] });
    const [ofLeft, ofRight] = [
      ['one/left/1', 'one/left/1'],
      ['one/right/1', 'one/right/1'],
    ];
    assert.deepEqual(await held(), [ofLeft, ofRight, ofLeft, ofRight, ofRight]);
    await Promise.all([assertAnswers(left, a, b), assertAnswers(right, a, c)]);
    const { report } = await left.run({ x });
    for (const { k, r, arrivals } of report.layers) {
      assert.deepEqual([k, r], [1, 1]);
      for (const { block, worker } of arrivals) assert.equal(worker, [2, 0][block]);
    }
    await left.update(network(b, c));
    await assertAnswers(left, b, c);
    assert.deepEqual((await held())[0], ['one/left/2', 'one/left/2']);
    await left.close();
    assert.deepEqual(await held(), [[], ofRight, [], ofRight, ofRight]);
    await assert.rejects(codedModel(network(a, b), { cluster, workers: [0, 5] }), { code: 'INVALID_ARGUMENT' });
    await right.close();
    await everyWorkerHolds();
    await cluster.close();
  });

  it('a cluster that closes leaves its shards for the next program, a model that closes takes them along', async () => {
    const [a, b] = [weights(), weights()];
    await codedModel(network(a, b), { cluster, name: 'net' });
    await cluster.close();
    await everyWorkerHolds('one/net/1', 'one/net/1');
    const next = await connect({ workers: workers.addresses, id: 'one' });
    const onProgress = () => assert.fail('sent a shard that is there');
    const again = await codedModel(network(a, b), { cluster: next, name: 'net', onProgress });
    await assertAnswers(again, a, b);
    await again.close();
    await everyWorkerHolds();
    await next.close();
  });

  it('an update sends only what is new, and answers with the new version from then on', async () => {
    const [a, b, c] = [weights(), weights(), weights()];
    const sent: string[] = [];
    const model = await codedModel(network(a, b), { cluster, name: 'net' });
    const running = Array.from({ length: 10 }, () => assertAnswers(model, a, b));
    await model.update(network(a, c), { onProgress: ({ layer }) => sent.push(layer) });
    await Promise.all(running);
    assert.deepEqual([...new Set(sent)], ['second']);
    assert.equal(model.version, 2);
    await assertAnswers(model, a, c);
    await everyWorkerHolds('one/net/2', 'one/net/2');
    // Updates that overlap come one after the other.
    await Promise.all([model.update(network(b, c)), model.update(network(c, b))]);
    assert.equal(model.version, 4);
    await assertAnswers(model, c, b);
    await everyWorkerHolds('one/net/4', 'one/net/4');
    await model.close();
    await everyWorkerHolds();
    await cluster.close();
  });

  it('an update that fails changes nothing, whatever is wrong with it', async () => {
    const [a, b] = [weights(), weights()];
    const model = await codedModel(network(a, b), { cluster, name: 'net' });
    const cancelled = new AbortController();
    const onProgress = () => cancelled.abort(); // in the middle of the upload
    const failures: [Promise<void>, Parameters<typeof fails>[1], RegExp][] = [
      [model.update(new Uint8Array(10)), 'INVALID_MODEL', /not an ONNX file/],
      [model.update(network(weights(16, 15), b)), 'INVALID_MODEL', /ONNX Runtime cannot open/],
      [
        model.update(network(a, weights(), { output: 'z' })),
        'INVALID_ARGUMENT',
        /the outputs z: float32, the old one y/,
      ],
      [model.update(network(weights(), weights()), { onProgress, signal: cancelled.signal }), 'CANCELLED', /cancelled/],
    ];
    for (const [update, code, message] of failures) await fails(update, code, message);
    assert.equal(model.version, 1);
    await assertAnswers(model, a, b);
    await everyWorkerHolds('one/net/1', 'one/net/1');
    await model.close();
    await fails(model.update(network(a, b)), 'CANCELLED', /closed; deploy it again/);
    await cluster.close();
  });

  it('models of one name are told apart', async () => {
    const [a, b] = [weights(), weights()];
    const models = [];
    for (let i = 0; i < 2; i++) models.push(await codedModel(network(a, b), { cluster }));
    assert.deepEqual(
      models.map(({ name }) => name),
      ['model', 'model 2'],
    );
    await models[0]!.close();
    await assertAnswers(models[1]!, a, b);
    await models[1]!.close();
    await fails(
      codedModel(network(a, b), { cluster, name: '' }),
      'INVALID_ARGUMENT',
      /name: "" is not a string of 1 to 200/,
    );
    await cluster.close();
  });

  it('claims are renewed while the cluster is connected', async () => {
    const timers: { fire: () => void; delayMs: number }[] = [];
    const clock: Clock = {
      now: () => systemClock.now(),
      setTimer(fire, delayMs, options) {
        if (delayMs < HOUR_MS) return systemClock.setTimer(fire, delayMs, options);
        timers.push({ fire, delayMs });
        return { cancel: () => undefined };
      },
    };
    const [a, b] = [weights(), weights()];
    await using connected = await connect({ workers: workers.addresses, id: 'renewing', clock });
    const model = await codedModel(network(a, b), { cluster: connected, name: 'net' });
    assert.deepEqual(
      timers.map(({ delayMs }) => delayMs),
      [HOUR_MS],
    );
    // Somebody drops the claims but holds the bytes: the renewal puts the claims back.
    const keeper = await codedModel(network(a, b), { cluster, name: 'keeper' });
    await Promise.all(
      workers.addresses.map(async address => {
        await using channel = connectChannel(address);
        const client = await WorkerClient.open(channel);
        await client.remove([], { owner: { cluster: 'renewing', model: 'net', version: 1 } });
        await client.close();
      }),
    );
    await everyWorkerHolds('one/keeper/1', 'one/keeper/1');
    timers[0]!.fire();
    const both = 'one/keeper/1 renewing/net/1';
    while ((await held()).flat().some(owners => owners !== both));
    assert.equal(timers.length, 2, 'the next renewal is due');
    await model.close();
    await keeper.close();
    await cluster.close();
  });
});
