/** Random models of convolutions, pools, residuals and dense layers, with everything ONNX Runtime accepts between. */
import fc from 'fast-check';
import type { Shape, Tensor } from '@kofn/core';
import type { ModelFiles } from '../../src/index.js';
import type { NodeProto } from '../../src/model/proto.js';
import { writeModel } from '../../src/model/write-model.js';
import { io, node, values } from './models.js';

/** One decision of a model's growth: which operator, which earlier value, and free numbers. */
interface Growth {
  readonly op: (typeof OPS)[number];
  readonly from: number;
  readonly a: number;
  readonly b: number;
}

const OPS = ['Conv', 'Conv', 'Relu', 'MaxPool', 'Add', 'Concat', 'Dense', 'Dense', 'Sigmoid', 'Reshape'] as const;

export interface RandomModel {
  readonly files: ModelFiles;
  readonly input: Shape;
  /** For choosing which linear nodes are coded: bit i for the i-th. */
  readonly chosen: number;
  readonly description: string;
}

/** `chain` reads always the newest value and has one output; without it any earlier value and several outputs. */
export function randomModel({ chain }: { chain: boolean }): fc.Arbitrary<RandomModel> {
  const growth = fc.record({ op: fc.constantFrom(...OPS), from: fc.nat(), a: fc.nat(50), b: fc.nat(50) });
  return fc
    .record({
      growths: fc.array(growth, { minLength: 1, maxLength: 12 }),
      batch: fc.integer({ min: 1, max: 3 }),
      channels: fc.constantFrom(1, 2, 4),
      size: fc.integer({ min: 3, max: 9 }),
      chosen: fc.nat(),
    })
    .map(({ growths, batch, channels, size, chosen }) => {
      const input = [batch, channels, size, size + 1];
      return { ...grow(growths, input, chain), input, chosen };
    });
}

interface Value {
  readonly name: string;
  readonly shape: Shape;
}

function grow(growths: readonly Growth[], input: Shape, chain: boolean): { files: ModelFiles; description: string } {
  const made: Value[] = [{ name: 'x', shape: input }];
  const nodes: NodeProto[] = [];
  const constants = new Map<string, Tensor>();
  const constant = (shape: Shape): string => {
    const name = `w${shape.join('x')}`; // equal shapes share their weights
    constants.set(name, values(shape, constants.size));
    return name;
  };
  for (const [index, growth] of growths.entries()) {
    const source = made[chain ? made.length - 1 : growth.from % made.length]!;
    const step = { ...growth, index, source, others: chain ? [] : made };
    const grown = growNode(step, constant);
    if (grown === undefined) continue;
    nodes.push(grown.node);
    made.push({ name: grown.node.output![0]!, shape: grown.shape });
  }
  const last = made[made.length - 1]!;
  // Every third value is an output as well, the input too.
  const results = made.filter((value, i) => value === last || (!chain && i % 3 === 0));
  const files = writeModel({
    nodes,
    inputs: [io('x', ...input)],
    outputs: results.map(({ name, shape }) => io(name, ...shape)),
    constants: [...constants].map(([name, value]) => ({ name, value })),
  });
  const text = nodes.map(({ opType, input: reads, output }) => `${opType}(${reads?.join()})→${output?.join()}`);
  return { files, description: text.join(' ') };
}

function growNode(
  step: Growth & { index: number; source: Value; others: readonly Value[] },
  constant: (shape: Shape) => string,
): { node: NodeProto; shape: Shape } | undefined {
  const { op, a, b, index, source, others } = step;
  const { shape, name: input } = source;
  const name = `n${index}`;
  const output = `v${index}`;
  const [batch, channels, height, width] = shape as [number, number, number, number];
  const spatial = shape.length === 4;
  switch (op) {
    case 'Conv': {
      if (!spatial) return undefined;
      const group = channels % 2 === 0 && a % 3 === 0 ? 2 : 1;
      const kernel = 1 + (b % 3);
      const units = 2 * (1 + (a % 3));
      const pad = kernel - 1;
      if (Math.min(height, width) + 2 * pad < kernel) return undefined;
      const weights = [input, constant([units, channels / group, kernel, kernel])];
      if (b % 2 === 0) weights.push(constant([units]));
      return {
        node: node('Conv', name, weights, [output], { group, pads: [pad, pad, 0, 0] }),
        shape: [batch, units, height + pad - kernel + 1, width + pad - kernel + 1],
      };
    }
    case 'MaxPool': {
      if (!spatial || Math.min(height, width) < 2) return undefined;
      const attributes = { kernel_shape: [2, 2], strides: [2, 2] };
      const pooled = [batch, channels, Math.floor(height / 2), Math.floor(width / 2)];
      return { node: node(op, name, [input], [output], attributes), shape: pooled };
    }
    case 'Add': {
      const fitting = others.filter(other => other.shape.join() === shape.join());
      const other = fitting[a % Math.max(1, fitting.length)]?.name ?? constant(shape.slice(-1));
      return { node: node(op, name, [input, other], [output]), shape };
    }
    case 'Concat': {
      const fits = (other: Value) =>
        other.shape.length === shape.length && other.shape.every((d, i) => i === 1 || d === shape[i]);
      const fitting = others.filter(fits);
      const other = fitting[a % Math.max(1, fitting.length)] ?? source;
      const joined = shape.map((size, axis) => (axis === 1 ? size + other.shape[1]! : size));
      return { node: node(op, name, [input, other.name], [output], { axis: 1 }), shape: joined };
    }
    case 'Dense': {
      const fanIn = shape[shape.length - 1]!;
      const units = 2 + (a % 7);
      if (shape.length !== 2 || b % 2 === 0) {
        return {
          node: node('MatMul', name, [input, constant([fanIn, units])], [output]),
          shape: [...shape.slice(0, -1), units],
        };
      }
      const weights = [input, constant([units, fanIn]), constant([units])];
      return { node: node('Gemm', name, weights, [output], { transB: 1 }), shape: [shape[0]!, units] };
    }
    case 'Reshape': {
      if (!spatial) return undefined;
      return { node: node('Flatten', name, [input], [output]), shape: [batch, channels * height * width] };
    }
    default:
      return { node: node(op, name, [input], [output]), shape };
  }
}
