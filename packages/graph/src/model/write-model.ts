/**
 * Writes ONNX models with their weights beside them. Deterministic: the same parts give the same bytes everywhere, since
 * the hash of the bytes is a shard's name.
 */
import { elementBytes, elementCount, tensorBytes, type Bands, type DType, type Shape, type Tensor } from '@kofn/core';
import type { ImagePart, ModelFiles, ModelImage } from './graph.js';
import { modelFiles } from './model-image.js';
import {
  elementTypeOf,
  onnx,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from './proto.js';

/** Weights start at multiples of this, so that an engine can map them from the file. */
const ALIGNMENT_BYTES = 4096;
/** onnx 1.8, as old as opset 13. */
const IR_VERSION = 7;
/** Smaller constants stay in the model. */
const EXTERNAL_FROM_BYTES = 1024;

/** A constant at hand, or one to read when its turn comes, so that not all are in memory twice. */
export type Constant =
  | { readonly name: string; readonly value: Tensor }
  | {
      readonly name: string;
      readonly dtype: DType;
      readonly shape: Shape;
      readonly read: () => Tensor;
      /** The same a part at a time (float32). */
      readonly bands?: () => Bands;
    }
  /** One of any element type, as its bytes. */
  | {
      readonly name: string;
      readonly elementType: number;
      readonly shape: Shape;
      readonly byteLength: number;
      readonly bytes: () => Uint8Array;
    };

export interface ModelParts {
  readonly nodes: readonly NodeProto[];
  readonly inputs: readonly ValueInfoProto[];
  readonly outputs: readonly ValueInfoProto[];
  readonly constants: readonly Constant[];
  /** Constants to carry over as they are. */
  readonly rawConstants?: readonly TensorProto[];
  /** Types of values in between. */
  readonly valueInfo?: readonly ValueInfoProto[];
  /** IR version, opsets and functions to keep; opset 13 when absent. */
  readonly like?: ModelProto;
}

/** The model of `parts` as both files in memory. */
export function writeModel(parts: ModelParts): ModelFiles {
  return modelFiles(modelImage(parts));
}

/** The model of `parts`, to be saved or joined. */
export function modelImage(parts: ModelParts): ModelImage {
  const initializer: TensorProto[] = [...(parts.rawConstants ?? [])];
  const beside: ImagePart[] = [];
  let end = 0;
  for (const constant of parts.constants) {
    const { name, elementType, shape, byteLength, bytes } = asBytes(constant);
    const common = { name, dims: [...shape], dataType: elementType };
    if (byteLength < EXTERNAL_FROM_BYTES) {
      initializer.push({ ...common, rawData: bytes() });
      continue;
    }
    const offset = Math.ceil(end / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    const bands = 'bands' in constant ? constant.bands : undefined;
    beside.push({ read: bytes, offset, bands });
    end = offset + byteLength;
    initializer.push({
      ...common,
      dataLocation: 1,
      externalData: [
        { key: 'location', value: 'weights.bin' },
        { key: 'offset', value: String(offset) },
        { key: 'length', value: String(byteLength) },
      ],
    });
  }
  const model = onnx.ModelProto.create({
    irVersion: parts.like?.irVersion ?? IR_VERSION,
    opsetImport: parts.like?.opsetImport ?? [{ domain: '', version: 13 }],
    functions: parts.like?.functions ?? [],
    producerName: 'kofn',
    graph: {
      name: 'kofn',
      node: [...parts.nodes],
      input: [...parts.inputs],
      output: [...parts.outputs],
      valueInfo: [...(parts.valueInfo ?? [])],
      initializer,
    },
  });
  return { model: onnx.ModelProto.encode(model).finish(), weightsBytes: end, parts: beside };
}

function asBytes(constant: Constant): Extract<Constant, { bytes: unknown }> {
  if ('bytes' in constant) return constant;
  const { dtype, shape } = 'value' in constant ? constant.value : constant;
  const read = () => ('value' in constant ? constant.value : constant.read());
  return {
    name: constant.name,
    elementType: elementTypeOf(dtype),
    shape,
    byteLength: elementCount(shape) * elementBytes(dtype),
    bytes: () => tensorBytes(read()),
  };
}
