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
import { float32, seededRng, systemClock, type Float32Tensor } from '@kofn/core';
import { createCode, DecodePlans, encodeLayer, ProgressiveDecoder } from '@kofn/encoder';
import { codedLayer, connect, startLocalWorkers, type LayerSpec } from 'kofn';
import { figure, type Bench, type Figure } from './bench.js';
import { interleaved, timed, type Sample } from './statistics.js';

const ROUNDS = 30;
const WARM_UP = 5;
/** Decodes a round: they are short beside the requests between them. */
const DECODES = 7;
const CODES = [
  { code: 'sum', k: 4, r: 1, lost: 'one block lost' },
  { code: 'rotation', k: 8, r: 2, lost: 'two blocks lost' },
] as const;

interface Layer {
  readonly name: string;
  readonly weights: readonly number[];
  readonly input: readonly number[];
  /** Output elements of a unit. */
  readonly inner: number;
}

const LAYERS: readonly Layer[] = [
  { name: 'FC 9216→4096', weights: [4096, 9216], input: [1, 9216], inner: 1 },
  { name: 'FC 4096→4096', weights: [4096, 4096], input: [1, 4096], inner: 1 },
  { name: 'conv 256→384, 13x13', weights: [384, 256, 3, 3], input: [1, 256, 13, 13], inner: 13 * 13 },
  { name: 'conv 64→64, 56x56', weights: [64, 64, 3, 3], input: [1, 64, 56, 56], inner: 56 * 56 },
];

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
function finishMs({ inner }: Layer, weights: Float32Tensor, of: (typeof CODES)[number]): Sample {
  const [units = 0] = weights.shape;
  const code = createCode(of.code, of);
  const map = { units, fanIn: weights.data.length / units, groups: 1, weights: weights.data };
  const { partition, scales } = encodeLayer(map, code);
  const blockFloats = partition.blockUnits * inner;
  const blocks = Array.from({ length: code.n }, (_, block) => random([blockFloats], block).data);
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

function specOf({ shape, data }: Float32Tensor): LayerSpec {
  const weights = { shape, data };
  return shape.length === 2 ? { type: 'dense', weights } : { type: 'conv', weights, pads: [1, 1, 1, 1] };
}

function random(shape: readonly number[], seed = 99): Float32Tensor {
  const rng = seededRng(seed);
  const length = shape.reduce((a, b) => a * b, 1);
  return float32(
    shape,
    Float32Array.from({ length }, () => rng.uniform() - 0.5),
  );
}
