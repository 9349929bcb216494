/** Parts of a model as models of their own. */
import { elementBytes, elementCount, KofnError, type DType } from '@kofn/core';
import { findCodable } from './codable.js';
import { externalRange } from '../model/external-data.js';
import type { GraphNode, ModelFiles, ModelImage, OnnxModel } from '../model/graph.js';
import { constantValue } from '../model/constant.js';
import {
  dtypeOf,
  onnx,
  shapeOf,
  valueInfoProto,
  type GraphProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from '../model/proto.js';
import { addendName } from '../model/plain-form.js';
import { inputShape } from './shard-model.js';
import { modelFiles } from '../model/model-image.js';
import { hasType } from '../model/values.js';
import { modelImage, type Constant } from '../model/write-model.js';

/** Element type and rank of values, as a run of the model showed them. */
export type ValueTypes = Readonly<Record<string, { readonly dtype: DType; readonly rank: number }>>;

/** `nodes` of `model` with the constants they read: `inputs` → `outputs`, which may be constants too. */
export function subModel(
  model: OnnxModel,
  nodes: readonly GraphNode[],
  inputs: readonly string[],
  outputs: readonly string[],
  types: ValueTypes = {},
): ModelImage {
  const used = new Set([...nodes.flatMap(node => node.reads), ...outputs]);
  return modelImage({
    nodes: nodes.map(node => inlined(model, node.proto)),
    inputs: inputs.map(name => describe(model, name, types)),
    // ONNX Runtime infers the types of outputs.
    outputs: outputs.map(name => declared(model, name) ?? (types[name] ? typed(name, types) : { name })),
    ...constantParts(
      model,
      [...model.constants].filter(([name]) => used.has(name) && !inputs.includes(name)),
    ),
    like: model.proto,
  });
}

/**
 * The graph of the file as it is, with its external data gathered: what ONNX Runtime opens, it opens so too. `outputs` are those of its
 * outputs that are wanted.
 */
export function fileModel(model: OnnxModel, outputs?: readonly string[]): ModelImage {
  const graph = model.proto.graph!;
  return modelImage({
    nodes: (graph.node ?? []).map(node => inlined(model, node)),
    inputs: graph.input ?? [],
    outputs: (graph.output ?? []).filter(({ name }) => outputs?.includes(name ?? '') ?? true),
    valueInfo: graph.valueInfo ?? [],
    ...constantParts(
      model,
      (graph.initializer ?? []).map(constant => [constant.name ?? '', constant]),
    ),
    like: model.proto,
  });
}

/**
 * The whole model with `values` as outputs instead of its own; inputs and constants among them are left out. With `inPlace` its
 * constants stay where they are, in the weights.bin that the model was loaded with, and the image has none.
 */
export function probeModel(model: OnnxModel, values: readonly string[], { inPlace = false } = {}): ModelImage {
  const made = [...new Set(values)].filter(value => model.producers.has(value));
  const outputs = model.outputs.map(output => output.name);
  if (model.undivided !== undefined) return fileModel(model, outputs);
  const wanted = made.length > 0 ? made : outputs;
  const inputs = model.inputs.map(input => input.name);
  if (!inPlace) return subModel(model, model.nodes, inputs, wanted);
  return modelImage({
    nodes: model.nodes.map(node => node.proto),
    inputs: inputs.map(name => describe(model, name, {})),
    outputs: wanted.map(name => declared(model, name) ?? { name }),
    constants: [],
    rawConstants: [...model.constants].map(([name, constant]) => ({ ...constant, name })),
    like: model.proto,
  });
}

/** The whole model with `fed`, names of overridable initializers, as inputs too. */
export function wholeModel(model: OnnxModel, fed: readonly string[] = []): ModelImage {
  const inputs = [...model.inputs.map(input => input.name), ...fed];
  return subModel(
    model,
    model.nodes,
    inputs,
    model.outputs.map(output => output.name),
  );
}

/**
 * The linear node `name` with its constants, as a model. Throws NOT_FOUND (no such node; the message lists those that
 * there are).
 */
export function extractNode(model: OnnxModel, name: string): ModelFiles {
  const report = findCodable(model).find(candidate => candidate.node === name);
  if (report === undefined) {
    const known = findCodable(model).map(candidate => candidate.node);
    throw new KofnError(
      'NOT_FOUND',
      `${model.origin} has no linear layer "${name}"; it has ${known.join(', ') || 'none'}`,
    );
  }
  if (!report.codable) throw new KofnError('UNSUPPORTED', `node "${name}" cannot be coded: ${report.reason}`);
  const node = model.nodes.find(candidate => candidate.name === name)!;
  const isAddend = (other: GraphNode) => other.name === addendName(name) && other.reads.includes(report.output);
  if (model.nodes.some(isAddend)) {
    throw new KofnError(
      'UNSUPPORTED',
      `node "${name}" adds a C that is not one value an output, which is no part of the layer; run the whole model (codedModel)`,
    );
  }
  const cast = model.nodes.filter(({ op, outputs }) => op === 'Cast' && node.reads.includes(outputs[0]!));
  const nodes = [...cast.filter(({ outputs }) => outputs[0] !== report.dataInput), node];
  const { model: bytes, weights } = modelFiles(subModel(model, nodes, [report.dataInput], [report.output]));
  const proto = onnx.ModelProto.decode(bytes);
  // Where the model does not declare the input's shape: what the weights fix of it.
  const input =
    declared(model, report.dataInput) ?? valueInfoProto(report.dataInput, 'float32', inputShape(report.layer()));
  proto.graph!.input = [onnx.ValueInfoProto.create(input)];
  proto.graph!.output = [onnx.ValueInfoProto.create(valueInfoProto(report.output, 'float32'))];
  return { model: onnx.ModelProto.encode(proto).finish(), weights };
}

/** `node` with the external data of its attributes and subgraphs inside it: a part has its own weights.bin. */
function inlined(model: OnnxModel, node: NodeProto): NodeProto {
  if ((node.attribute ?? []).every(({ t, g, graphs }) => !t && !g && !graphs?.length)) return node;
  const inGraph = (graph: GraphProto): GraphProto => ({
    ...graph,
    initializer: (graph.initializer ?? []).map(constant => inside(model, constant)),
    node: (graph.node ?? []).map(inner => inlined(model, inner)),
  });
  const attribute = node.attribute!.map(given => ({
    ...given,
    ...(given.t ? { t: inside(model, given.t) } : {}),
    ...(given.g ? { g: inGraph(given.g) } : {}),
    ...(given.graphs ? { graphs: given.graphs.map(inGraph) } : {}),
  }));
  return { ...node, attribute };
}

function inside(model: OnnxModel, constant: TensorProto): TensorProto {
  const outside = outsideBytes(model, constant);
  if (outside === undefined) return constant;
  const { externalData: _, dataLocation: __, ...rest } = constant;
  return { ...rest, rawData: outside.bytes() };
}

/** `constants`: those that are tensors or bytes to be read when their turn comes, and the others as they are. */
function constantParts(
  model: OnnxModel,
  constants: readonly (readonly [name: string, proto: TensorProto])[],
): { constants: Constant[]; rawConstants: TensorProto[] } {
  const parts = { constants: [] as Constant[], rawConstants: [] as TensorProto[] };
  for (const [name, proto] of constants) {
    const dtype = dtypeOf(proto.dataType);
    const about = { name, shape: shapeOf(proto) };
    const outside = outsideBytes(model, proto);
    if (dtype !== undefined && dtype !== 'string') {
      parts.constants.push({ ...about, dtype, read: () => constantValue(model, proto) });
    } else if (outside !== undefined) {
      parts.constants.push({ ...about, ...outside, elementType: proto.dataType ?? 0 });
    } else {
      parts.rawConstants.push({ ...proto, name }); // strings, and types that kofn does not know
    }
  }
  return parts;
}

/** The bytes of a constant that stand outside the model; undefined when they are in it. */
function outsideBytes(model: OnnxModel, constant: TensorProto) {
  const range = externalRange(constant);
  if (range === undefined) return undefined;
  const { location, offset } = range;
  const dtype = dtypeOf(constant.dataType);
  const known = dtype === undefined ? undefined : elementCount(shapeOf(constant)) * elementBytes(dtype);
  const byteLength = range.byteLength ?? known;
  if (byteLength === undefined) {
    const what = `constant "${constant.name ?? ''}" has element type ${constant.dataType}`;
    throw new KofnError('UNSUPPORTED', `${what}, and external data that does not say its length; convert the model`);
  }
  return { byteLength, bytes: () => model.readExternal(location, offset, byteLength) };
}

function describe(model: OnnxModel, name: string, types: ValueTypes): ValueInfoProto {
  // Without a probe only linear layers' outputs cross a cut whose type is sure.
  return declared(model, name) ?? (types[name] ? typed(name, types) : valueInfoProto(name, 'float32'));
}

function typed(name: string, types: ValueTypes): ValueInfoProto {
  const { dtype, rank } = types[name]!;
  return valueInfoProto(
    name,
    dtype,
    Array.from({ length: rank }, (_, axis) => `${name}_${axis}`),
  );
}

/** What the model itself says of an input or output. */
function declared(model: OnnxModel, name: string): ValueInfoProto | undefined {
  const graph = model.proto.graph!;
  return [...(graph.input ?? []), ...(graph.output ?? [])].find(value => value.name === name && hasType(value));
}
