/** Tensors that are still to be sent to a worker which does not read, while the request goes on without it. */
import assert from 'node:assert/strict';
import { float32, seededRng } from '@kofn/core';
import { codedModel, connect } from 'kofn';
import { describe, it } from 'mocha';
import { keptWorkers } from '../support/kept-workers.js';
import { drawn, makeModel } from '../support/onnx-models.js';

const CHANNELS = 8;
const SIZE = 128;

describe('a value that goes to workers and to a segment of the master', () => {
  it('is left as it is until every worker has it: a stalled one breaks nothing', async () => {
    const rng = seededRng(5);
    const weights = drawn([CHANNELS, CHANNELS, 1, 1], () => rng.normal());
    // The sum reads the value that the convolution was sent, after it.
    const model = makeModel({
      nodes: [
        { op: 'Relu', inputs: ['x'], outputs: ['v'] },
        { op: 'Conv', name: 'conv', inputs: ['v', 'w'], outputs: ['c'] },
        { op: 'Add', inputs: ['c', 'v'], outputs: ['y'] },
      ],
      inputs: { x: { dtype: 'float32', shape: [1, CHANNELS, SIZE, SIZE] } },
      outputs: { y: { dtype: 'float32' } },
      initializers: { w: weights },
    });
    await using workers = await keptWorkers(5);
    await using cluster = await connect({ workers: workers.addresses, silenceMs: 60_000 });
    await using coded = await codedModel(model, { cluster, parity: 1, layers: 'all', onLoss: 'fail' });
    const x = float32([1, CHANNELS, SIZE, SIZE], new Float32Array(CHANNELS * SIZE * SIZE).fill(0.5));
    const ask = async () => {
      const { outputs, report } = await coded.run({ x });
      return { y: outputs['y']!.data as Float32Array, layer: report.layers[0]! };
    };
    const { y: expected } = await ask();
    workers.pause(1);
    // More than the sockets' buffers take, so that frames wait in this process.
    for (let request = 0; request < 40; request++) {
      const { y, layer } = await ask();
      assert.ok(y.every((value, i) => Math.abs(value - expected[i]!) < 1e-4));
      assert.deepEqual(layer.erasures, []);
    }
    workers.resume(1);
    for (let request = 0; request < 5; request++) assert.deepEqual((await ask()).layer.erasures, []);
    assert.deepEqual(
      cluster.workers.map(({ state }) => state),
      ['ready', 'ready', 'ready', 'ready', 'ready'],
    );
  });
});
