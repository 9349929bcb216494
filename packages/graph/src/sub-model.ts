/** Parts of a model as models of their own. */
import { KofnError, tensorBytes, type DType } from '@kofn/core';
import { findCodable } from './codable.js';
import { externalRange } from './external-data.js';
import type { GraphNode, ModelFiles, ModelImage, OnnxModel } from './graph.js';
import { constantValue } from './onnx.js';
import {
  dtypeOf,
  onnx,
  shapeOf,
  valueInfoProto,
  type GraphProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from './proto.js';
import { addendName } from './plain-form.js';
import { inputShape } from './shard-model.js';
import { modelFiles } from './model-image.js';
import { modelImage, type Constant } from './write-model.js';

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
  const constants = [...model.constants].filter(([name]) => used.has(name) && !inputs.includes(name));
  // What kofn cannot hold as a tensor (4-bit integers, say) passes through as it is, unless it stands outside.
  const raw = constants.filter(([, proto]) => dtypeOf(proto.dataType) === undefined && !externalRange(proto));
  const carried = new Set(raw.map(([name]) => name));
  const sparse = (model.proto.graph?.sparseInitializer ?? []).filter(({ values }) => used.has(values?.name ?? ''));
  if (sparse.length > 0) {
    throw new KofnError('UNSUPPORTED', `${model.origin} has sparse initializers; convert them to dense ones`);
  }
  return modelImage({
    nodes: nodes.map(node => inlined(model, node.proto)),
    inputs: inputs.map(name => describe(model, name, types)),
    // ONNX Runtime infers the types of outputs.
    outputs: outputs.map(name => declared(model, name) ?? (types[name] ? typed(name, types) : { name })),
    constants: constants.filter(([name]) => !carried.has(name)).map(([name, proto]) => lazily(model, name, proto)),
    rawConstants: raw.map(([name, proto]) => ({ ...proto, name })),
    like: model.proto,
  });
}

/**
 * The whole model with `values` as outputs instead of its own; inputs and constants among them are left out. With `inPlace` its
 * constants stay where they are, in the weights.bin that the model was loaded with, and the image has none.
 */
export function probeModel(model: OnnxModel, values: readonly string[], { inPlace = false } = {}): ModelImage {
  const made = [...new Set(values)].filter(value => model.producers.has(value));
  const wanted = made.length > 0 ? made : model.outputs.map(output => output.name);
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
  if (model.nodes.some(candidate => candidate.name === addendName(name))) {
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

/** `node` with the external data of its subgraphs' constants inside it: a part has its own weights.bin. */
function inlined(model: OnnxModel, node: NodeProto): NodeProto {
  const graphs = (node.attribute ?? []).some(({ g, graphs: list }) => g || (list?.length ?? 0) > 0);
  if (!graphs) return node;
  const inGraph = (graph: GraphProto): GraphProto => ({
    ...graph,
    initializer: (graph.initializer ?? []).map(constant => inside(model, constant)),
    node: (graph.node ?? []).map(inner => inlined(model, inner)),
  });
  const attribute = node.attribute!.map(given => ({
    ...given,
    ...(given.g ? { g: inGraph(given.g) } : {}),
    ...(given.graphs ? { graphs: given.graphs.map(inGraph) } : {}),
  }));
  return { ...node, attribute };
}

function inside(model: OnnxModel, constant: TensorProto): TensorProto {
  if (externalRange(constant) === undefined) return constant;
  const { externalData: _, dataLocation: __, ...rest } = constant;
  return { ...rest, rawData: tensorBytes(constantValue(model, constant)) };
}

function lazily(model: OnnxModel, name: string, proto: TensorProto): Constant {
  const dtype = dtypeOf(proto.dataType);
  if (dtype === undefined) return { name, value: constantValue(model, proto) }; // throws, saying why
  return { name, dtype, shape: shapeOf(proto), read: () => constantValue(model, proto) };
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
  return [...(graph.input ?? []), ...(graph.output ?? [])].find(value => value.name === name);
}
