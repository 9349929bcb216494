/**
 * decode: what is left to do once the k-th block has come, against the whole request. Four layers, each without its first data
 * block (k = 4, sum code, r = 1) and without its first two (k = 8, rotation code, r = 2): `ProgressiveDecoder.finish` on blocks of
 * random values, with the plan of that set made before, as it is from the second such request on.
 *
 * The baseline is `codedLayer().run()` of that layer on n local workers with one engine thread each; they share the cores of this
 * machine. Weights and values are random: neither side's time depends on them.
 *
 * Data blocks are no part of `finish`: the decoder copies each to its place in the output when it comes, while others are still
 * awaited, and solves for the rest from there. That is checked here: before `finish` the output holds them already, bit for bit,
 * and `finish` hands out that same array.
 */
import { deepEqual, equal } from 'node:assert/strict';
import { elementCount, systemClock, type Float32Tensor } from '@kofn/core';
import { createCode, DecodePlans, encodeLayer, ProgressiveDecoder } from '@kofn/encoder';
import { codedLayer, connect, startLocalWorkers } from 'kofn';
import { figure, type Bench, type Figure } from './bench.js';
import { LAYERS, specOf, type MeasuredLayer } from './harness/layers.js';
import { randomTensors } from './harness/random.js';
import { interleaved, timed, type Sample } from './statistics.js';

const ROUNDS = 30;
const WARM_UP = 5;
/** Decodes a round: they are short beside the requests between them. */
const DECODES = 7;
const CODES = [
  { code: 'sum', k: 4, r: 1, lost: 'one block lost' },
  { code: 'rotation', k: 8, r: 2, lost: 'two blocks lost' },
] as const;

const random = randomTensors(1);

export const decode: Bench = {
  name: 'decode',
  what: 'the work after the k-th arrival, one and two data blocks lost, four layers',
  baseline: 'the whole request on local workers',
  async run({ progress }) {
    const figures: Figure[] = [];
    for (const each of CODES) {
      await using workers = await startLocalWorkers(each.k + each.r);
      await using cluster = await connect({ workers: workers.addresses });
      for (const layer of LAYERS) {
        const weights = random(layer.weights);
        await using coded = await codedLayer(specOf(weights), { cluster, parity: each.r, code: each.code });
        const input = random(layer.input);
        const done = figures.length;
        const samples = await interleaved(
          { value: finishMs(layer, weights, each), baseline: timed(() => coded.run(input)) },
          {
            rounds: ROUNDS,
            warmUp: WARM_UP,
            progress: (round, of) => progress(done + round / of, CODES.length * LAYERS.length),
          },
        );
        const name = `${layer.name}, k = ${each.k}, ${each.lost}`;
        figures.push(figure({ name, unit: 'ms', target: { atMost: 0.05 } }, samples));
      }
    }
    return figures;
  },
};

/** Of DECODES decodes the mean. */
function finishMs({ input }: MeasuredLayer, weights: Float32Tensor, of: (typeof CODES)[number]): Sample {
  const inner = elementCount(input.slice(2)); // of a unit: its output has the size of the input
  const [units = 0] = weights.shape;
  const code = createCode(of.code, of);
  const map = { units, fanIn: weights.data.length / units, groups: 1, weights: weights.data };
  const { partition, scales } = encodeLayer(map, code);
  const blockFloats = partition.blockUnits * inner;
  const blocks = Array.from({ length: code.n }, () => random([blockFloats]).data);
  const plans = new DecodePlans(code);
  const output = new Float32Array(units * inner);
  return () => {
    let ms = 0;
    for (let round = 0; round < DECODES; round++) {
      const decoder = new ProgressiveDecoder({ encoding: { code, partition, scales }, plans, batch: 1, inner, output });
      for (let block = code.r; block < code.n; block++) decoder.accept(block, blocks[block]!);
      checkInPlace();
      const start = systemClock.now();
      const decoded = decoder.finish();
      ms += systemClock.now() - start;
      equal(decoded.output, output);
      equal(decoded.recovered.length, code.r);
    }
    return Promise.resolve(ms / DECODES);
  };

  function checkInPlace(): void {
    for (let block = code.r; block < code.k; block++) {
      const at = block * blockFloats;
      const there = output.subarray(at, at + blockFloats); // the last may be padded
      deepEqual(there, blocks[block]!.subarray(0, there.length));
    }
  }
}
