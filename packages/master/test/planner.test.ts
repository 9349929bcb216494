/** What is coded and why, at assumed speeds: figures that can be worked out by hand. */
import assert from 'node:assert/strict';
import { float32, isKofnError, type ErrorCode } from '@kofn/core';
import { layerModel, type LinearLayer, type ModelFiles } from '@kofn/graph';
import { describe, it } from 'mocha';
import { ASSUMED_SPEEDS, planModel, type LayerChoice, type ModelOptions } from '../src/index.js';

function dense(units: number, fanIn: number, bias = true): ModelFiles {
  const layer: LinearLayer = {
    name: 'fc',
    operator: 'Gemm',
    units,
    fanIn,
    weights: new Float32Array(units * fanIn).fill(0.5),
    bias: bias ? new Float32Array(units) : undefined,
  };
  return layerModel(layer, 'relu');
}

const plan = (model: ModelFiles, layers: LayerChoice, options: ModelOptions = {}) =>
  planModel(model, { ...options, layers, workerCount: 5 });

const refused = (work: Promise<unknown>, code: ErrorCode, message: RegExp) =>
  assert.rejects(work, error => isKofnError(error, code) && message.test(error.message));

describe('planner', () => {
  it('codes a layer that pays, and shows both sides', async () => {
    const { layers, speeds } = await plan(dense(4096, 4096), 'auto');
    assert.deepEqual(speeds, ASSUMED_SPEEDS);
    const [layer] = layers;
    assert.equal(layer!.decision, 'coded');
    assert.equal(layer!.macs, 4096 * 4096);
    assert.equal(layer!.weightBytes, 4 * 4096 * 4097);
    assert.deepEqual(
      [layer!.inputShape, layer!.outputShape],
      [
        [1, 4096],
        [1, 4096],
      ],
    );
    assert.deepEqual(layer!.coded, {
      code: 'sum',
      k: 4,
      r: 1,
      axis: 'rows',
      workers: [0, 1, 2, 3, 4],
      shardBytes: 4 * 1024 * 4097,
      inputBytes: 4 * 4096,
      replyBytes: 4 * 1024,
    });
    // 2 GFLOP/s, 100 Mbit/s, 1 ms: 16.8 ms here; 1 + 7.9 ms for 98,304 bytes + a quarter of 16.8 coded.
    const { localMs, roundTripMs, transferMs, shardMs, codedMs } = layer!.costs!;
    assert.equal(localMs, (2 * 4096 * 4096) / 2e6);
    assert.equal(roundTripMs, 1);
    assert.equal(transferMs, ((5 * 4 * 4096 + 4 * 4 * 1024) * 8) / 1e5);
    assert.equal(shardMs, localMs / 4);
    assert.equal(codedMs, roundTripMs + transferMs + shardMs);
    assert.match(layer!.reason, /^coded sum \(k = 4, r = 1\): 16.8 ms here, 13.1 ms coded$/);
  });

  it('leaves a layer alone that does not pay, unless told', async () => {
    const small = dense(64, 64);
    const [auto] = (await plan(small, 'auto')).layers;
    assert.equal(auto!.decision, 'local');
    assert.match(auto!.reason, /^does not pay: 0.00410 ms here, 1\.\d+ ms coded$/);
    assert.equal(auto!.coded, undefined);
    assert.equal((await plan(small, 'all')).layers[0]!.reason, 'coded sum (k = 4, r = 1): all layers were chosen');
    assert.equal((await plan(small, ['fc'])).layers[0]!.reason, 'coded sum (k = 4, r = 1): chosen by name');
  });

  it('leaves a layer alone that has fewer rows than blocks, and says so', async () => {
    const [layer] = (await plan(dense(3, 64), 'all')).layers;
    assert.deepEqual([layer!.decision, layer!.reason], ['local', '3 output rows cannot be cut into 4 blocks']);
    await refused(plan(dense(3, 64), ['fc']), 'UNSUPPORTED', /layers: "fc" cannot be coded: 3 output rows/);
  });

  it('counts padding: blocks are of equal size', async () => {
    const [layer] = (await plan(dense(9, 10, false), 'all', { parity: 2 })).layers;
    // 9 rows in 3 blocks of complex rows: 4 each.
    assert.equal(layer!.coded!.shardBytes, 4 * 4 * 10);
  });

  it('profiles with the input it is given', async () => {
    const input = { x: float32([3, 64], new Float32Array(3 * 64)) };
    const [layer] = (await plan(dense(64, 64), 'all', { sampleInputs: input })).layers;
    assert.deepEqual([layer!.inputShape, layer!.macs], [[3, 64], 3 * 64 * 64]);
    const wrong = { x: float32([3, 65], new Float32Array(3 * 65)) };
    await refused(plan(dense(64, 64), 'all', { sampleInputs: wrong }), 'SHAPE_MISMATCH', /"x" has shape \[rows,64\]/);
  });

  it('names the layers there are when one is not', () =>
    refused(plan(dense(8, 8), ['conv1']), 'NOT_FOUND', /layers: the model has no linear layer "conv1"; it has fc/));
});
