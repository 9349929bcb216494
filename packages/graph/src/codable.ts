/**
 * Which nodes are linear layers that can be coded by their weights, and why the others are not: Conv, Gemm and MatMul
 * whose weights are constant float32, or float16 cast to it.
 */
import { atOnce, elementCount, fromHalf, type Parts, type Tensor } from '@kofn/core';
import { neededNodes, type GraphNode, type OnnxModel } from './graph.js';
import { transposedInParts, type ConvAttributes, type LinearLayer } from './linear-layer.js';
import { constantInParts, isFiniteConstant } from './onnx.js';
import { isLinear } from './original-names.js';
import { isPerUnit } from './plain-form.js';
import {
  dtypeOf,
  floatAttribute,
  intAttribute,
  intsAttribute,
  isStandard,
  shapeOf,
  stringAttribute,
  type TensorProto,
} from './proto.js';

interface Linear {
  /** Name of the node. */
  readonly node: string;
  readonly operator: string;
}

export interface Codable extends Linear {
  readonly operator: LinearLayer['operator'];
  readonly codable: true;
  readonly units: number;
  readonly fanIn: number;
  readonly groups: number;
  readonly hasBias: boolean;
  /** Value that the layer reads. */
  readonly dataInput: string;
  /** How a shard takes it (linear-layer.ts, `shardInput`): layers of one input and form can share it. */
  readonly inputForm: 'image' | 'rows' | 'columns';
  readonly output: string;
  /** Bytes of weights and bias. */
  readonly weightBytes: number;
  /** Reads weights and bias; nothing keeps them. Throws as reading external data does. */
  layer(): LinearLayer;
  layerInParts(): Parts<LinearLayer>;
}

export interface NotCodable extends Linear {
  readonly codable: false;
  readonly reason: string;
}

export type CodableReport = Codable | NotCodable;

/** Finding looks at every weight once (for NaN); a model does not change. */
const found = new WeakMap<OnnxModel, readonly CodableReport[]>();

/** Every Conv, Gemm, MatMul and ConvTranspose of the model's main graph, in topological order. Throws as reading external data does. */
export function findCodable(model: OnnxModel): readonly CodableReport[] {
  let reports = found.get(model);
  if (reports === undefined) {
    reports = reportsOf(model);
    found.set(model, reports);
  }
  return reports;
}

function reportsOf(model: OnnxModel): CodableReport[] {
  const needed = new Set(neededNodes(model));
  return model.nodes.flatMap((node): CodableReport[] => {
    if (!isStandard(node.proto)) return [];
    if (isLinear(node.proto) && !needed.has(node)) return [notCodable(node, 'no output needs it')];
    if (node.op === 'Conv') return [withReason(node, 'Conv', conv(model, node))];
    if (node.op === 'Gemm') return [withReason(node, 'Gemm', gemm(model, node))];
    if (node.op === 'MatMul') return [withReason(node, 'MatMul', matMul(model, node))];
    if (node.op === 'ConvTranspose') return [notCodable(node, 'a transposed convolution is not coded')];
    return [];
  });
}

type Found = Omit<Codable, 'node' | 'operator' | 'codable' | 'output' | 'layer'>;

function notCodable({ name, op }: GraphNode, reason: string): NotCodable {
  return { node: name, operator: op, codable: false, reason };
}

function withReason(node: GraphNode, operator: LinearLayer['operator'], found: Found | string): CodableReport {
  if (typeof found === 'string') return notCodable(node, found);
  const layer = () => atOnce(found.layerInParts());
  return { node: node.name, operator, codable: true, ...found, layer, output: node.outputs[0]! };
}

function conv(model: OnnxModel, node: GraphNode): Found | string {
  const [dataInput = '', weightName = '', biasName = ''] = node.proto.input ?? [];
  if (isConstant(model, dataInput)) return 'its input is constant';
  const weights = constantWeights(model, weightName);
  if (typeof weights === 'string') return weights;
  const [units = 0, channels = 0, ...rest] = weights.shape;
  const kernel = intsAttribute(node.proto, 'kernel_shape') ?? rest;
  if (rest.length < 1 || rest.length > 3 || kernel.join() !== rest.join()) {
    return `weights of shape [${weights.shape.join()}] with a kernel [${kernel.join()}] are no 1-D, 2-D or 3-D convolution`;
  }
  const groups = intAttribute(node.proto, 'group', 1);
  if (groups > 1 && units === groups) return 'depthwise: a group has one output channel, so there is nothing to split';
  const dims = rest.length;
  const ones = new Array<number>(dims).fill(1);
  const attributes: ConvAttributes = {
    groups,
    kernel,
    strides: intsAttribute(node.proto, 'strides') ?? ones,
    dilations: intsAttribute(node.proto, 'dilations') ?? ones,
    pads: intsAttribute(node.proto, 'pads') ?? new Array<number>(2 * dims).fill(0),
    autoPad: stringAttribute(node.proto, 'auto_pad', 'NOTSET') as ConvAttributes['autoPad'],
  };
  const bias = biasName === '' ? undefined : constantWeights(model, biasName);
  if (typeof bias === 'string') return `bias: ${bias}`;
  const fanIn = channels * elementCount(rest);
  return {
    ...sizes(units, fanIn, groups, bias !== undefined),
    dataInput,
    inputForm: 'image',
    *layerInParts() {
      return {
        name: node.name,
        operator: 'Conv',
        units,
        fanIn,
        weights: yield* weights.read(),
        bias: bias && (yield* bias.read()),
        conv: attributes,
      };
    },
  };
}

function gemm(model: OnnxModel, node: GraphNode): Found | string {
  const [dataInput = '', weightName = '', biasName = ''] = node.proto.input ?? [];
  if (isConstant(model, dataInput)) return 'its first factor is constant, not its input';
  const weights = constantWeights(model, weightName);
  if (typeof weights === 'string') return weights;
  if (weights.shape.length !== 2) return `weights of shape [${weights.shape.join()}] are not a matrix`;
  const transB = intAttribute(node.proto, 'transB', 0) !== 0;
  const columnsIn = intAttribute(node.proto, 'transA', 0) !== 0;
  const [rows = 0, columns = 0] = weights.shape;
  const [units, fanIn] = transB ? [rows, columns] : [columns, rows];
  const alpha = floatAttribute(node.proto, 'alpha', 1);
  const beta = floatAttribute(node.proto, 'beta', 1);
  const addend = biasName === '' ? undefined : constantWeights(model, biasName);
  if (typeof addend === 'string') return `addend C: ${addend}`;
  if (addend !== undefined && !isPerUnit(addend.shape, units)) {
    return `addend C of shape [${addend.shape.join()}] is not one value an output`;
  }
  return {
    ...sizes(units, fanIn, 1, addend !== undefined),
    dataInput,
    inputForm: columnsIn ? 'columns' : 'rows',
    *layerInParts() {
      const values = yield* weights.read();
      const bias = addend && (yield* addend.read());
      return {
        name: node.name,
        operator: 'Gemm',
        units,
        fanIn,
        weights: scaled(transB ? values : yield* transposedInParts(values, fanIn, units), alpha),
        bias: bias && scaled(bias.length === 1 ? new Float32Array(units).fill(bias[0]!) : bias, beta),
        ...(columnsIn ? { columnsIn } : {}),
      };
    },
  };
}

function matMul(model: OnnxModel, node: GraphNode): Found | string {
  const [left = '', right = ''] = node.proto.input ?? [];
  const isLeft = isConstant(model, left);
  if (isLeft && isConstant(model, right)) return 'both its factors are constant';
  const weights = constantWeights(model, isLeft ? left : right);
  if (typeof weights === 'string') return weights;
  if (weights.shape.length !== 2) return `weights of shape [${weights.shape.join()}] are not a matrix`;
  const [units = 0, fanIn = 0] = isLeft ? weights.shape : [...weights.shape].reverse();
  return {
    ...sizes(units, fanIn, 1, false),
    dataInput: isLeft ? right : left,
    inputForm: isLeft ? 'columns' : 'rows',
    *layerInParts() {
      const values = yield* weights.read();
      return {
        name: node.name,
        operator: 'MatMul',
        units,
        fanIn,
        weights: isLeft ? values : yield* transposedInParts(values, fanIn, units),
        ...(isLeft ? { columnsIn: true, columnsOut: true } : {}),
      };
    },
  };
}

interface Weights {
  readonly shape: readonly number[];
  read(): Parts<Float32Array>;
}

/** Constant, finite float32 weights, or why they are not. float16 weights that the model casts are such weights. */
function constantWeights(model: OnnxModel, name: string): Weights | string {
  const constant = model.constants.get(name) ?? castConstant(model, name);
  if (constant === undefined) return `"${name}" is computed, not constant`;
  const dtype = dtypeOf(constant.dataType);
  const isCast = constant !== model.constants.get(name);
  if (dtype !== (isCast ? 'float16' : 'float32')) return `"${name}" is ${dtype ?? 'of an unknown type'}, not float32`;
  function* read(): Parts<Float32Array> {
    const { data } = (yield* constantInParts(model, constant!)) as Tensor & { data: Float32Array | Uint16Array };
    return isCast ? Float32Array.from(data, fromHalf) : (data as Float32Array);
  }
  if (!isFiniteConstant(model, constant)) return `"${name}" has NaN or infinity`;
  return { shape: shapeOf(constant), read };
}

/**
 * The constant that a Cast to float32 makes `name` of: ONNX Runtime runs float16 operators so, and does not fold the cast.
 * Such weights are read through it, and stay in the file.
 */
export function castConstant(model: OnnxModel, name: string): TensorProto | undefined {
  const producer = model.producers.get(name);
  if (producer?.op !== 'Cast' || !isStandard(producer.proto)) return undefined;
  const isFloat32 = dtypeOf(intAttribute(producer.proto, 'to', 0)) === 'float32';
  return isFloat32 ? model.constants.get(producer.reads[0]!) : undefined;
}

function isConstant(model: OnnxModel, name: string): boolean {
  return (model.constants.get(name) ?? castConstant(model, name)) !== undefined;
}

function sizes(units: number, fanIn: number, groups: number, hasBias: boolean) {
  return { units, fanIn, groups, hasBias, weightBytes: 4 * units * (fanIn + (hasBias ? 1 : 0)) };
}

function scaled(values: Float32Array, factor: number): Float32Array {
  return factor === 1 ? values : values.map(value => value * factor);
}
