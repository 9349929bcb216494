/** The model of one seed: small, drawn, of the operators that kofn codes, with another version of its weights. */
import { float32, type Float32Tensor, type Rng } from '@kofn/core';
import { makeModel, type ModelSpec, type NodeSpec } from '../support/onnx-models.js';
import { parseProgram, type Program } from './evaluate.js';
import { pick } from './streams.js';

export interface ModelVersion {
  readonly files: { readonly model: Uint8Array; readonly weights: Uint8Array };
  readonly program: Program;
}

export interface DrawnModel {
  readonly what: string;
  readonly versions: readonly [ModelVersion, ModelVersion];
  /** A drawn input; one model takes one number of rows after another. */
  input(rng: Rng): Float32Tensor;
}

/** Layers of at least `leastUnits` outputs, so that each can be cut into so many blocks. */
export function drawModel(rng: Rng, leastUnits: number): DrawnModel {
  const shape = pick(rng, [dense, dense, branches, convolution])(rng, leastUnits);
  const version = (): ModelVersion => {
    const initializers = Object.entries(shape.constants).map(([name, dims]) => [name, normal(rng, dims)] as const);
    const files = makeModel({ ...shape.spec, initializers: Object.fromEntries(initializers), external: true });
    return { files, program: parseProgram(files) };
  };
  return {
    what: shape.what,
    versions: [version(), version()],
    input: own => normal(own, [1 + own.integer(2), ...shape.inputSizes]),
  };
}

interface ModelShape {
  readonly what: string;
  readonly spec: ModelSpec;
  readonly constants: Readonly<Record<string, readonly number[]>>;
  readonly inputSizes: readonly number[];
}

export function normal(rng: Rng, shape: readonly number[]): Float32Tensor {
  const length = shape.reduce((a, b) => a * b, 1);
  return float32(
    shape,
    Float32Array.from({ length }, () => rng.normal()),
  );
}

/** One to three dense layers, each with an activation or without. */
function dense(rng: Rng, leastUnits: number): ModelShape {
  const depth = 1 + rng.integer(3);
  const sizes = Array.from({ length: depth + 1 }, () => leastUnits + rng.integer(12));
  const nodes: NodeSpec[] = [];
  const constants: Record<string, readonly number[]> = {};
  let value = 'x';
  for (let layer = 0; layer < depth; layer++) {
    const [fanIn, units] = [sizes[layer]!, sizes[layer + 1]!];
    const made = layer === depth - 1 ? 'y' : `h${layer}`;
    constants[`b${layer}`] = [units];
    if (rng.integer(2) === 0) {
      constants[`w${layer}`] = [units, fanIn];
      const inputs = [value, `w${layer}`, `b${layer}`];
      nodes.push({ op: 'Gemm', name: `layer${layer}`, inputs, outputs: [`a${layer}`], attributes: { transB: 1 } });
    } else {
      constants[`w${layer}`] = [fanIn, units];
      nodes.push({ op: 'MatMul', name: `layer${layer}`, inputs: [value, `w${layer}`], outputs: [`p${layer}`] });
      nodes.push({ op: 'Add', inputs: [`p${layer}`, `b${layer}`], outputs: [`a${layer}`] });
    }
    nodes.push({ op: pick(rng, ['Relu', 'Tanh']), inputs: [`a${layer}`], outputs: [made] });
    value = made;
  }
  return shapeOf(`dense ${sizes.join('-')}`, nodes, constants, [sizes[0]!]);
}

/** Two dense layers that read one value, added. */
function branches(rng: Rng, leastUnits: number): ModelShape {
  const [fanIn, units] = [2 + rng.integer(12), leastUnits + rng.integer(12)];
  const gemm = (name: string): NodeSpec => ({
    op: 'Gemm',
    name,
    inputs: ['x', `w ${name}`, `b ${name}`],
    outputs: [name],
    attributes: { transB: 1 },
  });
  const nodes: NodeSpec[] = [gemm('left'), gemm('right'), { op: 'Add', inputs: ['left', 'right'], outputs: ['y'] }];
  const sizes = { 'w left': [units, fanIn], 'b left': [units], 'w right': [units, fanIn], 'b right': [units] };
  return shapeOf(`branches ${fanIn}-${units}`, nodes, sizes, [fanIn]);
}

/** A 1-D or 2-D convolution, then a dense layer. */
function convolution(rng: Rng, leastUnits: number): ModelShape {
  const dims = 1 + rng.integer(2);
  const [channels, filters, units] = [1 + rng.integer(3), leastUnits + rng.integer(4), leastUnits + rng.integer(4)];
  const [size, kernel, stride, pad] = [4 + rng.integer(3), 1 + rng.integer(3), 1 + rng.integer(2), rng.integer(2)];
  const all = (value: number, count = dims) => new Array<number>(count).fill(value);
  const outSize = Math.floor((size + 2 * pad - kernel) / stride) + 1;
  const nodes: NodeSpec[] = [
    {
      op: 'Conv',
      name: 'conv',
      inputs: ['x', 'w', 'b'],
      outputs: ['c'],
      attributes: { kernel_shape: all(kernel), strides: all(stride), pads: all(pad, 2 * dims) },
    },
    { op: 'Relu', inputs: ['c'], outputs: ['r'] },
    { op: 'Flatten', inputs: ['r'], outputs: ['f'] },
    { op: 'Gemm', name: 'dense', inputs: ['f', 'v', 'd'], outputs: ['y'], attributes: { transB: 1 } },
  ];
  const constants = {
    w: [filters, channels, ...all(kernel)],
    b: [filters],
    v: [units, filters * outSize ** dims],
    d: [units],
  };
  return shapeOf(`conv${dims}d ${channels}-${filters}-${units}`, nodes, constants, [channels, ...all(size)]);
}

function shapeOf(
  what: string,
  nodes: NodeSpec[],
  constants: ModelShape['constants'],
  inputSizes: readonly number[],
): ModelShape {
  const inputs = { x: { dtype: 'float32' as const, shape: ['N', ...inputSizes] } };
  return { what, spec: { nodes, inputs, outputs: { y: { dtype: 'float32' } } }, constants, inputSizes };
}
