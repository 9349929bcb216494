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
}

/** A number becomes int, an array ints, a string string; {float: x} a float; a tensor or graph itself. */
export type AttributeSpec =
  number | readonly number[] | string | { readonly float: number } | Tensor | { readonly graph: GraphSpec };

export interface NodeSpec {
  op: string;
  inputs: string[];
  outputs: string[];
  name?: string;
  attributes?: Record<string, AttributeSpec>;
}

export interface ModelSpec {
  nodes: NodeSpec[];
  inputs: Record<string, { dtype: DType; shape: readonly (number | string)[] }>;
  outputs: Record<string, { dtype: DType; shape?: readonly (number | string)[] }>;
  initializers?: Tensors;
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
  const model = onnx.ModelProto.create({
    irVersion: 7,
    opsetImport: [{ domain: '', version: spec.opset ?? 13 }],
    graph: {
      ...graphProto(spec),
      initializer,
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

/** What ONNX Runtime gives for the whole model: the oracle. */
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

function graphProto({ nodes, inputs = {}, outputs }: GraphSpec): object {
  return {
    name: 'test',
    node: nodes.map(({ op, inputs: reads, outputs: makes, name, attributes = {} }) => ({
      opType: op,
      input: reads,
      output: makes,
      name: name ?? '',
      attribute: Object.entries(attributes).map(([key, value]) => attribute(key, value)),
    })),
    input: Object.entries(inputs).map(([name, info]) => valueInfo(name, info)),
    output: Object.entries(outputs).map(([name, info]) => valueInfo(name, info)),
  };
}

function valueInfo(name: string, info: { dtype: DType; shape?: readonly (number | string)[] }) {
  const dim = info.shape?.map(size => (typeof size === 'number' ? { dimValue: size } : { dimParam: size }));
  const tensorType = { elemType: ELEMENT_TYPES[info.dtype]!, ...(dim === undefined ? {} : { shape: { dim } }) };
  return { name, type: { tensorType } };
}

function attribute(name: string, value: AttributeSpec) {
  if (typeof value === 'number') return { name, type: 2, i: value };
  if (typeof value === 'string') return { name, type: 3, s: Buffer.from(value) };
  if ('float' in value) return { name, type: 1, f: value.float };
  if ('dtype' in value) return { name, type: 4, t: tensorProto(value) };
  if ('graph' in value) return { name, type: 5, g: graphProto(value.graph) };
  return { name, type: 7, ints: [...value] };
}

function tensorProto(value: Tensor) {
  return { dims: [...value.shape], dataType: ELEMENT_TYPES[value.dtype]!, rawData: tensorBytes(value) };
}
