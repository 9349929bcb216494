/** `codedLayer` as a user calls it, on worker processes: every way to say what the layer is, and what is wrong with it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { seededRng, type Rng } from '@kofn/core';
import { codedLayer, codedModel, connect, float32, tensor } from 'kofn';
import type { Cluster, LayerSpec } from 'kofn';
import { Matrix } from 'ml-matrix';
import { after, before, describe, it } from 'mocha';
import { MODEL } from '../e2e/command.js';
import { fails } from '../support/engines.js';
import { keptWorkers, type KeptWorkers } from '../support/kept-workers.js';

describe('codedLayer on five workers', () => {
  let workers: KeptWorkers;
  let cluster: Cluster;
  let rng: Rng;
  before(async () => {
    workers = await keptWorkers(5);
    cluster = await connect({ workers: workers.addresses });
    rng = seededRng(11);
  });
  after(async () => {
    await cluster.close();
    await workers[Symbol.asyncDispose]();
  });
  const draw = (length: number) => Float32Array.from({ length }, () => rng.normal());

  it('runs a dense layer, however its weights are given, and reports who answered', async () => {
    const rows = Array.from({ length: 10 }, () => [...draw(6)]);
    const bias = [...draw(10)];
    const x = [[...draw(6)], [...draw(6)]];
    const expected = x.flatMap(input =>
      rows.map((row, unit) =>
        Math.max(
          0,
          row.reduce((sum, weight, i) => sum + weight * input[i]!, bias[unit]!),
        ),
      ),
    );
    const weights = [rows, new Matrix(rows), { data: rows.flat(), shape: [10, 6] }];
    for (const [parity, form] of weights.map((form, i) => [i % 3, form] as const)) {
      await using layer = await codedLayer(
        { type: 'dense', weights: form, bias, activation: 'relu' },
        { cluster, parity },
      );
      const { output, report } = await layer.run(x);
      assert.deepEqual(output.shape, [2, 10]);
      output.data.forEach((value, i) => assert.ok(Math.abs(value - expected[i]!) < 1e-4, `${value} ${expected[i]}`));
      const [about] = report.layers;
      assert.equal(about!.decodeSet.length, 5 - parity);
      assert.ok(about!.arrivals.length >= 5 - parity && about!.arrivals.every(({ ms }) => ms > 0));
      assert.deepEqual([about!.erasures, about!.computedHere], [[], []]);
      assert.ok(about!.errorGain >= 1 && about!.bytesSent > 0 && about!.bytesReceived > 0);
    }
  });

  it('runs convolutions in 1, 2 and 3 dimensions, with groups, strides, pads and dilations', async () => {
    // An impulse picks single weights: the output of a convolution with known weights is known without a second engine.
    const shapes = [
      { kernel: [3], spatial: [5] },
      { kernel: [3, 3], spatial: [5, 5] },
      { kernel: [3, 3, 3], spatial: [5, 5, 5] },
    ];
    for (const { kernel, spatial } of shapes) {
      const dims = kernel.length;
      const [units, groups, window] = [8, 2, 3 ** dims];
      const weights = { data: draw(units * window), shape: [units, 1, ...kernel] };
      await using layer = await codedLayer(
        {
          type: 'conv',
          weights,
          groups,
          pads: new Array<number>(2 * dims).fill(1),
          strides: new Array<number>(dims).fill(2),
        },
        { cluster },
      );
      const input = new Float32Array(2 * 5 ** dims);
      const centre = (5 ** dims - 1) / 2;
      input[centre] = 1; // the first group's channel; the second reads zeros
      const { output } = await layer.run(float32([1, 2, ...spatial], input));
      assert.deepEqual(output.shape, [1, units, ...kernel]);
      const [outputs, middle] = [3 ** dims, (3 ** dims - 1) / 2];
      for (let unit = 0; unit < units; unit++) {
        const expected = unit < units / groups ? weights.data[unit * window + middle]! : 0;
        assert.ok(Math.abs(output.data[unit * outputs + middle]! - expected) < 1e-5, `unit ${unit} in ${dims}-D`);
      }
    }
  });

  it('takes a node of an ONNX model, from a path or bytes', async () => {
    const wanted = 'conv2';
    for (const onnx of [MODEL, readFileSync(MODEL)]) {
      await using layer = await codedLayer({ onnx, node: wanted }, { cluster, parity: 2 });
      assert.deepEqual(
        layer.plan.layers.map(({ name, decision, coded }) => [name, decision, coded?.code, coded?.k, coded?.r]),
        [[wanted, 'coded', 'rotation', 3, 2]],
      );
      const { output } = await layer.run(float32([2, 24, 28, 28], draw(2 * 24 * 28 * 28)));
      assert.deepEqual(output.shape, [2, 24, 28, 28]);
    }
  });

  it('takes the first node of a model, whose input sizes its file fixes', async () => {
    await using layer = await codedLayer({ onnx: MODEL, node: 'conv1' }, { cluster });
    const { output } = await layer.run(float32([2, 1, 28, 28], draw(2 * 28 * 28)));
    assert.deepEqual(output.shape, [2, 24, 28, 28]);
  });

  it('sends a shard that a worker has only once', async () => {
    const weights = { data: draw(64 * 64), shape: [64, 64] };
    const sent: number[] = [];
    const onProgress = ({ totalBytes }: { totalBytes: number }) => sent.push(totalBytes);
    await using _first = await codedLayer({ type: 'dense', weights }, { cluster, onProgress });
    const chunks = sent.length;
    await using _second = await codedLayer({ type: 'dense', weights }, { cluster, onProgress });
    assert.equal(sent.length, chunks, 'the second time nothing');
    assert.ok(sent.at(-1)! > 64 * 64 * 4, 'the first time all of it');
    // Another master sees what the workers hold.
    await using other = await connect({ workers: workers.addresses });
    await using _ = await codedLayer(
      { type: 'dense', weights },
      { cluster: other, onProgress: () => assert.fail('sent') },
    );
  });

  const matrix = { data: new Float32Array(60).fill(1), shape: [10, 6] };
  const kernel = { data: new Float32Array(8 * 9).fill(1), shape: [8, 1, 3, 3] };
  const wrong: [string, LayerSpec, Parameters<typeof fails>[1], RegExp][] = [
    [
      'rows of different lengths',
      { type: 'dense', weights: [[1, 2], [3]] },
      'SHAPE_MISMATCH',
      /weights: row 1 has 1 values, row 0 has 2/,
    ],
    [
      'a shape that does not fit',
      { type: 'dense', weights: { ...matrix, shape: [10, 7] } },
      'SHAPE_MISMATCH',
      /holds 70 elements, the data has 60/,
    ],
    [
      'dense weights with a kernel',
      { type: 'dense', weights: kernel },
      'SHAPE_MISMATCH',
      /dense weights are \[outputs, inputs\]/,
    ],
    [
      'conv weights without one',
      { type: 'conv', weights: matrix },
      'SHAPE_MISMATCH',
      /1 to 3 kernel sizes, got shape \[10,6\]/,
    ],
    [
      'a bias of another length',
      { type: 'dense', weights: matrix, bias: [1] },
      'SHAPE_MISMATCH',
      /bias: has 1 values, the layer has 10/,
    ],
    ['NaN in the weights', { type: 'dense', weights: [[1], [NaN], [1], [1]] }, 'NON_FINITE', /weights: value 1 is NaN/],
    ['no weights', { type: 'dense', weights: [] }, 'INVALID_ARGUMENT', /no elements/],
    [
      'groups that do not divide',
      { type: 'conv', weights: kernel, groups: 3 },
      'INVALID_ARGUMENT',
      /groups: 3 does not divide/,
    ],
    [
      'strides of another rank',
      { type: 'conv', weights: kernel, strides: [1] },
      'INVALID_ARGUMENT',
      /strides: \[1\] must be 2 whole/,
    ],
    ['negative pads', { type: 'conv', weights: kernel, pads: [0, 0, 0, -1] }, 'INVALID_ARGUMENT', /pads: \[0,0,0,-1\]/],
    [
      'an unknown activation',
      { type: 'dense', weights: matrix, activation: 'gelu' as 'relu' },
      'INVALID_ARGUMENT',
      /"gelu" is not one of relu/,
    ],
    [
      'fewer rows than blocks',
      { type: 'dense', weights: [[1], [2]] },
      'UNSUPPORTED',
      /2 output rows cannot be cut into 4 blocks/,
    ],
    [
      'a node that is not there',
      { onnx: MODEL, node: 'conv9' },
      'NOT_FOUND',
      /no linear layer "conv9"; it has conv1, conv2/,
    ],
    ['a file that is not there', { onnx: 'nowhere.onnx', node: 'conv1' }, 'NOT_FOUND', /nowhere.onnx does not exist/],
  ];
  for (const [what, spec, code, message] of wrong) {
    it(`refuses ${what}`, () => fails(codedLayer(spec, { cluster }), code, message));
  }

  it('refuses inputs that do not fit, naming both, and goes on', async () => {
    await using layer = await codedLayer({ type: 'dense', weights: matrix }, { cluster });
    await fails(layer.run([[1, 2, 3]]), 'SHAPE_MISMATCH', /has shape \[rows,6\] in the model, got \[1,3\]/);
    await fails(
      layer.run(tensor('float64', [1, 6], new Float64Array(6))),
      'DTYPE_MISMATCH',
      /is float32 .* got float64/,
    );
    assert.deepEqual([...(await layer.run([[1, 1, 1, 1, 1, 1]])).output.data], new Array(10).fill(6));
    await fails(layer.run([[1, 1, 1, 1, 1, 1]], { deadlineMs: 0 }), 'INVALID_ARGUMENT', /deadlineMs: 0 is outside/);
  });

  it('is over when closed, and says so', async () => {
    const layer = await codedLayer({ type: 'dense', weights: matrix }, { cluster });
    await layer.close();
    await layer.close();
    await fails(layer.run([[1, 1, 1, 1, 1, 1]]), 'CANCELLED', /closed; deploy it again/);
    const other = await connect({ workers: workers.addresses });
    await other.close();
    await fails(codedModel(MODEL, { cluster: other }), 'CANCELLED', /closed; connect again/);
  });
});
