/**
 * Which nodes are linear layers that can be coded by their weights, and why the others are not: Conv, Gemm and MatMul
 * whose weights are constant float32, or float16 cast to it.
 */
import { atOnce, elementCount, fromHalf, type Parts, type RowSource } from '@kofn/core';
import { neededNodes, type GraphNode, type OnnxModel } from '../model/graph.js';
import { transposedInParts, type ConvAttributes, type LayerGeometry, type LinearLayer } from './linear-layer.js';
import { constantSlice, isFiniteConstant } from '../model/constant.js';
import { isLinear } from '../model/original-names.js';
import { isPerUnit } from '../model/plain-form.js';
import {
  dtypeOf,
  floatAttribute,
  intAttribute,
  intsAttribute,
  isStandard,
  shapeOf,
  stringAttribute,
  type TensorProto,
} from '../model/proto.js';

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
  readonly geometry: LayerGeometry;
  /** Rows of the weights, units × fanIn, for as long as somebody needs them. Reading throws as reading external data does. */
  rows(): RowSource;
  bias(): Float32Array | undefined;
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
    if (isLinear(node.proto) && model.undivided !== undefined) return [notCodable(node, model.undivided)];
    if (node.op === 'Conv') return [withReason(node, 'Conv', conv(model, node))];
    if (node.op === 'Gemm') return [withReason(node, 'Gemm', gemm(model, node))];
    if (node.op === 'MatMul') return [withReason(node, 'MatMul', matMul(model, node))];
    if (node.op === 'ConvTranspose') return [notCodable(node, 'a transposed convolution is not coded')];
    return [];
  });
}

type Found = Pick<Codable, 'dataInput' | 'inputForm' | 'rows'> & {
  readonly geometry: Omit<LayerGeometry, 'name' | 'operator'>;
  /** Undefined when there is none. */
  readonly bias?: (() => Float32Array) | undefined;
};

function notCodable({ name, op }: GraphNode, reason: string): NotCodable {
  return { node: name, operator: op, codable: false, reason };
}

function withReason(node: GraphNode, operator: LinearLayer['operator'], found: Found | string): CodableReport {
  if (typeof found === 'string') return notCodable(node, found);
  const { name } = node;
  const geometry: LayerGeometry = { name, operator, ...found.geometry };
  const { units, fanIn, conv: { groups } = { groups: 1 } } = geometry;
  const bias = () => found.bias?.();
  return {
    node: name,
    operator,
    codable: true,
    ...found,
    geometry,
    bias,
    layer: () => ({ ...geometry, weights: atOnce(found.rows().read(0, units)), bias: bias() }),
    units,
    fanIn,
    groups,
    hasBias: found.bias !== undefined,
    weightBytes: 4 * units * (fanIn + (found.bias === undefined ? 0 : 1)),
    output: node.outputs[0]!,
  };
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
    geometry: { units, fanIn, conv: attributes },
    dataInput,
    inputForm: 'image',
    rows: () => rowsOf(weights, fanIn),
    bias: bias && (() => whole(bias)),
  };
}

function gemm(model: OnnxModel, node: GraphNode): Found | string {
  const [dataInput = '', weightName = '', biasName = ''] = node.proto.input ?? [];
  if (isConstant(model, dataInput)) return 'its first factor is constant, not its input';
  const alpha = floatAttribute(node.proto, 'alpha', 1);
  const beta = floatAttribute(node.proto, 'beta', 1);
  const weights = constantWeights(model, weightName, alpha);
  if (typeof weights === 'string') return weights;
  if (weights.shape.length !== 2) return `weights of shape [${weights.shape.join()}] are not a matrix`;
  const transB = intAttribute(node.proto, 'transB', 0) !== 0;
  const columnsIn = intAttribute(node.proto, 'transA', 0) !== 0;
  const [rows = 0, columns = 0] = weights.shape;
  const [units, fanIn] = transB ? [rows, columns] : [columns, rows];
  // With beta = 0 nobody reads C, whatever is in it.
  const addend = biasName === '' || beta === 0 ? undefined : constantWeights(model, biasName, beta);
  if (typeof addend === 'string') return `addend C: ${addend}`;
  if (addend !== undefined && !isPerUnit(addend.shape, units)) {
    return `addend C of shape [${addend.shape.join()}] is not one value an output`;
  }
  return {
    geometry: { units, fanIn, ...(columnsIn ? { columnsIn } : {}) },
    dataInput,
    inputForm: columnsIn ? 'columns' : 'rows',
    rows: () => (transB ? rowsOf(weights, fanIn, alpha) : columnsOf(weights, fanIn, units, alpha)),
    bias:
      addend &&
      (() => {
        const values = whole(addend);
        return scaled(values.length === 1 ? new Float32Array(units).fill(values[0]!) : values, beta);
      }),
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
    geometry: { units, fanIn, ...(isLeft ? { columnsIn: true, columnsOut: true } : {}) },
    dataInput: isLeft ? right : left,
    inputForm: isLeft ? 'columns' : 'rows',
    rows: () => (isLeft ? rowsOf(weights, fanIn) : columnsOf(weights, fanIn, units)),
  };
}

interface Weights {
  readonly shape: readonly number[];
  /** Elements `first` to `end`; `scratch` as that of a RowSource. */
  read(first: number, end: number, scratch?: Float32Array): Parts<Float32Array>;
}

/** Constant float32 weights, finite also times `factor`, or why they are not. float16 weights that the model casts are such weights. */
function constantWeights(model: OnnxModel, name: string, factor = 1): Weights | string {
  const constant = model.constants.get(name) ?? castConstant(model, name);
  if (constant === undefined) return `"${name}" is computed, not constant`;
  const dtype = dtypeOf(constant.dataType);
  const isCast = constant !== model.constants.get(name);
  if (dtype !== (isCast ? 'float16' : 'float32')) return `"${name}" is ${dtype ?? 'of an unknown type'}, not float32`;
  function* read(first: number, end: number, scratch?: Float32Array): Parts<Float32Array> {
    if (!isCast) return (yield* constantSlice(model, constant!, first, end, scratch)) as Float32Array;
    return Float32Array.from((yield* constantSlice(model, constant!, first, end)) as Uint16Array, fromHalf);
  }
  if (!isFiniteConstant(model, constant, factor)) {
    return `"${name}" has NaN or infinity${factor === 1 ? '' : `, or has once it is multiplied by ${factor}`}`;
  }
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

/** Weights that stand unit by unit. */
function rowsOf(weights: Weights, fanIn: number, factor = 1): RowSource {
  return {
    *read(first, end, scratch) {
      return scaled(yield* weights.read(first * fanIn, end * fanIn, scratch), factor);
    },
  };
}

/** Weights whose units are columns: turned once, as a whole, when the first are needed. */
function columnsOf(weights: Weights, fanIn: number, units: number, factor = 1): RowSource {
  let turned: Float32Array | undefined;
  return {
    *read(first, end) {
      turned ??= yield* transposedInParts(yield* weights.read(0, fanIn * units), fanIn, units);
      return scaled(turned.subarray(first * fanIn, end * fanIn), factor);
    },
  };
}

function whole(weights: Weights): Float32Array {
  return atOnce(weights.read(0, elementCount(weights.shape)));
}

function scaled(values: Float32Array, factor: number): Float32Array {
  return factor === 1 ? values : values.map(value => value * factor);
}
