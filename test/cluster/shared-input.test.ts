/** Layers that read the same value share its way to the workers: no tensor crosses the wire twice in one request. */
import assert from 'node:assert/strict';
import { seededRng, tensorBytes, type Tensors } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import { codedModel, type RunReport } from 'kofn';
import { after, before, describe, it } from 'mocha';
import { lossyCluster, runLossy, type LossyCluster } from '../support/lossy-cluster.js';
import { drawn, makeModel, runWhole, type ModelSpec } from '../support/onnx-models.js';
import { assertClose, largest } from '../support/single-node.js';

/** What a frame has beside the tensor: names, shapes, ids. */
const FRAME_BYTES = 400;

const rng = seededRng(3);
const normal = (...shape: number[]) => drawn(shape, () => rng.normal());
const output = { dtype: 'float32' } as const;

/** Queries, keys and values of one input, as a transformer has them, and the input again one step later. */
const attention: ModelSpec = {
  nodes: [
    { op: 'MatMul', name: 'query', inputs: ['x', 'wq'], outputs: ['q'] },
    { op: 'MatMul', name: 'key', inputs: ['x', 'wk'], outputs: ['k'] },
    { op: 'MatMul', name: 'value', inputs: ['x', 'wv'], outputs: ['v'] },
    { op: 'Relu', inputs: ['q'], outputs: ['r'] },
    { op: 'MatMul', name: 'out', inputs: ['r', 'wo'], outputs: ['o'] },
  ],
  inputs: { x: { dtype: 'float32', shape: ['N', 10, 128] } },
  outputs: { k: output, v: output, o: output },
  initializers: { wq: normal(128, 64), wk: normal(128, 64), wv: normal(128, 32), wo: normal(64, 128) },
};

/** An Inception's branches: convolutions of different kernels on one image. */
const inception: ModelSpec = {
  nodes: [
    { op: 'Conv', name: 'b1', inputs: ['x', 'w1'], outputs: ['y1'] },
    { op: 'Conv', name: 'b3', inputs: ['x', 'w3'], outputs: ['y3'], attributes: { pads: [1, 1, 1, 1] } },
    { op: 'Conv', name: 'b5', inputs: ['x', 'w5'], outputs: ['y5'], attributes: { pads: [2, 2, 2, 2] } },
    { op: 'Concat', inputs: ['y1', 'y3', 'y5'], outputs: ['y'], attributes: { axis: 1 } },
  ],
  inputs: { x: { dtype: 'float32', shape: ['N', 8, 16, 16] } },
  outputs: { y: output },
  initializers: { w1: normal(8, 8, 1, 1), w3: normal(16, 8, 3, 3), w5: normal(4, 8, 5, 5) },
};

describe('layers that share an input', () => {
  let engine: Engine;
  let lossy: LossyCluster;
  before(async () => {
    engine = await createEngine('native');
    lossy = await lossyCluster([2]);
  });
  after(async () => {
    await lossy[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  const cases: [string, ModelSpec, Tensors, string[][]][] = [
    ['of a transformer', attention, { x: normal(2, 10, 128) }, [['query', 'key', 'value'], ['out']]],
    ['of an Inception', inception, { x: normal(1, 8, 16, 16) }, [['b1', 'b3', 'b5']]],
  ];
  for (const [what, spec, feeds, groups] of cases) {
    it(`send it once: ${what}`, async () => {
      const files = makeModel(spec);
      const whole = await runWhole(engine, files, feeds);
      const { outputs } = await runLossy(lossy, files, feeds);
      for (const [name, value] of Object.entries(whole))
        assertClose(outputs[name]!, value, 1e-4 * largest(value), name);

      await using model = await codedModel(files, { cluster: lossy.cluster });
      const { report } = await model.run(feeds);
      assert.deepEqual(
        report.layers.map(({ name }) => name),
        groups.flat(),
      );
      for (const group of groups) assertOneCall(report, group);
      const [first] = groups;
      const inputBytes = tensorBytes(feeds['x']!).byteLength;
      const sent = bytesOf(report, first!);
      assert.ok(sent >= 5 * inputBytes && sent < 5 * (inputBytes + FRAME_BYTES), `${sent} bytes for 5 x ${inputBytes}`);
    });
  }
});

/** The bytes of a call stand with the first layer of those that share it. */
function assertOneCall(report: RunReport, group: readonly string[]): void {
  const layers = group.map(name => report.layers.find(layer => layer.name === name)!);
  assert.ok(layers[0]!.bytesSent > 0);
  for (const layer of layers.slice(1)) assert.deepEqual([layer.bytesSent, layer.bytesReceived], [0, 0]);
  for (const layer of layers) assert.deepEqual(layer.arrivals, layers[0]!.arrivals);
}

function bytesOf({ layers }: RunReport, group: readonly string[]): number {
  return layers.filter(({ name }) => group.includes(name)).reduce((sum, { bytesSent }) => sum + bytesSent, 0);
}
