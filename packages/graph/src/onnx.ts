/**
 * From bytes to a checked graph. Protobuf takes almost anything for a message, so that a file is a model is decided here:
 * every reader of an OnnxModel may rely on it.
 *
 * Invariants of a loaded model
 * 1. Every value that is read is an input, a constant, or made by an earlier node; no value is made twice.
 * 2. Node names are unique and not empty.
 * 3. Every constant has as many elements as its shape says, in the model or in external data that is there.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import {
  elementBytes,
  elementCount,
  isFiniteTensor,
  KofnError,
  PART_VALUES,
  tensor,
  tensorFromBytes,
  type Parts,
  type Tensor,
  type TypedArray,
} from '@kofn/core';
import { checkConstant } from './check-constant.js';
import { externalBytes, externalFiles, externalRange } from './external-data.js';
import { restoreNames } from './original-names.js';
import { plainForm } from './plain-form.js';
import type { GraphNode, ModelFiles, OnnxModel, ValueInfo } from './graph.js';
import {
  attributeOf,
  dtypeOf,
  isStandard,
  onnx,
  shapeOf,
  toBigInt,
  toNumber,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from './proto.js';

/** Read at a time where a whole constant is not needed. */
const PIECE_BYTES = 2 ** 24;

export interface LoadOptions {
  /** Reads external data instead of the files beside the model. */
  readonly readExternal?: OnnxModel['readExternal'] | undefined;
  /** The model that `source` was normalised from: its names of linear nodes, and its name in messages. */
  readonly original?: OnnxModel | undefined;
}

/**
 * Loads a model from a path (external data beside it), from the bytes of an ONNX file, or from both files as bytes.
 * Throws NOT_FOUND (no such file), INVALID_MODEL (not ONNX, truncated, inconsistent), DATA_LOSS (external data cut off),
 * UNSUPPORTED (a valid model with inputs that are no tensors).
 */
export async function loadModel(
  source: string | Uint8Array | ModelFiles,
  { readExternal, original }: LoadOptions = {},
): Promise<OnnxModel> {
  if (typeof source === 'string') {
    const file = path.resolve(source);
    const bytes = await readFile(file).catch((cause: NodeJS.ErrnoException) => {
      const why = cause.code === 'ENOENT' ? 'does not exist; check the path' : `cannot be read (${cause.code})`;
      throw new KofnError('NOT_FOUND', `the model ${source} ${why}`, { cause });
    });
    const proto = parse(bytes, source);
    if (original !== undefined) restoreNames(proto.graph!, original);
    return build(proto, original?.origin ?? source, readExternal ?? externalFiles(path.dirname(file)));
  }
  const files = source instanceof Uint8Array ? { model: source, weights: new Uint8Array() } : source;
  return build(parse(files.model, 'the model'), 'the model', externalBytes(files.weights));
}

/** The elements of a constant. Throws UNSUPPORTED (element type), else what reading external data throws. */
export function constantValue(model: OnnxModel, constant: TensorProto): Tensor {
  const dtype = dtypeOf(constant.dataType);
  const name = constant.name ?? '';
  if (dtype === undefined) {
    throw new KofnError(
      'UNSUPPORTED',
      `constant "${name}" has element type ${constant.dataType}, which kofn cannot hold`,
    );
  }
  const shape = shapeOf(constant);
  const range = externalRange(constant);
  if (range !== undefined) {
    const byteLength = range.byteLength ?? elementCount(shape) * elementBytes(dtype);
    return tensorFromBytes(dtype, shape, model.readExternal(range.location, range.offset, byteLength));
  }
  if (dtype === 'string') {
    return tensor(
      dtype,
      shape,
      (constant.stringData ?? []).map(bytes => Buffer.from(bytes).toString('utf8')),
    );
  }
  if (constant.rawData && constant.rawData.length > 0) return tensorFromBytes(dtype, shape, constant.rawData);
  switch (dtype) {
    case 'float32':
      return tensor(dtype, shape, Float32Array.from(constant.floatData ?? []));
    case 'float64':
      return tensor(dtype, shape, Float64Array.from(constant.doubleData ?? []));
    case 'int64':
      return tensor(dtype, shape, BigInt64Array.from((constant.int64Data ?? []).map(value => toBigInt(value))));
    case 'uint64':
      return tensor(dtype, shape, BigUint64Array.from((constant.uint64Data ?? []).map(value => toBigInt(value))));
    case 'uint32':
      return tensor(dtype, shape, Uint32Array.from((constant.uint64Data ?? []).map(toNumber)));
    default: {
      const zeros = tensorFromBytes(dtype, shape, new Uint8Array(elementCount(shape) * elementBytes(dtype)));
      (zeros.data as Int32Array).set((constant.int32Data ?? []).map(toNumber));
      return zeros;
    }
  }
}

/**
 * Elements `first` to `end` of a constant, in parts where it is external data, of which no more is read; of a constant in the model itself
 * they are a view. External data goes into `scratch`, of as many elements, where there is one. Throws as {@link constantValue}.
 */
export function* constantSlice(
  model: OnnxModel,
  constant: TensorProto,
  first: number,
  end: number,
  scratch?: TypedArray,
): Parts<TypedArray> {
  const dtype = dtypeOf(constant.dataType);
  const range = externalRange(constant);
  if (dtype === undefined || dtype === 'string') {
    return (constantValue(model, constant).data as TypedArray).subarray(first, end);
  }
  const size = elementBytes(dtype);
  if (range === undefined) {
    // Of raw bytes that are not aligned a view is a copy: of what is asked for, not of all.
    const raw = constant.rawData ?? new Uint8Array();
    if (raw.byteLength !== size * elementCount(shapeOf(constant))) {
      return (constantValue(model, constant).data as TypedArray).subarray(first, end);
    }
    return tensorFromBytes(dtype, [end - first], raw.subarray(size * first, size * end)).data as TypedArray;
  }
  const all =
    scratch ?? (tensorFromBytes(dtype, [end - first], new Uint8Array(size * (end - first))).data as TypedArray);
  for (let at = first; at < end; at += PART_VALUES) {
    const part = all.subarray(at - first, Math.min(PART_VALUES, end - at) + at - first);
    const into = new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
    const bytes = model.readExternal(range.location, range.offset + size * at, part.byteLength, into);
    if (bytes !== into) into.set(bytes);
    yield;
  }
  return all;
}

/**
 * Whether no element of a float32 or float16 constant is NaN or infinite; reads external data piece by piece. Throws as
 * {@link constantValue}.
 */
export function isFiniteConstant(model: OnnxModel, constant: TensorProto): boolean {
  const dtype = dtypeOf(constant.dataType);
  const range = externalRange(constant);
  if (range === undefined || (dtype !== 'float32' && dtype !== 'float16')) {
    return isFiniteTensor(constantValue(model, constant));
  }
  const end = range.offset + elementCount(shapeOf(constant)) * elementBytes(dtype);
  for (let at = range.offset; at < end; at += PIECE_BYTES) {
    const bytes = model.readExternal(range.location, at, Math.min(PIECE_BYTES, end - at));
    if (!isFiniteTensor(tensorFromBytes(dtype, [bytes.byteLength / elementBytes(dtype)], bytes))) return false;
  }
  return true;
}

function parse(bytes: Uint8Array, origin: string): ModelProto {
  if (bytes.byteLength === 0) throw invalid(origin, 'the file is empty');
  let model: ModelProto;
  try {
    model = onnx.ModelProto.decode(bytes);
  } catch (cause) {
    throw invalid(origin, 'it is not an ONNX file, or it is cut off', cause);
  }
  if (toNumber(model.irVersion) < 1 || !model.graph || !model.opsetImport?.length) {
    throw invalid(origin, 'it is not an ONNX file, or it is cut off (no IR version, opset or graph)');
  }
  if (!model.graph.output?.length) throw invalid(origin, 'its graph has no outputs');
  return model;
}

function build(proto: ModelProto, origin: string, readExternal: OnnxModel['readExternal']): OnnxModel {
  const graph = proto.graph!;
  const constants = new Map<string, TensorProto>();
  for (const initializer of graph.initializer ?? []) constants.set(initializer.name ?? '', initializer);
  const inputs = (graph.input ?? []).filter(input => !constants.has(input.name ?? ''));
  const overridable = (graph.input ?? []).filter(input => constants.has(input.name ?? ''));
  const known = new Set([...constants.keys(), ...inputs.map(input => input.name ?? '')]);
  const sparse = new Set((graph.sparseInitializer ?? []).map(({ values }) => values?.name ?? ''));
  for (const name of sparse) known.add(name);

  const nodes: GraphNode[] = [];
  const producers = new Map<string, GraphNode>();
  const consumers = new Map<string, GraphNode[]>();
  const names = uniqueNames(graph.node ?? []);
  const opset = toNumber(proto.opsetImport?.find(({ domain }) => ['', 'ai.onnx'].includes(domain ?? ''))?.version);
  const add = (node: NodeProto, name: string) => {
    const reads = [...new Set([...(node.input ?? []), ...captured(node)])].filter(value => value !== '');
    const outputs = (node.output ?? []).filter(value => value !== '');
    for (const value of reads) {
      if (known.has(value)) continue;
      throw invalid(origin, `node "${name}" reads "${value}", which nothing before it makes`);
    }
    for (const value of outputs) {
      if (known.has(value)) throw invalid(origin, `the value "${value}" is made twice, the second time by "${name}"`);
      known.add(value);
    }
    const constant = constantOf(node);
    if (constant !== undefined) {
      constants.set(outputs[0]!, { ...constant, name: outputs[0]! });
      return;
    }
    const made: GraphNode = { name, op: node.opType ?? '', reads, outputs, proto: node };
    nodes.push(made);
    for (const value of outputs) producers.set(value, made);
    for (const value of reads) consumers.set(value, [...(consumers.get(value) ?? []), made]);
  };
  for (const [index, node] of (graph.node ?? []).entries()) {
    const form = plainForm(node, names[index]!, constants, opset);
    for (const constant of form.constants) {
      constants.set(constant.name!, constant);
      known.add(constant.name!);
    }
    for (const { proto: plain, name } of form.nodes) add(plain, name);
  }
  const outputs = graph.output!;
  for (const { name } of outputs) {
    if (!known.has(name ?? '')) throw invalid(origin, `its output "${name}" is made by no node`);
    if (sparse.has(name ?? '')) {
      throw new KofnError(
        'UNSUPPORTED',
        `${origin}: its output "${name}" is a sparse constant; convert it to a dense one`,
      );
    }
  }
  for (const constant of constants.values()) checkConstant(constant, origin, readExternal);
  return {
    origin,
    inputs: inputs.map(input => valueInfo(input, origin)),
    overridable: overridable.map(input => valueInfo(input, origin)),
    outputs: outputs.map(output => valueInfo(output, origin)),
    nodes,
    producers,
    consumers,
    constants,
    proto,
    readExternal,
  };
}

/** The tensor of a Constant node; undefined for other nodes and for constants that are no dense tensors. */
function constantOf(node: NodeProto): TensorProto | undefined {
  if (node.opType !== 'Constant' || !isStandard(node)) return undefined;
  const value = attributeOf(node, 'value')?.t;
  if (value) return value;
  const float = attributeOf(node, 'value_float');
  if (float) return { dataType: 1, dims: [], floatData: [float.f ?? 0] };
  const floats = attributeOf(node, 'value_floats');
  if (floats) return { dataType: 1, dims: [floats.floats?.length ?? 0], floatData: floats.floats ?? [] };
  const int = attributeOf(node, 'value_int');
  if (int) return { dataType: 7, dims: [], int64Data: [int.i ?? 0] };
  const ints = attributeOf(node, 'value_ints');
  if (ints) return { dataType: 7, dims: [ints.ints?.length ?? 0], int64Data: ints.ints ?? [] };
  return undefined;
}

/** Values that the subgraphs of a node (If, Loop, Scan) take from outside, at any depth. */
function captured(node: NodeProto): string[] {
  const graphs = (node.attribute ?? []).flatMap(({ g, graphs: list }) => [...(g ? [g] : []), ...(list ?? [])]);
  return graphs.flatMap(capturedByGraph);
}

function capturedByGraph(graph: GraphProto): string[] {
  const sparse = (graph.sparseInitializer ?? []).map(({ values }) => values ?? {});
  const given = [...(graph.input ?? []), ...(graph.initializer ?? []), ...sparse];
  const inner = new Set(given.map(value => value.name ?? ''));
  const outer: string[] = [];
  for (const node of graph.node ?? []) {
    outer.push(...[...(node.input ?? []), ...captured(node)].filter(value => value !== '' && !inner.has(value)));
    for (const value of node.output ?? []) inner.add(value);
  }
  outer.push(...(graph.output ?? []).map(value => value.name ?? '').filter(value => !inner.has(value)));
  return outer;
}

/** A name of its own for each node: the model's where it has one, the first to have it where several do. */
function uniqueNames(nodes: readonly NodeProto[]): string[] {
  const given = new Set(nodes.map(node => node.name ?? '').filter(name => name !== ''));
  const taken = new Set<string>();
  return nodes.map(({ name, opType }, index) => {
    let unique = name ?? '';
    if (unique === '' || taken.has(unique)) {
      unique = `${unique || (opType ?? 'node')}_${index}`;
      while (taken.has(unique) || given.has(unique)) unique += '_';
    }
    taken.add(unique);
    return unique;
  });
}

function valueInfo({ name, type }: ValueInfoProto, origin: string): ValueInfo {
  const dtype = dtypeOf(type?.tensorType?.elemType);
  if (dtype === undefined) {
    throw new KofnError('UNSUPPORTED', `${origin}: "${name}" is not a tensor of a type that kofn carries`);
  }
  const shape = (type?.tensorType?.shape?.dim ?? []).map(dim =>
    dim.dimValue !== null && dim.dimValue !== undefined && toNumber(dim.dimValue) > 0
      ? toNumber(dim.dimValue)
      : (dim.dimParam ?? ''),
  );
  return { name: name ?? '', dtype, shape };
}

function invalid(origin: string, why: string, cause?: unknown): KofnError {
  return new KofnError('INVALID_MODEL', `${origin} is not a usable ONNX model: ${why}`, { cause });
}
