/**
 * verify: what checking replies costs and how near honest ones come to the tolerance. A request with `verify: 'fingerprint'`, and with
 * 'audit', against the same without, on five workers, four of which it needs: devices that are emulated, for on machines of their own
 * workers leave the master its cores. And for each engine, blocks of layers of the Fashion and the AlexNet models on random inputs, the
 * largest of all their deviations against 1, which is the tolerance.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { randomBytes } from 'node:crypto';
import { elementCount, float32, seededRng } from '@kofn/core';
import { createCode, deviation, encodeLayer, Expectations, fingerprint, type Window } from '@kofn/encoder';
import { createEngine, ENGINE_NAMES, type Engine } from '@kofn/engine';
import { imageOfFiles, saveModel, shardModel } from '@kofn/graph';
import { codedLayer } from 'kofn';
import { figure, type Bench, type Figure } from './bench.js';
import { LAYERS, specOf } from './harness/layers.js';
import { randomTensors } from './harness/random.js';
import { Workers } from './harness/workers.js';
import { interleaved, settled, timed } from './statistics.js';

const WORKERS = 5;
const ROUNDS = 1_000;
const WARM_UP = 300;
/**
 * What a worker computes with: fast for a board, so that the master has little time for its part. Outputs are replayed: they cost no core.
 */
const DEVICE = { gflops: 10, replay: true };
const HOW = ['fingerprint', 'audit'] as const;
const COST_TARGETS = new Map([
  ['FC 4096→4096', 1.05],
  ['conv 3x3 256→384, 13x13', 1.12],
]);
/** An engine. */
const BLOCKS = 20_000;
/** Inputs of each set of weights: the making of those takes longer than a run. */
const INPUTS = 200;
const K = 4;
/** Output units, weights a unit, and for convolutions the size of kernel, padding and input: of the Fashion and the AlexNet models. */
const SHAPES = [
  { units: 128, fanIn: 784 },
  { units: 64, fanIn: 576 },
  { units: 32, fanIn: 16 * 9, conv: { kernel: 3, pad: 1, size: 14 } },
  { units: 256, fanIn: 4096 },
  { units: 64, fanIn: 9216 },
  { units: 48, fanIn: 256 * 9, conv: { kernel: 3, pad: 1, size: 6 } },
] as const;

export const verify: Bench = {
  name: 'verify',
  what: 'a request whose replies are checked; how far honest replies are off',
  baseline: 'the same without checks; the tolerance',
  async run({ progress }) {
    const figures: Figure[] = [];
    const layers = LAYERS.filter(({ name }) => COST_TARGETS.has(name));
    const parts = HOW.length * layers.length + ENGINE_NAMES.length;
    const step = (done: number, total: number) => progress(figures.length + done / total, parts);
    {
      await using workers = await Workers.start(WORKERS, { device: DEVICE });
      for (const { name, weights, input: shape } of layers) {
        const random = randomTensors(1);
        const spec = specOf(random(weights));
        const input = random(shape);
        const { cluster } = workers;
        await using plain = await codedLayer(spec, { cluster });
        for (const how of HOW) {
          await using checked = await codedLayer(spec, { cluster, verify: how });
          const of = (layer: typeof plain) =>
            settled(
              timed(() => layer.run(input)),
              () => workers.settle(),
            );
          const samples = await interleaved(
            { value: of(checked), baseline: of(plain) },
            { rounds: ROUNDS, warmUp: WARM_UP, progress: step },
          );
          figures.push(
            figure({ name: `${how}, ${name}`, unit: 'ms', target: { atMost: COST_TARGETS.get(name)! } }, samples),
          );
        }
      }
    }
    for (const name of ENGINE_NAMES) {
      await using engine = await createEngine(name);
      const worst = await largestDeviation(engine, step);
      const about = { name: `${BLOCKS} honest blocks, ${name}`, unit: 'tolerances', target: { atMost: 0.5 } };
      figures.push(figure(about, { value: [worst], baseline: [1] }));
    }
    return figures;
  },
};

async function largestDeviation(engine: Engine, progress: (done: number, total: number) => void): Promise<number> {
  const rng = seededRng(1);
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-bench-'));
  let worst = 0;
  try {
    for (let blocks = 0, set = 0; blocks < BLOCKS; set++) {
      const { units, fanIn, ...shape } = SHAPES[set % SHAPES.length]!;
      const size = 'conv' in shape ? shape.conv : undefined;
      const code = set % 2 === 0 ? createCode('sum', { k: K, r: 1 }) : createCode('rotation', { k: K, r: 2 });
      const value = set % 3 === 0 ? () => rng.uniform() : () => rng.normal();
      const encoding = encodeLayer(
        {
          units,
          fanIn,
          groups: 1,
          weights: Float32Array.from({ length: units * fanIn }, value),
          bias: Float32Array.from({ length: units }, value),
        },
        code,
      );
      const index = set % code.n;
      const block = encoding.block(index);
      const { blockUnits } = encoding.partition;
      const conv =
        size === undefined
          ? undefined
          : {
              groups: 1,
              kernel: [size.kernel, size.kernel],
              strides: [1, 1],
              dilations: [1, 1],
              pads: [size.pad, size.pad, size.pad, size.pad],
              autoPad: 'NOTSET' as const,
            };
      const layer = { operator: conv === undefined ? ('Gemm' as const) : ('Conv' as const), fanIn, conv };
      await saveModel(imageOfFiles(shardModel([{ layer, ...block, units: blockUnits }])), folder);
      await using session = await engine.open(folder);
      const print = fingerprint(block, { groups: 1, blockUnits, fanIn }, randomBytes);
      const side = size?.size ?? 0;
      const input = size === undefined ? [1, fanIn] : [1, fanIn / size.kernel ** 2, side, side];
      const window: Window | undefined =
        conv === undefined
          ? undefined
          : { ...conv, pads: conv.pads.slice(0, 2), input: [side, side], output: [side, side] };
      for (let i = 0; i < INPUTS && blocks < BLOCKS; i++, blocks++) {
        const x = Float32Array.from(
          { length: elementCount(input) },
          i % 2 === 0 ? value : () => Math.max(0, rng.normal()),
        );
        const { y } = await session.run({ x: float32(input, x) });
        const expected = new Expectations([print], x, window).of(0);
        worst = Math.max(worst, deviation(print, expected, y!.data as Float32Array, Math.max(1, side * side)));
        progress(blocks, BLOCKS);
      }
    }
    return worst;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
