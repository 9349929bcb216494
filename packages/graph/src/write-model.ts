/**
 * Writes ONNX models with their weights beside them. Deterministic: the same parts give the same bytes everywhere, since
 * the hash of the bytes is a shard's name.
 */
import { tensorBytes, type Tensor } from '@kofn/core';
import type { ModelFiles } from './graph.js';
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

export interface ModelParts {
  readonly nodes: readonly NodeProto[];
  readonly inputs: readonly ValueInfoProto[];
  readonly outputs: readonly ValueInfoProto[];
  readonly constants: readonly { readonly name: string; readonly value: Tensor }[];
  /** Constants to carry over as they are. */
  readonly rawConstants?: readonly TensorProto[];
  /** IR version, opsets and functions to keep; opset 13 when absent. */
  readonly like?: ModelProto;
}

export function writeModel(parts: ModelParts): ModelFiles {
  const chunks: Uint8Array[] = [];
  let offset = 0;
  const initializer: TensorProto[] = [...(parts.rawConstants ?? [])];
  for (const { name, value } of parts.constants) {
    const common = { name, dims: [...value.shape], dataType: elementTypeOf(value.dtype) };
    if (Array.isArray(value.data)) {
      initializer.push({ ...common, stringData: value.data.map(text => Buffer.from(text, 'utf8')) });
      continue;
    }
    const bytes = tensorBytes(value);
    if (bytes.byteLength < EXTERNAL_FROM_BYTES) {
      initializer.push({ ...common, rawData: bytes });
      continue;
    }
    const padding = (ALIGNMENT_BYTES - (offset % ALIGNMENT_BYTES)) % ALIGNMENT_BYTES;
    chunks.push(new Uint8Array(padding), bytes);
    offset += padding;
    initializer.push({
      ...common,
      dataLocation: 1,
      externalData: [
        { key: 'location', value: 'weights.bin' },
        { key: 'offset', value: String(offset) },
        { key: 'length', value: String(bytes.byteLength) },
      ],
    });
    offset += bytes.byteLength;
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
      initializer,
    },
  });
  return { model: onnx.ModelProto.encode(model).finish(), weights: joined(chunks, offset) };
}

/** One copy into place; a single chunk without padding is passed on as it is. */
function joined(chunks: readonly Uint8Array[], byteLength: number): Uint8Array {
  const filled = chunks.filter(chunk => chunk.byteLength > 0);
  if (filled.length === 1) return filled[0]!;
  const all = new Uint8Array(byteLength);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.byteLength;
  }
  return all;
}
