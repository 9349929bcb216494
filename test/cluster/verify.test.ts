/** Workers that compute wrong but finite numbers, and what `verify` makes of them: engines in this process that tamper. */
import assert from 'node:assert/strict';
import { float32, seededRng, type Float32Tensor, type Tensors } from '@kofn/core';
import { codedLayer, connect, type Cluster, type CodedLayer, type DenseLayer, type ConvLayer } from 'kofn';
import { describe, it } from 'mocha';
import { fails } from '../support/engines.js';
import { faultyWorkers, type Spoil } from '../support/lossy-cluster.js';

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
const LAYERS = [
  { what: 'dense, three rows', spec: DENSE, input: float32([3, 40], normal(120)) },
  { what: 'grouped and strided conv, two samples', spec: CONV, input: float32([2, 6, 9, 7], normal(756)) },
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
  for (const { what, spec, input } of LAYERS) {
    it(`survives r liars with fingerprints: ${what}`, async () => {
      let spoil: Spoil = outputs => outputs;
      await using faulty = await faultyWorkers([0, 2], outputs => spoil(outputs));
      await using cluster = await connect({ workers: faulty.addresses });
      await using layer = await codedLayer(spec, { cluster, parity: 2, verify: 'fingerprint', ...ALL });
      const oracle = (await layer.run(input)).output;
      for (const lie of [flipsBit, scales]) {
        spoil = lie;
        const report = await answers(layer, input, oracle);
        assert.deepEqual(
          [...report.rejected].sort((a, b) => a.block - b.block),
          [
            { block: 0, worker: 0 },
            { block: 2, worker: 2 },
          ],
        );
        assert.deepEqual(new Set(report.erasures.map(({ code }) => code)), new Set(['WRONG_ANSWER']));
      }
    });
  }

  it('believes a liar without', async () => {
    const [{ spec, input }] = LAYERS;
    await using faulty = await faultyWorkers([0], scales);
    await using cluster = await connect({ workers: faulty.addresses });
    await using layer = await codedLayer(spec, { cluster, ...ALL });
    assert.deepEqual((await layer.run(input)).report.layers[0]!.rejected, []);
    assert.equal(cluster.workers[0]!.wrongAnswers, 0);
  });

  it('quarantines a worker that was wrong twice, until it is released', async () => {
    const [{ spec, input }] = LAYERS;
    let isLying = false;
    await using faulty = await faultyWorkers([1], outputs => (isLying ? flipsBit(outputs) : outputs));
    await using cluster = await connect({ workers: faulty.addresses });
    await using layer = await codedLayer({ ...spec, name: 'fc' }, { cluster, verify: 'fingerprint', ...ALL });
    const oracle = (await layer.run(input)).output;
    isLying = true;
    await answers(layer, input, oracle);
    await until(cluster, () => cluster.workers[1]!.wrongAnswers === 1);
    assert.equal(cluster.workers[1]!.state, 'ready');
    await answers(layer, input, oracle);
    await until(cluster, () => cluster.workers[1]!.state === 'quarantined');
    assert.equal(cluster.workers[1]!.reason, 'answered wrong twice: layer fc, block 1');
    assert.equal((await answers(layer, input, oracle)).erasures[0]!.code, 'UNAVAILABLE');
    isLying = false;
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
    await fails(
      Promise.resolve().then(() => cluster.release(5)),
      'INVALID_ARGUMENT',
      /worker: 5 is outside/,
    );
  });

  it('refuses what it does not know', async () => {
    await using faulty = await faultyWorkers([], outputs => outputs);
    await using cluster = await connect({ workers: faulty.addresses });
    const verify = 'always' as 'none';
    await fails(codedLayer(DENSE, { cluster, verify }), 'INVALID_ARGUMENT', /verify: "always" is not one of none/);
  });
});
