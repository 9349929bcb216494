/** Small ONNX models for tests, written with the protobuf package alone: no code of ours is in the way. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { tensorBytes, type DType, type Tensor, type Tensors } from '@kofn/core';
import type { Engine } from '@kofn/engine';
import onnxProto from 'onnx-proto';

const { onnx } = onnxProto;

const ELEMENT_TYPES: Partial<Record<DType, number>> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  bfloat16: 16,
  float64: 11,
  uint32: 12,
  uint64: 13,
};

/** A graph inside a node (If, Loop): it may read values of the graph around it. */
export interface GraphSpec {
  readonly nodes: NodeSpec[];
  readonly inputs?: ModelSpec['inputs'];
  readonly outputs: ModelSpec['outputs'];
  readonly initializers?: Tensors;
  readonly sparse?: Readonly<Record<string, SparseSpec>>;
}

/** A sparse tensor: the elements of `dense` that are not 0, by their place, or by a coordinate an axis. */
export interface SparseSpec {
  readonly dense: Tensor;
  readonly by: 'place' | 'coordinates';
}

/** A number becomes int, an array ints, a string string; {float: x} a float; a tensor or graph itself. */
export type AttributeSpec =
  | number
  | readonly number[]
  | string
  | { readonly float: number }
  | { readonly floats: readonly number[] }
  | { readonly strings: readonly string[] }
  | { readonly sparse: SparseSpec }
  | Tensor
  | { readonly graph: GraphSpec };

/** What a value is: a tensor, also of a type that core has none of; another kind; or not said. */
export type TypeSpec =
  | { readonly dtype: DType; readonly shape?: readonly (number | string)[] }
  | { readonly elementType: number; readonly kind?: 'tensor' | 'sequence' | 'optional' | 'maps' }
  | { readonly untyped: true };

/** A local function of the domain "test". */
export interface FunctionSpec {
  readonly name: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly nodes: readonly NodeSpec[];
}

export interface NodeSpec {
  op: string;
  inputs: string[];
  outputs: string[];
  name?: string;
  attributes?: Record<string, AttributeSpec>;
  domain?: string;
}

export interface ModelSpec {
  nodes: NodeSpec[];
  inputs: Record<string, TypeSpec>;
  outputs: Record<string, TypeSpec>;
  initializers?: Tensors;
  sparse?: Readonly<Record<string, SparseSpec>>;
  /** Constants as ONNX has them: TensorProto. */
  protos?: readonly object[];
  functions?: readonly FunctionSpec[];
  /** Where initializers stand: inside the model (default) or in `weights.bin` beside it. */
  external?: boolean;
  opset?: number;
}

/** The bytes of model.onnx and, with `external`, of weights.bin (otherwise empty). */
export function makeModel(spec: ModelSpec): { model: Uint8Array; weights: Uint8Array } {
  const weights: Uint8Array[] = [];
  let offset = 0;
  const initializer = Object.entries(spec.initializers ?? {}).map(([name, value]) => {
    if (spec.external !== true) return { name, ...tensorProto(value) };
    const { rawData: bytes, ...about } = tensorProto(value);
    weights.push(bytes);
    const at = offset;
    offset += bytes.byteLength;
    return {
      name,
      ...about,
      dataLocation: 1,
      externalData: [
        { key: 'location', value: 'weights.bin' },
        { key: 'offset', value: String(at) },
        { key: 'length', value: String(bytes.byteLength) },
      ],
    };
  });
  const standard = { domain: '', version: spec.opset ?? 13 };
  const domains = new Set(spec.nodes.flatMap(({ domain }) => domain ?? []));
  const model = onnx.ModelProto.create({
    irVersion: spec.functions === undefined ? 7 : 8,
    opsetImport: [standard, ...[...domains].map(domain => ({ domain, version: 1 }))],
    functions: (spec.functions ?? []).map(({ name, inputs, outputs, nodes }) => ({
      domain: 'test',
      name,
      input: [...inputs],
      output: [...outputs],
      node: nodes.map(nodeProto),
      opsetImport: [standard],
    })),
    graph: {
      ...graphProto(spec),
      initializer: [...initializer, ...(spec.protos ?? [])],
    },
  });
  return { model: onnx.ModelProto.encode(model).finish(), weights: Buffer.concat(weights) };
}

/** A new temporary folder with the model in it. */
export function writeModel(files: { model: Uint8Array; weights: Uint8Array }): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-test-model-'));
  writeFileSync(path.join(folder, 'model.onnx'), files.model);
  if (files.weights.byteLength > 0) writeFileSync(path.join(folder, 'weights.bin'), files.weights);
  return folder;
}

/** What ONNX Runtime gives for the whole model, of outputs that it hands out: the oracle. */
export async function runWhole(
  engine: Engine,
  files: { model: Uint8Array; weights: Uint8Array },
  feeds: Tensors,
): Promise<Tensors> {
  const folder = writeModel(files);
  try {
    await using session = await engine.open(folder);
    return await session.run(feeds);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A float32 tensor whose elements are drawn by `draw`. */
export function drawn(shape: readonly number[], draw: () => number): Tensor {
  const length = shape.reduce((a, b) => a * b, 1);
  return { dtype: 'float32', shape, data: Float32Array.from({ length }, draw) };
}

/** An int8 weight matrix behind DequantizeLinear: ONNX Runtime multiplies it in int8 beyond basic optimisation, some 0.3 % off. */
export function quantizedDense(inputs: number, units: number): { model: Uint8Array; weights: Uint8Array } {
  const weights = Int8Array.from({ length: inputs * units }, (_, i) => ((i * 7919) % 255) - 127);
  return makeModel({
    nodes: [
      { op: 'DequantizeLinear', inputs: ['w8', 'scale', 'zero'], outputs: ['w'] },
      { op: 'MatMul', inputs: ['x', 'w'], outputs: ['y'], name: 'fc' },
    ],
    inputs: { x: { dtype: 'float32', shape: [1, inputs] } },
    outputs: { y: { dtype: 'float32', shape: [1, units] } },
    initializers: {
      w8: { dtype: 'int8', shape: [inputs, units], data: weights },
      scale: { dtype: 'float32', shape: [], data: Float32Array.of(0.01) },
      zero: { dtype: 'int8', shape: [], data: Int8Array.of(0) },
    },
  });
}

function graphProto({ nodes, inputs = {}, outputs, initializers = {}, sparse = {} }: GraphSpec): object {
  return {
    name: 'test',
    node: nodes.map(nodeProto),
    initializer: Object.entries(initializers).map(([name, value]) => ({ name, ...tensorProto(value) })),
    sparseInitializer: Object.entries(sparse).map(([name, value]) => sparseProto(name, value)),
    input: Object.entries(inputs).map(([name, info]) => valueInfo(name, info)),
    output: Object.entries(outputs).map(([name, info]) => valueInfo(name, info)),
  };
}

function nodeProto({ op, inputs, outputs, name, domain, attributes = {} }: NodeSpec) {
  return {
    opType: op,
    input: inputs,
    output: outputs,
    name: name ?? '',
    domain: domain ?? '',
    attribute: Object.entries(attributes).map(([key, value]) => attribute(key, value)),
  };
}

function valueInfo(name: string, info: TypeSpec) {
  if ('untyped' in info) return { name };
  if ('elementType' in info) {
    const tensorType = { elemType: info.elementType };
    const maps = { mapType: { keyType: ELEMENT_TYPES.int64!, valueType: { tensorType } } };
    const types = {
      tensor: { tensorType },
      sequence: { sequenceType: { elemType: { tensorType } } },
      optional: { optionalType: { elemType: { tensorType } } },
      maps: { sequenceType: { elemType: maps } },
    };
    return { name, type: types[info.kind ?? 'tensor'] };
  }
  const dim = info.shape?.map(size => (typeof size === 'number' ? { dimValue: size } : { dimParam: size }));
  const tensorType = { elemType: ELEMENT_TYPES[info.dtype]!, ...(dim === undefined ? {} : { shape: { dim } }) };
  return { name, type: { tensorType } };
}

function attribute(name: string, value: AttributeSpec) {
  if (typeof value === 'number') return { name, type: 2, i: value };
  if (typeof value === 'string') return { name, type: 3, s: Buffer.from(value) };
  if ('float' in value) return { name, type: 1, f: value.float };
  if ('floats' in value) return { name, type: 6, floats: [...value.floats] };
  if ('strings' in value) return { name, type: 8, strings: value.strings.map(text => Buffer.from(text)) };
  if ('sparse' in value) return { name, type: 11, sparseTensor: sparseProto('', value.sparse) };
  if ('dtype' in value) return { name, type: 4, t: tensorProto(value) };
  if ('graph' in value) return { name, type: 5, g: graphProto(value.graph) };
  return { name, type: 7, ints: [...value] };
}

function sparseProto(name: string, { dense, by }: SparseSpec) {
  const { shape } = dense;
  const data = dense.data as Float32Array;
  const places = [...data.keys()].filter(place => data[place] !== 0);
  const coordinates = places.flatMap(place =>
    shape.map((size, axis) => {
      const inner = shape.slice(axis + 1).reduce((a, b) => a * b, 1);
      return Math.floor(place / inner) % size;
    }),
  );
  const indices = by === 'place' ? places : coordinates;
  const values = { ...dense, shape: [places.length], data: data.filter(value => value !== 0) };
  return {
    values: { name, ...tensorProto(values) },
    indices: {
      dims: by === 'place' ? [places.length] : [places.length, shape.length],
      dataType: ELEMENT_TYPES.int64!,
      rawData: new Uint8Array(BigInt64Array.from(indices, BigInt).buffer),
    },
    dims: [...shape],
  };
}

function tensorProto(value: Tensor) {
  return { dims: [...value.shape], dataType: ELEMENT_TYPES[value.dtype]!, rawData: tensorBytes(value) };
}
