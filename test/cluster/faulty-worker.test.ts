/** A worker that answers wrongly is an erasure and nothing else: four sound workers and one whose engine is broken. */
import assert from 'node:assert/strict';
import { float32, KofnError, tensor, type ErrorCode, type Tensors } from '@kofn/core';
import type { RunningWorker } from '@kofn/worker';
import { codedLayer, connect } from 'kofn';
import { describe, it } from 'mocha';
import { faultyWorkers, type Spoil } from '../support/lossy-cluster.js';

const UNITS = 8;
const weights = Array.from({ length: UNITS }, (_, unit) => [unit + 1, -unit]);
const x = [[3, 2]];
const expected = weights.map(([a = 0, b = 0]) => 3 * a + 2 * b);

/** Five workers of which the first `count` are spoiled, for the time of `work`. */
async function withSpoiled(
  count: number,
  spoil: Spoil,
  work: (addresses: readonly string[], workers: readonly RunningWorker[]) => Promise<void>,
): Promise<void> {
  await using faulty = await faultyWorkers([0, 1, 2, 3, 4].slice(0, count), spoil);
  await work(faulty.addresses, faulty.workers);
}

const y = (outputs: Tensors) => outputs['y']!.data as Float32Array;
const faults: [string, ErrorCode, Spoil][] = [
  ['of another shape', 'SHAPE_MISMATCH', outputs => ({ y: float32([2, 1], y(outputs)) })],
  ['too long', 'SHAPE_MISMATCH', outputs => ({ y: float32([1, 3], Float32Array.of(...y(outputs), 0)) })],
  [
    'of another element type',
    'DTYPE_MISMATCH',
    outputs => ({ y: tensor('float64', [1, 2], Float64Array.from(y(outputs))) }),
  ],
  ['with NaN', 'NON_FINITE', () => ({ y: float32([1, 2], Float32Array.of(NaN, 1)) })],
  ['with an infinity', 'NON_FINITE', () => ({ y: float32([1, 2], Float32Array.of(1, Infinity)) })],
  ['under another name', 'PROTOCOL', outputs => ({ z: outputs['y']! })],
  [
    'that is an error',
    'ENGINE',
    () => {
      throw new KofnError('ENGINE', 'out of order');
    },
  ],
];

describe('a worker that answers wrongly', () => {
  for (const [what, code, spoil] of faults) {
    it(`is an erasure when its reply is ${what}`, () =>
      withSpoiled(1, spoil, async workers => {
        await using cluster = await connect({ workers });
        // With a grace every reply is looked at, the wrong one too, however late it comes.
        await using layer = await codedLayer({ type: 'dense', weights }, { cluster, systematicGraceMs: 20_000 });
        const { output, report } = await layer.run(x);
        output.data.forEach((value, unit) => assert.ok(Math.abs(value - expected[unit]!) < 1e-4, `unit ${unit}`));
        const [about] = report.layers;
        assert.deepEqual(
          about!.erasures.map(({ block, worker, code: why }) => [block, worker, why]),
          [[0, 0, code]],
        );
        assert.deepEqual(about!.recovered, { lost: [0], late: [] });
      }));
  }

  it('is not outvoted when too many do: the master computes their blocks', () =>
    withSpoiled(
      5,
      () => ({ y: float32([1, 2], Float32Array.of(NaN, NaN)) }),
      async workers => {
        await using cluster = await connect({ workers });
        await using layer = await codedLayer({ type: 'dense', weights }, { cluster });
        const { output, report } = await layer.run(x);
        assert.deepEqual([...output.data], expected);
        assert.deepEqual(report.layers[0]!.computedHere, [0, 1, 2, 3]);
      },
    ));

  it('loses its shards and is an erasure; a new deployment gives them back', () =>
    withSpoiled(
      0,
      outputs => outputs,
      async (addresses, workers) => {
        await using cluster = await connect({ workers: addresses });
        await using layer = await codedLayer({ type: 'dense', weights }, { cluster, systematicGraceMs: 20_000 });
        const { store } = workers[3]!.server;
        for (const { name } of store.list()) await store.remove(name);
        const [about] = (await layer.run(x)).report.layers;
        assert.deepEqual(
          about!.erasures.map(({ worker, code }) => [worker, code]),
          [[3, 'NOT_FOUND']],
        );
        await using again = await connect({ workers: addresses });
        await using second = await codedLayer(
          { type: 'dense', weights },
          { cluster: again, systematicGraceMs: 20_000 },
        );
        assert.deepEqual((await second.run(x)).report.layers[0]!.erasures, []);
      },
    ));
});
