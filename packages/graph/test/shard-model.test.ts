/** Layers and blocks as models: their bytes, and what ONNX Runtime makes of them. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { float32 } from '@kofn/core';
import { describe, it } from 'mocha';
import {
  ACTIVATIONS,
  extractNode,
  findCodable,
  layerModel,
  loadModel,
  outputShape,
  shardModel,
  type ActivationName,
  type Codable,
  type LinearLayer,
} from '../src/index.js';
import { onnx } from '../src/model/proto.js';
import { diamond } from './support/diamond.js';
import { assertClose, ramp, values } from './support/models.js';
import { runModel } from './support/ort.js';

describe('layer and shard models', () => {
  const layer: LinearLayer = { name: 'l', operator: 'Gemm', units: 6, fanIn: 100, weights: ramp(600), bias: ramp(6) };

  it('are the same bytes each time, with the weights beside them', () => {
    const block = { weights: ramp(600), bias: ramp(6), units: 6 };
    const files = shardModel([{ layer, ...block }]);
    assert.deepEqual(shardModel([{ layer, ...block }]), files);
    assert.equal(files.weights.byteLength, 2400);
    assert.ok(files.model.byteLength < 400);
    // A shard's name is the hash of its bytes: when they change, every deployed cluster is sent all shards anew.
    const weights = Float32Array.from({ length: 600 }, (_, i) => i);
    const fixed = shardModel([{ layer, weights, bias: weights.slice(0, 6), units: 6 }]);
    const hash = createHash('sha256').update(fixed.model).update(fixed.weights);
    assert.equal(hash.digest('hex'), 'f1e44fbf39dcc6de3bd62bbda4d9601303c9612946554d596fec85b9aaaed7d4');
  });

  it('come back from the file as the layer they were made of', async () => {
    const [report] = findCodable(await loadModel(layerModel(layer, 'relu'))) as [Codable];
    assert.deepEqual(report.layer(), layer);
    const one = await loadModel(extractNode(await loadModel(diamond()), 'conv2'));
    assert.deepEqual(one.inputs, [{ name: 'r', dtype: 'float32', shape: ['N', 4, 5, 5] }]);
    const fc = await loadModel(extractNode(await loadModel(diamond()), 'fc'));
    assert.deepEqual(fc.inputs, [{ name: 'flat', dtype: 'float32', shape: ['rows', 100] }]);
    const model = await loadModel(diamond());
    assert.throws(() => extractNode(model, 'fd'), /no linear layer "fd"; it has conv1, conv2/);
  });

  it('refuse an input that does not fit, naming the shape that does', () => {
    assert.deepEqual(outputShape(layer, [3, 100]), [3, 6]);
    assert.throws(
      () => outputShape(layer, [3, 99]),
      /layer l \(Gemm\) takes an input of shape \[N,100\], got \[3,99\]/,
    );
  });

  it('side by side give the rows or channels of the whole layer, groups kept whole in each', async () => {
    const conv: LinearLayer = {
      name: 'c',
      operator: 'Conv',
      units: 8,
      fanIn: 2 * 9,
      weights: values([8, 2, 3, 3]).data,
      bias: values([8], 2).data,
      conv: { groups: 2, kernel: [3, 3], strides: [2, 1], dilations: [1, 1], pads: [1, 0, 1, 2], autoPad: 'NOTSET' },
    };
    const x = values([2, 4, 7, 6], 3);
    const { y: whole } = await runModel(layerModel(conv), { x });
    assert.deepEqual(whole!.shape, outputShape(conv, x.shape));
    const plane = whole!.shape[2]! * whole!.shape[3]!;
    // Block i of 2 has the i-th half of each group's channels: 0,1 and 4,5; then 2,3 and 6,7.
    for (const channels of [
      [0, 1, 4, 5],
      [2, 3, 6, 7],
    ]) {
      const pick = (data: Float32Array, size: number) =>
        Float32Array.from(channels.flatMap(unit => [...data.subarray(unit * size, (unit + 1) * size)]));
      const block = { weights: pick(conv.weights, 18), bias: pick(conv.bias!, 1), units: 4 };
      const { y } = await runModel(shardModel([{ layer: conv, ...block }]), { x });
      const images = [0, 1].map(n => (whole!.data as Float32Array).subarray(n * 8 * plane, (n + 1) * 8 * plane));
      const expected = Float32Array.from(images.flatMap(image => [...pick(image, plane)]));
      assertClose(y!, float32([2, 4, ...whole!.shape.slice(2)], expected), channels.join());
    }
    const { y: all } = await runModel(layerModel(layer), { x: values([3, 100]) });
    const block = { weights: layer.weights.subarray(200, 400), bias: layer.bias!.subarray(2, 4), units: 2 };
    const { y: rows } = await runModel(shardModel([{ layer, ...block }]), { x: values([3, 100]) });
    const expected = [0, 1, 2].flatMap(row => [...(all!.data as Float32Array).subarray(row * 6 + 2, row * 6 + 4)]);
    assertClose(rows!, float32([3, 2], Float32Array.from(expected)), 'rows 2 and 3');
  });

  it('have every activation after the layer, and a bias after a MatMul', async () => {
    const small: LinearLayer = {
      name: 'l',
      operator: 'MatMul',
      units: 3,
      fanIn: 3,
      weights: identity(3),
      bias: Float32Array.of(0, 0, 1),
    };
    const input = [-2, -0.5, 1]; // with the bias -2, -0.5, 2
    const sum = Math.exp(-2) + Math.exp(-0.5) + Math.exp(2);
    const formulas: Record<ActivationName, (v: number) => number> = {
      relu: v => Math.max(0, v),
      leakyRelu: v => (v < 0 ? 0.01 * v : v),
      elu: v => (v < 0 ? Math.exp(v) - 1 : v),
      sigmoid: v => 1 / (1 + Math.exp(-v)),
      tanh: Math.tanh,
      softplus: v => Math.log(1 + Math.exp(v)),
      softmax: v => Math.exp(v) / sum,
    };
    const conv = { groups: 1, kernel: [1], strides: [1], dilations: [1], pads: [0, 0], autoPad: 'NOTSET' } as const;
    for (const activation of ACTIVATIONS) {
      const expected = Float32Array.from([-2, -0.5, 2].map(formulas[activation]));
      for (const [operator, shape] of [
        ['MatMul', [1, 1, 3]],
        ['Gemm', [1, 3]],
        ['Conv', [1, 3, 1]],
      ] as const) {
        const made = layerModel({ ...small, operator, ...(operator === 'Conv' ? { conv } : {}) }, activation);
        const { y } = await runModel(made, { x: float32(shape, Float32Array.from(input)) });
        assertClose(y!, float32(shape, expected), `${operator} ${activation}`, 1e-6);
      }
    }
  });

  it('start their weights at multiples of 4096, small ones inside the model', () => {
    const wide = { weights: ramp(300 * 100), bias: ramp(300), units: 300 };
    const proto = onnx.ModelProto.decode(shardModel([{ layer, ...wide }]).model);
    const offsets = proto.graph!.initializer!.map(
      ({ externalData }) => externalData?.find(({ key }) => key === 'offset')?.value,
    );
    assert.deepEqual(offsets, ['0', String(Math.ceil((300 * 100 * 4) / 4096) * 4096)]);
  });
});

function identity(size: number): Float32Array {
  return Float32Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0));
}
