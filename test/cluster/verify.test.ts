/** Workers that compute wrong but finite numbers, and what `verify` makes of them: engines in this process that tamper. */
import assert from 'node:assert/strict';
import { float32, seededRng, type Float32Tensor, type Tensors } from '@kofn/core';
import { logFleet } from '@kofn/master/serve';
import { createLogger } from '@kofn/worker';
import {
  codedLayer,
  connect,
  type Cluster,
  type CodedLayer,
  type ConvLayer,
  type DenseLayer,
  type ShapedArray,
} from 'kofn';
import { after, afterEach, before, describe, it } from 'mocha';
import { fails } from '../support/engines.js';
import { faultyWorkers, type FaultyWorkers, type Spoil } from '../support/lossy-cluster.js';

const rng = seededRng(1);
const normal = (length: number) => Float32Array.from({ length }, () => rng.normal());
const DENSE: DenseLayer = { type: 'dense', weights: { data: normal(60 * 40), shape: [60, 40] }, bias: normal(60) };
const CONV: ConvLayer = {
  type: 'conv',
  weights: { data: normal(24 * 3 * 9), shape: [24, 3, 3, 3] },
  bias: normal(24),
  groups: 2,
  strides: [2, 1],
  pads: [1, 0, 1, 1],
};
const WIDE: DenseLayer = { type: 'dense', weights: { data: normal(30 * 2000), shape: [30, 2000] } };
/** The layer, trained on. */
const retrained = (spec: DenseLayer | ConvLayer): DenseLayer | ConvLayer => {
  const { data, shape } = spec.weights as ShapedArray;
  const weights = { data: Float32Array.from(data, value => 1.001 * value + 0.01 * rng.normal()), shape };
  return spec.type === 'dense' ? { ...spec, weights } : { ...spec, weights };
};
const LAYERS = [
  { what: 'dense, three rows', spec: DENSE, input: float32([3, 40], normal(120)) },
  { what: 'grouped and strided conv, two samples', spec: CONV, input: float32([2, 6, 9, 7], normal(756)) },
  // Its expectations take more than one turn of the event loop.
  { what: 'dense, a batch', spec: WIDE, input: float32([128, 2000], normal(128 * 2000)) },
] as const;

const y = (outputs: Tensors) => outputs['y'] as Float32Tensor;
const withValues = (outputs: Tensors, change: (values: Float32Array) => void): Tensors => {
  const { shape, data } = y(outputs);
  const values = data.slice();
  change(values);
  return { y: float32(shape, values) };
};
const flipsBit: Spoil = outputs =>
  withValues(outputs, values => {
    new Uint32Array(values.buffer)[values.length - 1]! ^= 1 << 22;
  });
const scales: Spoil = outputs =>
  withValues(outputs, values => values.forEach((value, i) => (values[i] = 1.01 * value)));
/** What the same worker answered to its last request. */
const repeats = (): Spoil => {
  const before = new Map<number, Tensors>();
  return (outputs, { worker }) => {
    const old = before.get(worker);
    before.set(worker, outputs);
    return old ?? outputs;
  };
};
const lies = (): Readonly<Record<string, Spoil>> => ({
  'one bit': flipsBit,
  'scaled by 1.01': scales,
  "another request's output": repeats(),
  'an older shard': (_, { stale }) => stale(),
});
/** Within what two sound engines may differ by, and beyond what rounding explains of so small a layer. */
const rounds: Spoil = outputs =>
  withValues(outputs, values => {
    const rms = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
    values[0]! += 2.5e-5 * rms;
  });
/** With a grace every data block is looked at. */
const ALL = { systematicGraceMs: 20_000 } as const;

async function answers(layer: CodedLayer, input: Float32Tensor, oracle: Float32Tensor) {
  const { output, report } = await layer.run(input);
  output.data.forEach((value, i) => assert.ok(Math.abs(value - oracle.data[i]!) < 1e-3, `element ${i}`));
  return report.layers[0]!;
}

function until(cluster: Cluster, holds: () => boolean): Promise<void> {
  if (holds()) return Promise.resolve();
  return new Promise(resolve => {
    const stop = cluster.onFleetChange(() => {
      if (!holds()) return;
      stop();
      resolve();
    });
  });
}

describe('verify', () => {
  const sound: Spoil = outputs => outputs;
  /** What engines make of their outputs, by worker; the others are sound. */
  let spoil: Readonly<Record<number, Spoil>> = {};
  let faulty: FaultyWorkers;

  before(async () => {
    faulty = await faultyWorkers([0, 1, 2, 3, 4], (outputs, about) => (spoil[about.worker] ?? sound)(outputs, about));
  });
  afterEach(() => (spoil = {}));
  after(() => faulty[Symbol.asyncDispose]());

  it('survives r liars with fingerprints, whatever they answer', async () => {
    await using cluster = await connect({ workers: faulty.addresses });
    let found = 0;
    for (const { what, spec, input } of LAYERS) {
      const isLarge = spec === WIDE; // one lie is enough
      await using old = isLarge ? undefined : await codedLayer(retrained(spec), { cluster, parity: 2, ...ALL });
      await old?.run(input); // each worker has opened its shard of it
      await using layer = await codedLayer(spec, { cluster, parity: 2, verify: 'fingerprint', ...ALL });
      const oracle = (await layer.run(input)).output;
      const other = float32(input.shape, input.data.map(value => -value)); // prettier-ignore
      for (const [how, lie] of Object.entries(lies()).slice(0, isLarge ? 1 : undefined)) {
        spoil = { 0: lie, 2: lie };
        if (how.startsWith('another')) await layer.run(other);
        const report = await answers(layer, input, oracle);
        assert.deepEqual(
          [...report.rejected].sort((a, b) => a.block - b.block),
          [
            { block: 0, worker: 0 },
            { block: 2, worker: 2 },
          ],
          `${what}: ${how}`,
        );
        assert.deepEqual(new Set(report.erasures.map(({ code }) => code)), new Set(['WRONG_ANSWER']));
        found++;
        for (const worker of [0, 2]) {
          await until(cluster, () => cluster.workers[worker]!.wrongAnswers === found);
          cluster.release(worker);
        }
      }
      spoil = {};
    }
  });

  it('sets nobody aside whose reply fails its check and is right', async () => {
    const [{ spec, input }] = LAYERS;
    spoil = { 3: rounds };
    await using cluster = await connect({ workers: faulty.addresses });
    await using layer = await codedLayer(spec, { cluster, verify: 'fingerprint', ...ALL });
    let oracle: Float32Tensor | undefined;
    for (let alarms = 1; alarms <= 4; alarms++) {
      const { output } = await layer.run(input);
      const { rejected } = await answers(layer, input, (oracle ??= output));
      assert.deepEqual(rejected, [{ block: 3, worker: 3 }]);
      await until(cluster, () => cluster.workers[3]!.falseAlarms === 2 * alarms);
      const { state, wrongAnswers } = cluster.workers[3]!;
      assert.deepEqual({ state, wrongAnswers }, { state: 'ready', wrongAnswers: 0 });
    }
  });

  it('believes a liar without', async () => {
    const [{ spec, input }] = LAYERS;
    spoil = { 0: scales };
    await using cluster = await connect({ workers: faulty.addresses });
    await using layer = await codedLayer(spec, { cluster, ...ALL });
    assert.deepEqual((await layer.run(input)).report.layers[0]!.rejected, []);
    assert.equal(cluster.workers[0]!.wrongAnswers, 0);
  });

  it('quarantines a worker that was wrong twice, until it is released', async () => {
    const [{ spec, input }] = LAYERS;
    await using cluster = await connect({ workers: faulty.addresses });
    const log: { event: string; level: string; worker: number; msg: string }[] = [];
    const sink = { write: (line: string) => void log.push(JSON.parse(line) as (typeof log)[number]) };
    const stop = logFleet({ cluster }, createLogger('kofn', 'info', sink));
    await using layer = await codedLayer({ ...spec, name: 'fc' }, { cluster, verify: 'fingerprint', ...ALL });
    const oracle = (await layer.run(input)).output;
    spoil = { 1: flipsBit };
    await answers(layer, input, oracle);
    await until(cluster, () => cluster.workers[1]!.wrongAnswers === 1);
    assert.equal(cluster.workers[1]!.state, 'ready');
    await answers(layer, input, oracle);
    await until(cluster, () => cluster.workers[1]!.state === 'quarantined');
    assert.equal(cluster.workers[1]!.reason, 'answered wrong twice: layer fc, block 1');
    assert.equal((await answers(layer, input, oracle)).erasures[0]!.code, 'UNAVAILABLE');
    spoil = {};
    cluster.release(1);
    assert.equal(cluster.workers[1]!.state, 'ready');
    const { erasures } = await answers(layer, input, oracle);
    assert.deepEqual(erasures, []);
    const counts = cluster.workers.map(({ wrongAnswers, falseAlarms }) => [wrongAnswers, falseAlarms]);
    assert.deepEqual(counts, [
      [0, 0],
      [2, 0],
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
    const metrics = await (await cluster.metrics()).metrics();
    for (const sample of [
      'kofn_verification_failures_total{check="fingerprint"} 2',
      'kofn_events_total{kind="quarantined"} 1',
      'kofn_events_total{kind="trusted"} 1',
    ]) {
      assert.ok(metrics.split('\n').includes(sample), `${sample}\n${metrics}`);
    }
    assert.match(metrics, /^kofn_worker_wrong_answers_total\{worker="1",address="[^"]+"\} 2$/m);
    stop();
    assert.deepEqual(
      log
        .filter(({ event }) => event !== 'straggler' && event !== 'steady')
        .map(({ event, level, worker }) => [event, level, worker]),
      [
        ['quarantined', 'error', 1],
        ['trusted', 'info', 1],
      ],
    );
    assert.match(
      log.find(({ event }) => event === 'quarantined')!.msg,
      /^worker 1 .* is quarantined: answered wrong twice: layer fc/,
    );
    spoil = { 1: flipsBit };
    await answers(layer, input, oracle);
    cluster.release(1); // before that answer has been looked into: it does not count any more
    await answers(layer, input, oracle);
    spoil = { 2: flipsBit };
    await answers(layer, input, oracle);
    await until(cluster, () => cluster.workers[2]!.wrongAnswers === 1); // answers are looked into one after the other
    assert.equal(cluster.workers[1]!.wrongAnswers, 3);
    assert.equal(cluster.workers[1]!.state, 'ready');
    await fails(
      Promise.resolve().then(() => cluster.release(5)),
      'INVALID_ARGUMENT',
      /worker: 5 is outside/,
    );
  });

  it('refuses what it does not know', async () => {
    await using cluster = await connect({ workers: faulty.addresses });
    const verify = 'always' as 'none';
    await fails(codedLayer(DENSE, { cluster, verify }), 'INVALID_ARGUMENT', /verify: "always" is not one of none/);
  });
});
