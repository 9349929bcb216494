/**
 * encode: how near the making of a parity block is to a plain loop that adds. The eight layers of AlexNet with random weights
 * and biases, k = 4: each parity block of the sum code (r = 1) and of the rotation code (r = 2), `encodeLayer(…).block(k + i)`.
 *
 * The baseline reads as many floats and writes as many, float32 throughout: for the sum code out[i] = a[i] + b[i] + c[i] + d[i]
 * over the four data blocks; a row of the rotation code is made of eight half blocks, and so is a row of its baseline. It
 * neither scales nor multiplies.
 *
 * A figure is the sum over the layers; one of its samples is the sum of one block of each. The scales of the rows, which
 * all parity blocks share, have a figure of their own, against the same loop.
 */
import { seededRng, systemClock } from '@kofn/core';
import { createCode, encodeLayer, type Code, type LayerEncoding, type LinearMap } from '@kofn/encoder';
import { figure, type Bench, type Figure } from './bench.js';
import { interleaved } from './statistics.js';

const K = 4;
const ROUNDS = 25;
const WARM_UP = 3;
const TARGET = { atMost: 1.2 };
/** AlexNet, as models/generate.mjs makes it: output units, weights a unit. */
const LAYERS = [
  { units: 64, fanIn: 3 * 11 * 11 },
  { units: 192, fanIn: 64 * 5 * 5 },
  { units: 384, fanIn: 192 * 3 * 3 },
  { units: 256, fanIn: 384 * 3 * 3 },
  { units: 256, fanIn: 256 * 3 * 3 },
  { units: 4096, fanIn: 9216 },
  { units: 4096, fanIn: 4096 },
  { units: 1000, fanIn: 4096 },
] as const;

export const encode: Bench = {
  name: 'encode',
  what: "a parity block of each of AlexNet's layers, k = 4, r = 1 and 2",
  baseline: 'a plain loop that adds as many floats',
  async run({ progress }) {
    const rng = seededRng(1);
    const layers: LinearMap[] = LAYERS.map(({ units, fanIn }) => ({
      units,
      fanIn,
      groups: 1,
      weights: Float32Array.from({ length: units * fanIn }, () => rng.uniform() - 0.5),
      bias: Float32Array.from({ length: units }, () => rng.uniform() - 0.5),
    }));
    const figures: Figure[] = [];
    const codes = [createCode('sum', { k: K, r: 1 }), createCode('rotation', { k: K, r: 2 })];
    const step = (done: number, of: number) => progress(figures.length + done / of, codes.length + 1);
    for (const code of codes) {
      const encodings = layers.map(layer => encodeLayer(layer, code));
      const samples = await interleaved(
        { value: () => parityMs(encodings, code), baseline: () => addMs(layers, encodings, code.subBlocks) },
        { rounds: ROUNDS, warmUp: WARM_UP, progress: step },
      );
      figures.push(figure({ name: `parity block, ${code.name}, r = ${code.r}`, unit: 'ms', target: TARGET }, samples));
    }
    const [sum] = codes as [Code];
    const encodings = layers.map(layer => encodeLayer(layer, sum));
    const samples = await interleaved(
      {
        value: () => elapsed(() => layers.forEach(layer => encodeLayer(layer, sum).scales)),
        baseline: () => addMs(layers, encodings, 1),
      },
      { rounds: ROUNDS, warmUp: WARM_UP, progress: step },
    );
    figures.push(figure({ name: 'scales, once a layer', unit: 'ms', target: TARGET }, samples));
    return figures;
  },
};

type Four = [Float32Array, Float32Array, Float32Array, Float32Array];
type Parts = [...Four, ...Partial<Four>];

/** A parity block of each layer; of the r there are, the mean. */
function parityMs(encodings: readonly LayerEncoding[], { k, r }: Code): Promise<number> {
  return elapsed(() => {
    for (const encoding of encodings) for (let parity = 0; parity < r; parity++) encoding.block(k + parity);
  }).then(ms => ms / r);
}

function addMs(layers: readonly LinearMap[], encodings: readonly LayerEncoding[], subBlocks: number): Promise<number> {
  return elapsed(() => {
    for (const [index, { weights, fanIn }] of layers.entries()) {
      const { blockUnits } = encodings[index]!.partition;
      const length = (blockUnits / subBlocks) * fanIn;
      const parts = Array.from({ length: K * subBlocks }, (_, part) =>
        (weights as Float32Array).subarray(part * length, (part + 1) * length),
      );
      const out = new Float32Array(blockUnits * fanIn);
      for (let part = 0; part < subBlocks; part++) add(parts, out.subarray(part * length, (part + 1) * length));
    }
  });
}

function add(parts: readonly Float32Array[], out: Float32Array): void {
  const [a, b, c, d, e, f, g, h] = parts as Parts;
  if (e === undefined || f === undefined || g === undefined || h === undefined) {
    for (let i = 0; i < out.length; i++) out[i] = a[i]! + b[i]! + c[i]! + d[i]!;
  } else {
    for (let i = 0; i < out.length; i++) out[i] = a[i]! + b[i]! + c[i]! + d[i]! + e[i]! + f[i]! + g[i]! + h[i]!;
  }
}

function elapsed(work: () => void): Promise<number> {
  const start = systemClock.now();
  work();
  return Promise.resolve(systemClock.now() - start);
}
