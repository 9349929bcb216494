/** A small model with a fork, a join and two outputs. */
import { float32 } from '@kofn/core';
import type { ModelFiles } from '../../src/index.js';
import { writeModel } from '../../src/model/write-model.js';
import { io, node, ramp } from './models.js';

/** x → conv1 → relu → (conv2, conv3) → add → flatten → fc: a diamond with two coded nodes side by side. */
export function diamond(): ModelFiles {
  const conv = (name: string, input: string, output: string) =>
    node('Conv', name, [input, `${name}.w`, `${name}.b`], [output], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] });
  return writeModel({
    nodes: [
      conv('conv1', 'x', 'a'),
      node('Relu', 'relu', ['a'], ['r']),
      conv('conv2', 'r', 'c2'),
      conv('conv3', 'r', 'c3'),
      node('Add', '', ['c2', 'c3'], ['sum']),
      node('Flatten', '', ['sum'], ['flat']),
      node('Gemm', 'fc', ['flat', 'fc.w'], ['y'], { transB: 1 }),
    ],
    inputs: [io('x', 'N', 4, 5, 5)],
    outputs: [io('y', 'N', 6), io('r', 'N', 4, 5, 5)],
    constants: [
      ...['conv1', 'conv2', 'conv3'].flatMap(name => [
        { name: `${name}.w`, value: float32([4, 4, 3, 3], ramp(144)) },
        { name: `${name}.b`, value: float32([4], ramp(4)) },
      ]),
      { name: 'fc.w', value: float32([6, 100], ramp(600)) },
    ],
  });
}
