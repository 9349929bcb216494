/**
 * ONNX in float64, small and plain: the operators that kofn's shards, segments and the simulator's models have. It is the
 * simulated machines' arithmetic and, on the whole model without a rounding in between, the oracle.
 */
import { elementCount, KofnError, type Shape } from '@kofn/core';
import onnxProto, { type onnx as Onnx } from 'onnx-proto';

const { onnx } = onnxProto;

export interface Value {
  readonly shape: Shape;
  readonly data: Float64Array;
}

export interface Program {
  readonly inputs: readonly { readonly name: string; readonly shape: readonly (number | string)[] }[];
  readonly outputs: readonly { readonly name: string; readonly shape: readonly (number | string)[] }[];
  readonly nodes: readonly Onnx.INodeProto[];
  readonly constants: ReadonlyMap<string, Value>;
  readonly bytes: number;
}

/** Throws INVALID_MODEL. */
export function parseProgram({ model, weights }: { model: Uint8Array; weights: Uint8Array }): Program {
  const graph = onnx.ModelProto.decode(model).graph;
  if (!graph) throw new KofnError('INVALID_MODEL', 'the model has no graph');
  const info = ({ name, type }: Onnx.IValueInfoProto) => ({
    name: name!,
    shape: (type?.tensorType?.shape?.dim ?? []).map(dim => dim.dimParam || Number(dim.dimValue ?? 0)),
  });
  const constants = new Map((graph.initializer ?? []).map(proto => [proto.name!, constant(proto, weights)]));
  return {
    inputs: (graph.input ?? []).filter(({ name }) => !constants.has(name!)).map(info),
    outputs: (graph.output ?? []).map(info),
    nodes: graph.node ?? [],
    constants,
    bytes: model.byteLength + weights.byteLength,
  };
}

/** The outputs, and how many multiply-accumulates they took. Throws UNSUPPORTED (operator) or SHAPE_MISMATCH. */
export function evaluate(program: Program, feeds: ReadonlyMap<string, Value>): { outputs: Value[]; macs: number } {
  const values = new Map([...program.constants, ...feeds]);
  let macs = 0;
  for (const node of program.nodes) {
    const inputs = (node.input ?? []).filter(name => name !== '').map(name => values.get(name)!);
    const operator = OPERATORS[node.opType!];
    if (operator === undefined) throw new KofnError('UNSUPPORTED', `the simulated engine has no ${node.opType}`);
    const output = operator(inputs, attributesOf(node));
    macs += (elementCount(output.shape) * (inputs[1]?.data.length ?? 1)) / (inputs[1]?.shape[0] || 1);
    values.set(node.output![0]!, output);
  }
  return { outputs: program.outputs.map(({ name }) => values.get(name)!), macs };
}

interface Attributes {
  readonly int: (name: string, fallback: number) => number;
  readonly ints: (name: string, fallback: readonly number[]) => readonly number[];
  readonly float: (name: string, fallback: number) => number;
}

function attributesOf(node: Onnx.INodeProto): Attributes {
  const find = (name: string) => node.attribute?.find(attribute => attribute.name === name);
  return {
    int: (name, fallback) => Number(find(name)?.i ?? fallback),
    ints: (name, fallback) => find(name)?.ints?.map(Number) ?? fallback,
    float: (name, fallback) => find(name)?.f ?? fallback,
  };
}

const OPERATORS: Record<string, (inputs: readonly Value[], attributes: Attributes) => Value> = {
  Gemm([a, b, c], { int, float }) {
    const product = matMul(int('transA', 0) ? transposed(a!) : a!, int('transB', 0) ? transposed(b!) : b!);
    const [alpha, beta] = [float('alpha', 1), float('beta', 1)];
    const scaled = { ...product, data: product.data.map(value => alpha * value) };
    return c === undefined ? scaled : broadcast(scaled, c, (x, y) => x + beta * y);
  },
  MatMul: ([a, b]) => matMul(a!, b!),
  Conv: ([x, w, b], attributes) => conv(x!, w!, b, attributes),
  Add: ([a, b]) => broadcast(a!, b!, (x, y) => x + y),
  Relu: ([x]) => each(x!, value => (value < 0 ? 0 : value)),
  Tanh: ([x]) => each(x!, Math.tanh),
  Flatten: ([x]) => ({ shape: [x!.shape[0]!, elementCount(x!.shape.slice(1))], data: x!.data }),
};

function each(x: Value, map: (value: number) => number): Value {
  return { shape: x.shape, data: x.data.map(map) };
}

function transposed({ shape: [rows = 0, columns = 0], data }: Value): Value {
  const result = new Float64Array(data.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) result[j * rows + i] = data[i * columns + j]!;
  return { shape: [columns, rows], data: result };
}

/** `a` [..., m, n] by `b` [n, p]. */
function matMul(a: Value, b: Value): Value {
  const [n = 0, p = 0] = b.shape;
  if (a.shape[a.shape.length - 1] !== n) {
    throw new KofnError('SHAPE_MISMATCH', `cannot multiply [${a.shape.join(',')}] by [${b.shape.join(',')}]`);
  }
  const rows = a.data.length / n;
  const data = new Float64Array(rows * p);
  for (let row = 0; row < rows; row++) {
    for (let inner = 0; inner < n; inner++) {
      const factor = a.data[row * n + inner]!;
      for (let column = 0; column < p; column++) data[row * p + column]! += factor * b.data[inner * p + column]!;
    }
  }
  return { shape: [...a.shape.slice(0, -1), p], data };
}

/** `combine` elementwise; `b` is repeated along the sizes that it lacks or has as 1. */
function broadcast(a: Value, b: Value, combine: (x: number, y: number) => number): Value {
  const rank = Math.max(a.shape.length, b.shape.length);
  const sizes = (shape: Shape) => [...new Array<number>(rank - shape.length).fill(1), ...shape];
  const [as, bs] = [sizes(a.shape), sizes(b.shape)];
  const shape = as.map((size, axis) => Math.max(size, bs[axis]!));
  const data = new Float64Array(elementCount(shape));
  const at = (own: readonly number[], index: number) => {
    let [offset, stride] = [0, 1];
    for (let axis = rank - 1; axis >= 0; axis--) {
      const place = index % shape[axis]!;
      index = Math.floor(index / shape[axis]!);
      if (own[axis] !== 1) offset += place * stride;
      stride *= own[axis]!;
    }
    return offset;
  };
  for (let i = 0; i < data.length; i++) data[i] = combine(a.data[at(as, i)]!, b.data[at(bs, i)]!);
  return { shape, data };
}

/** 1-D and 2-D: a 1-D convolution is a 2-D one of height 1. */
function conv(x: Value, w: Value, b: Value | undefined, { int, ints }: Attributes): Value {
  const dims = x.shape.length - 2;
  const wide = (list: readonly number[], fill: number) => (dims === 1 ? [fill, list[0]!] : list);
  const [height, width] = wide(x.shape.slice(2), 1) as [number, number];
  const [kernelHeight, kernelWidth] = wide(w.shape.slice(2), 1) as [number, number];
  const [strideY, strideX] = wide(ints('strides', [1, 1]), 1) as [number, number];
  const [dilationY, dilationX] = wide(ints('dilations', [1, 1]), 1) as [number, number];
  const pads = ints('pads', [0, 0, 0, 0]);
  const [top, left, bottom, right] = (dims === 1 ? [0, pads[0], 0, pads[1]] : pads) as [number, number, number, number];
  const outHeight = Math.floor((height + top + bottom - dilationY * (kernelHeight - 1) - 1) / strideY) + 1;
  const outWidth = Math.floor((width + left + right - dilationX * (kernelWidth - 1) - 1) / strideX) + 1;
  const groups = int('group', 1);
  const [batch = 0, channels = 0] = x.shape;
  const [units = 0, perGroup = 0] = w.shape;
  const data = new Float64Array(batch * units * outHeight * outWidth);
  let at = 0;
  for (let n = 0; n < batch; n++) {
    for (let unit = 0; unit < units; unit++) {
      const firstChannel = Math.floor(unit / (units / groups)) * perGroup;
      for (let y = 0; y < outHeight; y++) {
        for (let z = 0; z < outWidth; z++, at++) {
          let sum = b?.data[unit] ?? 0;
          for (let c = 0; c < perGroup; c++) {
            for (let i = 0; i < kernelHeight; i++) {
              const row = y * strideY + i * dilationY - top;
              if (row < 0 || row >= height) continue;
              for (let j = 0; j < kernelWidth; j++) {
                const column = z * strideX + j * dilationX - left;
                if (column < 0 || column >= width) continue;
                sum +=
                  x.data[((n * channels + firstChannel + c) * height + row) * width + column]! *
                  w.data[((unit * perGroup + c) * kernelHeight + i) * kernelWidth + j]!;
              }
            }
          }
          data[at] = sum;
        }
      }
    }
  }
  return { shape: [batch, units, ...(dims === 1 ? [outWidth] : [outHeight, outWidth])], data };
}

function constant(proto: Onnx.ITensorProto, weights: Uint8Array): Value {
  const shape = (proto.dims ?? []).map(Number);
  const entry = (key: string) => Number(proto.externalData?.find(item => item.key === key)?.value ?? 0);
  const isExternal = proto.dataLocation === onnx.TensorProto.DataLocation.EXTERNAL;
  const raw = isExternal ? weights.subarray(entry('offset'), entry('offset') + entry('length')) : proto.rawData;
  if (!raw || raw.byteLength === 0) return { shape, data: Float64Array.from(proto.floatData ?? []) };
  return { shape, data: Float64Array.from(new Float32Array(new Uint8Array(raw).buffer)) };
}
