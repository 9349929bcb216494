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
import { KofnError } from '@kofn/core';
import { checkConstant } from './check-constant.js';
import { makeDense } from './dense.js';
import { externalBytes, externalFiles } from './external-data.js';
import type { GraphNode, ModelFiles, OnnxModel } from './graph.js';
import { topologically } from './order.js';
import { restoreNames } from './original-names.js';
import { plainForm } from './plain-form.js';
import {
  attributeOf,
  isStandard,
  onnx,
  subgraphsOf,
  toNumber,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
} from './proto.js';
import { uncarriedValues } from './uncarried.js';
import { endsOf } from './values.js';

/** Bytes 4 to 8 of a model in ONNX Runtime's own format. */
const ORT_FORMAT = 'ORTM';

export interface LoadOptions {
  /** Reads external data instead of the files beside the model. */
  readonly readExternal?: OnnxModel['readExternal'] | undefined;
  /** The model that `source` was normalised from: its names of linear nodes, and its name in messages. */
  readonly original?: OnnxModel | undefined;
}

/**
 * Loads a model from a path (external data beside it), from the bytes of an ONNX file, or from both files as bytes.
 * Throws NOT_FOUND (no such file), INVALID_MODEL (not ONNX, truncated, inconsistent), DATA_LOSS (external data cut off),
 * UNSUPPORTED (a valid model with inputs that are no tensors, or no output that is one), RESOURCE_EXHAUSTED (sparse constants that are
 * more than 1 GiB when they are dense).
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
    if (original !== undefined) {
      dropRepeated(proto.graph!);
      restoreNames(proto.graph!, original);
    }
    return build(proto, original?.origin ?? source, readExternal ?? externalFiles(path.dirname(file)));
  }
  const files = source instanceof Uint8Array ? { model: source, weights: new Uint8Array() } : source;
  return build(parse(files.model, 'the model'), 'the model', externalBytes(files.weights));
}

function parse(bytes: Uint8Array, origin: string): ModelProto {
  if (bytes.byteLength === 0) throw invalid(origin, 'the file is empty');
  if (Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1', 4, 8) === ORT_FORMAT) {
    const what = "is in ONNX Runtime's own format (.ort); give the .onnx file that it was made from";
    throw new KofnError('UNSUPPORTED', `${origin} ${what}`);
  }
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

/**
 * ONNX Runtime (1.27) opens no file that has the constants of subgraphs as it writes them itself: twice, of which the second is what it made of
 * them, or two graphs deep beside the node that they came from.
 */
function dropRepeated(graph: GraphProto): void {
  const last = new Map((graph.initializer ?? []).map(constant => [constant.name ?? '', constant]));
  graph.initializer = [...last.values()];
  const isRepeated = ({ opType, output }: NodeProto) => opType === 'Constant' && last.has(output?.[0] ?? '');
  graph.node = (graph.node ?? []).filter(node => !isRepeated(node));
  for (const inner of graph.node.flatMap(subgraphsOf)) dropRepeated(inner);
}

function build(proto: ModelProto, origin: string, readExternal: OnnxModel['readExternal']): OnnxModel {
  const graph = proto.graph!;
  const isRewritten = makeDense(proto, origin, readExternal);
  const constants = new Map<string, TensorProto>();
  for (const initializer of graph.initializer ?? []) constants.set(initializer.name ?? '', initializer);
  const known = new Set([...constants.keys(), ...(graph.input ?? []).map(input => input.name ?? '')]);

  const nodes: GraphNode[] = [];
  const producers = new Map<string, GraphNode>();
  const consumers = new Map<string, GraphNode[]>();
  const names = uniqueNames(graph.node ?? []);
  const taken = new Set([...names.values(), ...valuesOf(graph)]);
  const opset = toNumber(proto.opsetImport?.find(({ domain }) => ['', 'ai.onnx'].includes(domain ?? ''))?.version);
  const add = (node: NodeProto, name: string) => {
    const reads = readsOf(node);
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
  for (const node of topologically(graph.node ?? [], readsOf)) {
    const form = plainForm(node, names.get(node)!, { constants, opset, taken });
    for (const constant of form.constants) {
      constants.set(constant.name!, constant);
      known.add(constant.name!);
    }
    for (const { proto: plain, name } of form.nodes) add(plain, name);
  }
  for (const { name } of graph.output!) {
    if (!known.has(name ?? '')) throw invalid(origin, `its output "${name}" is made by no node`);
  }
  for (const constant of [...constants.values(), ...innerConstants(graph)])
    checkConstant(constant, origin, readExternal);
  const ends = endsOf(graph, constants, origin);
  const uncarried = uncarriedValues(graph, nodes, constants);
  return { origin, ...ends, nodes, producers, consumers, uncarried, constants, proto, isRewritten, readExternal };
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

/** What a node reads: its own inputs, and what its subgraphs (of If, Loop, Scan) take from outside, at any depth. */
function readsOf(node: NodeProto): string[] {
  return [...new Set([...(node.input ?? []), ...captured(node)])].filter(value => value !== '');
}

function captured(node: NodeProto): string[] {
  return subgraphsOf(node).flatMap(graph => {
    const inner = new Set([
      ...[...(graph.input ?? []), ...(graph.initializer ?? [])].map(value => value.name ?? ''),
      ...(graph.node ?? []).flatMap(({ output }) => output ?? []),
    ]);
    const read = [...(graph.node ?? []).flatMap(readsOf), ...(graph.output ?? []).map(({ name }) => name ?? '')];
    return read.filter(value => !inner.has(value));
  });
}

/** The names of all values of `graph` and of the graphs inside it. */
function valuesOf(graph: GraphProto): string[] {
  return [
    ...[...(graph.input ?? []), ...(graph.initializer ?? [])].map(({ name }) => name ?? ''),
    ...(graph.node ?? []).flatMap(node => [...(node.output ?? []), ...subgraphsOf(node).flatMap(valuesOf)]),
  ];
}

/** The constants of the graphs inside the nodes of `graph`. */
function innerConstants(graph: GraphProto): TensorProto[] {
  const inner = (graph.node ?? []).flatMap(subgraphsOf);
  return inner.flatMap(each => [...(each.initializer ?? []), ...innerConstants(each)]);
}

/** A name of its own for each node: the model's where it has one, the first to have it where several do. */
function uniqueNames(nodes: readonly NodeProto[]): Map<NodeProto, string> {
  const given = new Set(nodes.map(node => node.name ?? '').filter(name => name !== ''));
  const taken = new Set<string>();
  return new Map(
    nodes.map((node, index) => {
      const { name, opType } = node;
      let unique = name ?? '';
      if (unique === '' || taken.has(unique)) {
        unique = `${unique || (opType ?? 'node')}_${index}`;
        while (taken.has(unique) || given.has(unique)) unique += '_';
      }
      taken.add(unique);
      return [node, unique];
    }),
  );
}

function invalid(origin: string, why: string, cause?: unknown): KofnError {
  return new KofnError('INVALID_MODEL', `${origin} is not a usable ONNX model: ${why}`, { cause });
}
