/**
 * Sparse tensors made dense when a model is loaded, in its subgraphs and functions too: ONNX Runtime does so when it opens a model, and
 * leaves them out of the copies that it writes.
 */
import { elementBytes, elementCount, formatShape, KofnError, tensorBytes, tensorFromBytes } from '@kofn/core';
import { checkConstant } from './check-constant.js';
import { constantValue } from './constant.js';
import type { OnnxModel } from './graph.js';
import {
  dtypeOf,
  subgraphsOf,
  toNumber,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
} from './proto.js';

type SparseTensorProto = NonNullable<GraphProto['sparseInitializer']>[number];

/** What the sparse tensors of a model may take together once they are dense. */
const MAX_DENSE_BYTES = 2 ** 30;

/**
 * Replaces every sparse tensor of `model` by a dense one, in place; says whether there was any. Throws INVALID_MODEL (indices or values
 * that do not fit the shape), UNSUPPORTED (element type), RESOURCE_EXHAUSTED (more than 1 GiB), else what reading external data throws.
 */
export function makeDense(model: ModelProto, origin: string, readExternal: OnnxModel['readExternal']): boolean {
  let totalBytes = 0;
  let found = false;
  const dense = (name: string, sparse: SparseTensorProto): TensorProto => {
    found = true;
    const made = denseTensor(name, sparse, { origin, readExternal, roomBytes: MAX_DENSE_BYTES - totalBytes });
    totalBytes += made.rawData?.byteLength ?? 0;
    return made;
  };
  const inNodes = (nodes: readonly NodeProto[]) => {
    for (const node of nodes) {
      for (const graph of subgraphsOf(node)) inGraph(graph);
      if (node.opType !== 'Constant') continue;
      node.attribute = (node.attribute ?? []).map(given => {
        if (given.name !== 'sparse_value' || !given.sparseTensor) return given;
        return { name: 'value', type: 4, t: dense(node.output?.[0] ?? '', given.sparseTensor) };
      });
    }
  };
  const inGraph = (graph: GraphProto) => {
    const made = (graph.sparseInitializer ?? []).map(sparse => dense(sparse.values?.name ?? '', sparse));
    graph.initializer = [...(graph.initializer ?? []), ...made];
    graph.sparseInitializer = [];
    inNodes(graph.node ?? []);
  };
  inGraph(model.graph!);
  for (const { node } of model.functions ?? []) inNodes(node ?? []);
  return found;
}

interface Reading {
  readonly origin: string;
  readonly readExternal: OnnxModel['readExternal'];
  readonly roomBytes: number;
}

/** Indices are those of the flattened tensor, or a row of coordinates each (onnx.proto3, SparseTensorProto). */
function denseTensor(name: string, { values, indices, dims }: SparseTensorProto, about: Reading): TensorProto {
  const { origin, readExternal, roomBytes } = about;
  const shape = (dims ?? []).map(toNumber);
  const refuse = (code: 'INVALID_MODEL' | 'UNSUPPORTED' | 'RESOURCE_EXHAUSTED', why: string): never => {
    throw new KofnError(code, `${origin}: the sparse constant "${name}" of shape ${formatShape(shape)} ${why}`);
  };
  if (!values || !indices) return refuse('INVALID_MODEL', 'has no values or no indices');
  if (!shape.every(size => Number.isSafeInteger(size) && size >= 0))
    refuse('INVALID_MODEL', 'has a size that cannot be');
  const dtype = dtypeOf(values.dataType);
  if (dtype === undefined || dtype === 'string') {
    return refuse(
      'UNSUPPORTED',
      `has elements that kofn does not make dense; convert the model with a dense "${name}"`,
    );
  }
  const count = elementCount(shape);
  if (count * elementBytes(dtype) > roomBytes) {
    refuse(
      'RESOURCE_EXHAUSTED',
      'would take more than 1 GiB as a dense one, with the other sparse constants; prune the model',
    );
  }
  for (const part of [values, indices]) checkConstant(part, origin, readExternal);
  const given = constantValue({ readExternal }, values);
  const places = constantValue({ readExternal }, indices);
  const rank = places.shape.length === 2 ? places.shape[1]! : 1;
  const isLinear = places.shape.length === 1;
  const fits = places.dtype === 'int64' && places.shape[0] === given.data.length && (isLinear || rank === shape.length);
  if (!fits)
    refuse('INVALID_MODEL', `has indices of shape ${formatShape(places.shape)} for ${given.data.length} values`);
  const dense = tensorFromBytes(dtype, shape, new Uint8Array(count * elementBytes(dtype)));
  const at = places.data as BigInt64Array;
  for (let i = 0; i < given.data.length; i++) {
    let place = 0;
    for (let axis = 0; axis < rank; axis++) {
      const size = isLinear ? count : shape[axis]!;
      const index = Number(at[i * rank + axis]);
      if (!(index >= 0 && index < size)) refuse('INVALID_MODEL', `has the index ${index} on an axis of ${size}`);
      place = place * size + index;
    }
    (dense.data as Float32Array)[place] = (given.data as Float32Array)[i]!;
  }
  return { name, dataType: values.dataType!, dims: shape, rawData: tensorBytes(dense) };
}
