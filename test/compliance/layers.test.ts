/**
 * The promise, proved on random layers: whatever the shape and attributes, whichever blocks are lost and in whatever order
 * the others arrive, the decoded output is the uncoded one of ONNX Runtime, exact in the sense of docs/math.md. Blocks are run by
 * ONNX Runtime from the very shard models that workers get.
 */
import assert from 'node:assert/strict';
import { elementCount, float32, seededRng, type Float32Tensor, type Rng } from '@kofn/core';
import { createCode, DecodePlans, encodeLayer, exactTolerance, ProgressiveDecoder, type Code } from '@kofn/encoder';
import { createEngine, type Engine } from '@kofn/engine';
import { groupsOf, layerModel, outputShape, shardModel, type LinearLayer, type ModelFiles } from '@kofn/graph';
import fc from 'fast-check';
import { after, before, describe, it } from 'mocha';
import { isLong } from '../support/form.js';
import { runWhole } from '../support/onnx-models.js';

interface Case {
  readonly layer: LinearLayer;
  readonly input: Float32Tensor;
  readonly k: number;
  readonly rng: Rng;
}

const size = (min: number, max: number) => fc.integer({ min, max });
const listOf = (length: number, min: number, max: number) =>
  fc.array(size(min, max), { minLength: length, maxLength: length });

const dense = fc
  .record({ matMul: fc.boolean(), units: size(1, 24), fanIn: size(1, 40), rows: size(1, 3), bias: fc.boolean() })
  .map(({ matMul, units, fanIn, rows, bias }) => ({
    shape: [rows, fanIn],
    units,
    fanIn,
    bias: bias && !matMul, // a MatMul has none
    operator: matMul ? ('MatMul' as const) : ('Gemm' as const),
    conv: undefined,
  }));

const convolution = size(1, 3).chain(dims =>
  fc
    .record({
      groups: size(1, 3),
      unitsPerGroup: size(1, 9),
      channels: size(1, 4),
      kernel: listOf(dims, 1, 3),
      strides: listOf(dims, 1, 2),
      dilations: listOf(dims, 1, 2),
      pads: listOf(2 * dims, 0, 2),
      autoPad: fc.constantFrom('NOTSET', 'NOTSET', 'VALID', 'SAME_UPPER', 'SAME_LOWER'),
      beyond: listOf(dims, 0, 3),
      batch: size(1, 2),
      bias: fc.boolean(),
    })
    .map(({ groups, unitsPerGroup, channels, kernel, strides, dilations, pads, autoPad, beyond, batch, bias }) => {
      const same = autoPad.startsWith('SAME');
      // ONNX Runtime takes no dilations with SAME.
      const spread = same ? dilations.map(() => 1) : dilations;
      return {
        shape: [batch, channels * groups, ...kernel.map((length, i) => spread[i]! * (length - 1) + 1 + beyond[i]!)],
        units: groups * unitsPerGroup,
        fanIn: channels * elementCount(kernel),
        bias,
        operator: 'Conv' as const,
        conv: { groups, kernel, strides, dilations: spread, pads, autoPad },
      };
    }),
);

const cases: fc.Arbitrary<Case> = fc
  .record({ about: fc.oneof(dense, convolution), k: size(1, 5), seed: size(0, 2 ** 31) })
  .filter(({ about, k }) => about.units / (about.conv?.groups ?? 1) >= k)
  .map(({ about, k, seed }) => {
    const rng = seededRng(seed);
    const draw = (length: number) => Float32Array.from({ length }, () => rng.normal());
    const { shape, units, fanIn, bias, operator, conv } = about;
    const weights = draw(units * fanIn);
    // Norms from 1e-3 to 1e3: rows are exact each relative to itself.
    for (let unit = 0; unit < units; unit++) {
      const scale = 10 ** (6 * rng.uniform() - 3);
      for (let i = unit * fanIn; i < (unit + 1) * fanIn; i++) weights[i]! *= scale;
    }
    const layer = { name: 'layer', operator, units, fanIn, weights, bias: bias ? draw(units) : undefined, conv };
    return { layer, input: float32(shape, draw(elementCount(shape))), k, rng };
  });

describe('coded = uncoded ONNX Runtime, exact, for random dense and conv layers', () => {
  let engine: Engine;
  before(async () => (engine = await createEngine('native')));
  after(() => engine[Symbol.asyncDispose]());

  for (const [name, r, losses] of [
    ['uncoded', 0, 'no loss'],
    ['replication', 0, 'every loss of any copies but the last'],
    ['sum', 1, 'every single loss'],
    ['rotation', 1, 'every single loss'],
    ['rotation', 2, 'every pair of losses'],
    ['rotation', 3, 'every three losses'],
  ] as const) {
    it(`${name}${r > 0 ? `, r = ${r}` : ''}: ${losses}`, async () => {
      const seen = new Set<string>();
      await fc.assert(
        fc.asyncProperty(cases, async one => {
          const code = createCode(name, { k: one.k, r: name === 'replication' ? one.k : r });
          seen.add(`${one.layer.operator} ${one.layer.conv?.kernel.length ?? ''}`);
          await check(engine, code, one);
        }),
        { numRuns: isLong ? 150 : 60 },
      );
      assert.equal(
        seen.size,
        5,
        `Gemm, MatMul and three kinds of Conv must have been tried, not only ${[...seen].join()}`,
      );
    });
  }
});

async function check(engine: Engine, code: Code, { layer, input, rng }: Case): Promise<void> {
  const shape = outputShape(layer, input.shape);
  const whole = await runModel(engine, layerModel(layer), input);
  assert.deepEqual(whole.shape, shape, 'outputShape is what ONNX Runtime gives');
  const { units, fanIn, weights, bias, conv } = layer;
  const encoding = encodeLayer({ units, fanIn, groups: groupsOf(layer), weights, bias }, code);
  const replies = [];
  for (let block = 0; block < code.n; block++) {
    const blockUnits = encoding.partition.groups * encoding.partition.blockUnits;
    const files = shardModel([{ layer, ...encoding.block(block), units: blockUnits }]);
    replies.push((await runModel(engine, files, input)).data);
  }
  const [batch, inner] = conv === undefined ? [shape[0]!, 1] : [shape[0]!, elementCount(shape.slice(2))];
  const limits = await tolerances(engine, code, layer, input, whole);
  const plans = new DecodePlans(code);
  for (const lost of lossPatterns(code)) {
    const decoder = new ProgressiveDecoder({ encoding, plans, batch, inner });
    const order = shuffled(
      replies.map((_, block) => block).filter(block => !lost.includes(block)),
      rng,
    );
    for (const block of order) decoder.accept(block, replies[block]!);
    assert.ok(decoder.complete, `blocks ${order.join()} decode`);
    const { output } = decoder.finish();
    const wrong = output.findIndex((value, i) => !(Math.abs(value - whole.data[i]!) <= limits[i]!));
    if (wrong >= 0) {
      const [got, wanted, limit] = [output[wrong], whole.data[wrong], limits[wrong]];
      assert.fail(`without ${lost.join()}: element ${wrong} is ${got}, not ${wanted} within ${limit}`);
    }
  }
}

/** exactTolerance · ‖(w_row, bias)‖ · ‖(x, 1)‖ of every output element, the second norm over what the element reads of the input. */
async function tolerances(engine: Engine, code: Code, layer: LinearLayer, input: Float32Tensor, whole: Float32Tensor) {
  const { units, fanIn, weights, bias } = layer;
  const ones = { ...layer, weights: new Float32Array(weights.length).fill(1), bias: new Float32Array(units).fill(1) };
  const operator = layer.operator === 'MatMul' ? 'Gemm' : layer.operator;
  const squares = float32(
    input.shape,
    input.data.map(value => value * value),
  );
  const read = await runModel(engine, layerModel({ ...ones, operator }), squares);
  const inner = layer.conv === undefined ? 1 : elementCount(whole.shape.slice(2));
  const norms = Float64Array.from({ length: units }, (_, unit) =>
    Math.hypot(bias?.[unit] ?? 0, ...weights.subarray(unit * fanIn, (unit + 1) * fanIn)),
  );
  const tolerance = exactTolerance(code);
  return Float64Array.from(read.data, (sum, i) => tolerance * norms[Math.floor(i / inner) % units]! * Math.sqrt(sum));
}

/** Every set of as many blocks as the code may lose; for replication every set that leaves a copy of each block, up to two. */
function lossPatterns({ name, k, r, n }: Code): number[][] {
  if (name === 'replication') {
    const pairs = combinations(n, 2).filter(([a = 0, b = 0]) => a % k !== b % k);
    return [[], ...combinations(n, 1), ...pairs];
  }
  return Array.from({ length: r + 1 }, (_, count) => combinations(n, count)).flat();
}

function combinations(n: number, count: number, from = 0): number[][] {
  if (count === 0) return [[]];
  const sets: number[][] = [];
  for (let first = from; first < n; first++) {
    for (const rest of combinations(n, count - 1, first + 1)) sets.push([first, ...rest]);
  }
  return sets;
}

function shuffled(list: number[], rng: Rng): number[] {
  for (let i = list.length - 1; i > 0; i--) {
    const j = rng.integer(i + 1);
    [list[i], list[j]] = [list[j]!, list[i]!];
  }
  return list;
}

async function runModel(engine: Engine, files: ModelFiles, x: Float32Tensor): Promise<Float32Tensor> {
  return (await runWhole(engine, files, { x }))['y'] as Float32Tensor;
}
