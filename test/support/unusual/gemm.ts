/** Gemm with factors and addends at the edge of what float32 and the standard allow. */
import { type Tensor } from '@kofn/core';
import { drawn, type ModelSpec, type NodeSpec } from '../onnx-models.js';
import { draw, float, op, W, type Row } from './parts.js';

const gemm = (C: Tensor | 'computed', attributes: NodeSpec['attributes'], opset = 13, weights = W): ModelSpec => ({
  nodes: [
    ...(C === 'computed' ? [op('Log', ['x'], ['l']), op('ReduceMin', ['l'], ['c'], { keepdims: 0 })] : []),
    { op: 'Gemm', name: 'fc', inputs: ['x', 'w', 'c'], outputs: ['y'], ...(attributes ? { attributes } : {}) },
  ],
  inputs: { x: { dtype: 'float32', shape: [2, 16] } },
  outputs: { y: float },
  initializers: { w: weights, ...(C === 'computed' ? {} : { c: C }) },
  opset,
});
const filled = (value: number, ...shape: number[]) => drawn(shape, () => value);
const unread = { beta: { float: 0 } };
export const GEMM: Row[] = [
  ...(
    [
      ['one NaN a unit', filled(NaN, 8)],
      ['a row of NaN', filled(NaN, 1, 8)],
      ['one NaN', filled(NaN, 1)],
      ['a matrix of NaN', filled(NaN, 2, 8)],
      ['a matrix of infinities', filled(Infinity, 2, 8)],
      ['computed, and NaN', 'computed'],
    ] as const
  ).map(([what, C]): Row => [`beta = 0, C ${what}`, gemm(C, unread)]),
  ['beta = 0, where C is not optional yet', gemm(filled(NaN, 2, 8), unread, 9)],
  ...(
    [
      [7, 1],
      [9, 0.5],
    ] as const
  ).map(([opset, beta]): Row => [`C a matrix, opset ${opset}`, gemm(draw(2, 8), { beta: { float: beta } }, opset)]),
  ['alpha = 0', gemm(draw(8), { alpha: { float: 0 } })],
  [
    'alpha that takes weights out of float32, and leaves outputs in it',
    gemm(draw(8), { alpha: { float: 1e30 } }, 13, filled(1e10, 16, 8)),
    { feeds: { x: filled(1e-30, 2, 16) }, coded: [] },
  ],
  ['beta that takes C out of float32', gemm(filled(1e10, 8), { beta: { float: 1e30 } }), { coded: [] }],
];
