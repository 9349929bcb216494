/**
 * Every variant of an operator gives, coded and with blocks lost, what ONNX Runtime gives for the node as it stands; and
 * the plan codes exactly those that have a matrix of constant weights with outputs enough to split. What stays local
 * says why, and is right too.
 */
import { elementCount, seededRng, tensor, type Tensor, type Tensors } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import fc from 'fast-check';
import { after, before, describe, it } from 'mocha';
import { isLong } from '../support/form.js';
import { toHalf } from '../support/half.js';
import { lossyCluster, type LossyCluster } from '../support/lossy-cluster.js';
import { drawn, type NodeSpec } from '../support/onnx-models.js';
import { check as checkOn, inputsOf, LOCAL, single, type Attributes, type Case } from '../support/single-node.js';

const FAN_IN = 5;
const UNITS = 6;

const rng = seededRng(2026);
const draw = (...shape: number[]) => drawn(shape, () => rng.normal());
/** The same values in whatever shape: equal weights share their shards, which saves most of a deployment. */
const filling =
  (values: Tensor) =>
  (...shape: number[]) =>
    tensor('float32', shape, (values.data as Float32Array).slice(0, elementCount(shape)));
const dataOf = filling(draw(400));
const weightsOf = filling(draw(400));
const addendOf = filling(draw(400));

/** One layer of each operator, with weights `w` of UNITS outputs. */
const OPERATORS: Record<string, { op: string; data: number[]; weights: number[]; attributes?: Attributes }> = {
  Gemm: { op: 'Gemm', data: [3, FAN_IN], weights: [FAN_IN, UNITS] },
  'Gemm, transposed,': {
    op: 'Gemm',
    data: [FAN_IN, 2],
    weights: [UNITS, FAN_IN],
    attributes: { transA: 1, transB: 1 },
  },
  MatMul: { op: 'MatMul', data: [2, 3, FAN_IN], weights: [FAN_IN, UNITS] },
  Conv: { op: 'Conv', data: [2, 2, 5, 4], weights: [UNITS, 2, 3, 2] },
};

type Making = (shape: readonly number[]) => { nodes: NodeSpec[]; initializers: Tensors };
/** Nodes that make `w` of that shape of constants alone. */
const MAKING: Record<string, Making> = {
  'a Constant': shape => ({
    nodes: [{ op: 'Constant', inputs: [], outputs: ['w'], attributes: { value: weightsOf(...shape) } }],
    initializers: {},
  }),
  Identity: shape => ({
    nodes: [{ op: 'Identity', inputs: ['w0'], outputs: ['w'] }],
    initializers: { w0: weightsOf(...shape) },
  }),
  Transpose: shape => ({
    nodes: [{ op: 'Transpose', inputs: ['w0'], outputs: ['w'] }],
    initializers: { w0: weightsOf(...[...shape].reverse()) },
  }),
  Mul: shape => ({
    nodes: [{ op: 'Mul', inputs: ['w0', 'scale'], outputs: ['w'] }],
    initializers: { w0: weightsOf(...shape), scale: addendOf(1) },
  }),
  Reshape: shape => ({
    nodes: [{ op: 'Reshape', inputs: ['w0', 'shape'], outputs: ['w'] }],
    initializers: {
      w0: weightsOf(elementCount(shape)),
      shape: tensor('int64', [shape.length], BigInt64Array.from(shape, BigInt)),
    },
  }),
  'Cast of float16': shape => ({
    nodes: [{ op: 'Cast', inputs: ['w0'], outputs: ['w'], attributes: { to: 1 } }],
    initializers: { w0: toHalf(weightsOf(...shape)) },
  }),
  DequantizeLinear: shape => ({
    nodes: [{ op: 'DequantizeLinear', inputs: ['w0', 'scale'], outputs: ['w'] }],
    initializers: {
      w0: tensor(
        'int8',
        shape,
        Int8Array.from(weightsOf(...shape).data as Float32Array, value => 40 * value),
      ),
      scale: tensor('float32', [], Float32Array.of(0.025)),
    },
  }),
  'a chain of nodes': shape => ({
    nodes: [
      { op: 'Constant', inputs: [], outputs: ['w0'], attributes: { value: weightsOf(...[...shape].reverse()) } },
      { op: 'Transpose', inputs: ['w0'], outputs: ['w1'] },
      { op: 'Mul', inputs: ['w1', 'scale'], outputs: ['w'] },
    ],
    initializers: { scale: addendOf(1) },
  }),
};

describe('every operator variant, coded with losses = ONNX Runtime', () => {
  let engine: Engine;
  const clusters: LossyCluster[] = [];
  before(async () => {
    engine = await createEngine('native');
    for (const lost of [[1], [0, 2]]) clusters.push(await lossyCluster(lost));
  });
  after(async () => {
    for (const cluster of clusters) await cluster[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  const check = (one: Case, what: string) => checkOn(engine, clusters, one, what);

  describe('Gemm', () => {
    const addends: Record<string, (rows: number) => number[]> = {
      '[]': () => [],
      '[1]': () => [1],
      '(1,1)': () => [1, 1],
      '(N)': () => [UNITS],
      '(1,N)': () => [1, UNITS],
      '(M,1)': rows => [rows, 1],
      '(M,N)': rows => [rows, UNITS],
    };
    const variants = [
      { addend: 'none', constants: ['b'] },
      ...Object.keys(addends).flatMap(addend => [
        { addend, constants: ['b', 'c'] },
        { addend, constants: ['b'] },
      ]),
    ];
    // Each variant with 1, 2 and 3 rows (short: one of them), each of these with another alpha and beta; over transA and transB it meets every pair of them.
    let index = 0;
    for (const transA of [0, 1]) {
      for (const transB of [0, 1]) {
        for (const { addend, constants } of variants) {
          const where = addend === 'none' ? '' : constants.includes('c') ? ' constant' : ' an input';
          const turn = index++;
          it(`transA = ${transA}, transB = ${transB}, C ${addend}${where}`, async () => {
            for (const rows of isLong ? [1, 2, 3] : [1 + (turn % 3)]) {
              const [alpha, beta] = [[1, 0.5][(turn + rows) & 1]!, [1, -2][((turn + rows) >> 1) & 1]!];
              const a = transA ? dataOf(FAN_IN, rows) : dataOf(rows, FAN_IN);
              const b = transB ? weightsOf(UNITS, FAN_IN) : weightsOf(FAN_IN, UNITS);
              const c = addends[addend]?.(rows);
              const attributes = { transA, transB, alpha: { float: alpha }, beta: { float: beta } };
              const operands: Tensors = c === undefined ? { a, b } : { a, b, c: addendOf(...c) };
              const what = `alpha = ${alpha}, beta = ${beta}, M = ${rows}`;
              await check(single('Gemm', attributes, operands, constants, UNITS), what);
            }
          });
        }
      }
    }

    it('a constant A, or nothing constant', async () => {
      const operands = { a: dataOf(UNITS, FAN_IN), b: weightsOf(FAN_IN, 3), c: addendOf(UNITS, 1) };
      await check(single('Gemm', {}, operands, ['a'], 'either'), 'constant A');
      await check(single('Gemm', {}, operands, ['a', 'c'], 'either'), 'constant A and C');
      await check(single('Gemm', {}, operands, [], LOCAL), 'no constant');
      await check(single('Gemm', {}, operands, ['c'], LOCAL), 'constant C');
    });
  });

  describe('MatMul', () => {
    /** Sizes before the last two of data of that rank. */
    const leading = (rank: number) => [3, 2].slice(Math.max(0, 4 - rank));
    for (const rank of [1, 2, 3, 4]) {
      it(`data of rank ${rank} times a constant matrix`, async () => {
        for (const rows of rank === 1 ? [1] : [1, 2, 3]) {
          const shape = rank === 1 ? [FAN_IN] : [...leading(rank), rows, FAN_IN];
          const operands = { a: dataOf(...shape), b: weightsOf(FAN_IN, UNITS) };
          await check(single('MatMul', {}, operands, ['b'], UNITS), `${rows} rows`);
        }
      });

      it(`a constant matrix times data of rank ${rank}`, async () => {
        for (const columns of rank === 1 ? [1] : [1, 2, 3]) {
          const shape = rank === 1 ? [FAN_IN] : [...leading(rank), FAN_IN, columns];
          const operands = { a: weightsOf(UNITS, FAN_IN), b: dataOf(...shape) };
          await check(single('MatMul', {}, operands, ['a'], UNITS), `${columns} columns`);
        }
      });

      it(`stays local with a batch of constant matrices and data of rank ${rank}`, async () => {
        const right = rank === 1 ? [FAN_IN] : [...leading(rank), 3, FAN_IN];
        const left = rank === 1 ? [FAN_IN] : [...leading(rank), FAN_IN, 3];
        const operands = { a: dataOf(...right), b: weightsOf(2, FAN_IN, UNITS) };
        await check(single('MatMul', {}, operands, ['b'], LOCAL), 'on the right');
        await check(
          single('MatMul', {}, { a: weightsOf(2, UNITS, FAN_IN), b: dataOf(...left) }, ['a'], LOCAL),
          'on the left',
        );
      });
    }

    it('stays local with a constant vector, or with nothing constant', async () => {
      await check(single('MatMul', {}, { a: dataOf(3, FAN_IN), b: weightsOf(FAN_IN) }, ['b'], LOCAL), 'on the right');
      await check(single('MatMul', {}, { a: weightsOf(FAN_IN), b: dataOf(FAN_IN, 3) }, ['a'], LOCAL), 'on the left');
      await check(
        single('MatMul', {}, { a: dataOf(3, FAN_IN), b: weightsOf(FAN_IN, UNITS) }, [], LOCAL),
        'no constant',
      );
    });
  });

  describe('Conv', () => {
    for (const dims of [1, 2, 3]) {
      it(`${dims}-D, random attributes`, () =>
        fc.assert(
          fc.asyncProperty(convolution(dims), ({ attributes, operands, split }) =>
            check(single('Conv', attributes, operands, ['w', 'b'], split), 'conv'),
          ),
          { numRuns: isLong ? 25 : 8 },
        ));
    }

    it('stays local when depthwise, or when a group has too few channels', async () => {
      const data = dataOf(1, 4, 4, 3);
      await check(single('Conv', { group: 4 }, { x: data, w: weightsOf(4, 1, 2, 2) }, ['w'], LOCAL), 'depthwise');
      await check(single('Conv', { group: 4 }, { x: data, w: weightsOf(8, 1, 2, 2) }, ['w'], 2), 'multiplier 2');
      await check(single('Conv', { group: 2 }, { x: data, w: weightsOf(6, 2, 2, 2) }, ['w'], 3), '3 a group');
      await check(single('Conv', {}, { x: data, w: weightsOf(2, 4, 2, 2) }, ['w'], 2), '2 channels');
    });

    it('stays local with weights that are an input', async () => {
      const operands = { x: dataOf(1, 2, 4, 3), w: weightsOf(UNITS, 2, 2, 2), b: addendOf(UNITS) };
      await check(single('Conv', {}, operands, [], LOCAL), 'weights and bias');
      await check(single('Conv', {}, operands, ['b'], LOCAL), 'weights');
      await check(single('Conv', {}, operands, ['w'], 'either'), 'bias alone');
    });
  });

  it('ConvTranspose stays local', async () => {
    const operands = { x: dataOf(1, 3, 4, 2), w: weightsOf(3, UNITS, 2, 2), b: addendOf(UNITS) };
    await check(single('ConvTranspose', {}, operands, ['w', 'b'], LOCAL), 'plain');
    await check(single('ConvTranspose', { strides: [2, 1] }, operands, ['w'], LOCAL), 'bias an input');
  });

  for (const [what, { op, data, weights, attributes = {} }] of Object.entries(OPERATORS)) {
    describe(`weights of ${what}`, () => {
      const [x, w] = [dataOf(...data), weightsOf(...weights)];
      const addend: Tensors = op === 'MatMul' ? {} : { c: addendOf(UNITS) };
      const plain = single(op, attributes, { x, w, ...addend }, ['w', 'c'], UNITS);
      const { nodes, inputs } = plain.spec;

      it('may be float16', async () => {
        const halves = Object.entries({ x, w, ...addend }).map(([name, value]) => [name, toHalf(value)] as const);
        await check(single(op, attributes, Object.fromEntries(halves), ['w', 'c'], UNITS), 'float16');
      });

      it('may be graph inputs that the model has values for', async () => {
        const spec = { ...plain.spec, inputs: { ...inputs, ...inputsOf({ w, ...addend }) } };
        await check({ ...plain, spec }, 'weights and bias');
      });

      for (const [how, making] of Object.entries(MAKING)) {
        it(`may come from constants by ${how}`, async () => {
          const made = making(weights);
          const spec = {
            ...plain.spec,
            nodes: [...made.nodes, ...nodes],
            initializers: { ...addend, ...made.initializers },
          };
          await check({ ...plain, spec }, how);
        });
      }

      it('stay local when they come from an input', async () => {
        const feeds = { x, v: w };
        const spec = {
          ...plain.spec,
          nodes: [{ op: 'Neg', inputs: ['v'], outputs: ['w'] }, ...nodes],
          inputs: inputsOf(feeds),
          initializers: addend,
        };
        await check({ spec, feeds, split: LOCAL }, 'negated');
      });
    });
  }
});

/** A convolution of so many dimensions: attributes that are left to their defaults are absent in half of the cases. */
function convolution(dims: number) {
  const size = (min: number, max: number) => fc.integer({ min, max });
  const list = (length: number, min: number, max: number) =>
    fc.array(size(min, max), { minLength: length, maxLength: length });
  return fc
    .record({
      group: size(1, 3),
      split: size(1, 7),
      channels: size(1, 3),
      batch: size(1, 2),
      kernel: list(dims, 1, 3),
      beyond: list(dims, 0, 2),
      strides: list(dims, 1, 2),
      dilations: list(dims, 1, 2),
      pads: fc.oneof(list(2 * dims, 0, 0), list(2 * dims, 0, 2)),
      auto_pad: fc.constantFrom('NOTSET', 'VALID', 'SAME_UPPER', 'SAME_LOWER'),
      bias: fc.boolean(),
      explicit: fc.boolean(),
      seed: size(0, 2 ** 31 - 1),
    })
    .map(({ group, split, channels, batch, kernel, beyond, bias, explicit, seed, ...about }) => {
      const { strides, pads, auto_pad } = about;
      // ONNX Runtime takes no dilations with SAME.
      const dilations = auto_pad.startsWith('SAME') ? kernel.map(() => 1) : about.dilations;
      const isOne = (values: number[]) => values.every(value => value === 1);
      const attributes: Attributes = {
        ...(explicit ? { kernel_shape: kernel } : {}),
        ...(explicit || group > 1 ? { group } : {}),
        ...(explicit || !isOne(strides) ? { strides } : {}),
        ...(explicit || !isOne(dilations) ? { dilations } : {}),
        ...(auto_pad === 'NOTSET' && (explicit || pads.some(pad => pad > 0)) ? { pads } : {}),
        ...(explicit || auto_pad !== 'NOTSET' ? { auto_pad } : {}),
      };
      const own = seededRng(seed);
      const values = (...shape: number[]) => drawn(shape, () => own.normal());
      const operands: Tensors = {
        x: values(batch, group * channels, ...kernel.map((length, i) => dilations[i]! * (length - 1) + 1 + beyond[i]!)),
        w: values(group * split, channels, ...kernel),
        ...(bias ? { b: values(group * split) } : {}),
      };
      return { attributes, operands, split };
    });
}
