/** Layers and their coded blocks as ONNX models: input `x`, output `y`, one linear node (a layer's) or several of one input. */
import { atOnce, elementCount, float32, formatShape, joined, KofnError, type Bands, type Shape } from '@kofn/core';
import type { ModelFiles, ModelImage } from '../model/graph.js';
import { transposed, type ConvAttributes, type LinearLayer } from './linear-layer.js';
import { modelFiles } from '../model/model-image.js';
import { valueInfoProto, type NodeProto } from '../model/proto.js';
import { modelImage, writeModel, type Constant } from '../model/write-model.js';

/** Activations that a layer may have; run after decoding, never on workers. ONNX operators of opset 13. */
export const ACTIVATIONS = ['relu', 'leakyRelu', 'elu', 'sigmoid', 'tanh', 'softplus', 'softmax'] as const;
export type ActivationName = (typeof ACTIVATIONS)[number];

const ACTIVATION_OPERATORS: Record<ActivationName, string> = {
  relu: 'Relu',
  leakyRelu: 'LeakyRelu',
  elu: 'Elu',
  sigmoid: 'Sigmoid',
  tanh: 'Tanh',
  softplus: 'Softplus',
  softmax: 'Softmax',
};

/** A coded block of a layer: `weights` is units × fanIn, there or to be made when it is needed; `bias` one value a unit. */
export interface ShardPart {
  readonly layer: Pick<LinearLayer, 'operator' | 'fanIn' | 'conv'>;
  readonly weights: Float32Array | (() => Bands);
  readonly bias?: Float32Array | undefined;
  readonly units: number;
}

/** Name of a shard's output for part `index`. */
export function shardOutput(index: number): string {
  return suffixed('y', index);
}

/**
 * Coded blocks of layers that share an input as a model, one node a part. Dense (Gemm and MatMul alike): `x` [rows, fanIn] →
 * `y` [rows, units]; conv: `x` [N, channels, ...spatial] → `y` [N, units, ...]; further parts give `y1`, `y2`, …
 */
export function shardModel(parts: readonly ShardPart[]): ModelFiles {
  return modelFiles(shardImage(parts));
}

/** The same, to be joined. */
export function shardImage(parts: readonly ShardPart[]): ModelImage {
  return modelImage({
    nodes: parts.map(({ layer: { conv }, bias }, index): NodeProto => ({
      opType: conv === undefined ? 'Gemm' : 'Conv',
      name: suffixed('shard', index),
      input: ['x', suffixed('w', index), ...(bias === undefined ? [] : [suffixed('b', index)])],
      output: [shardOutput(index)],
      attribute: conv === undefined ? [{ name: 'transB', type: 2, i: 1 }] : convAttributes(conv),
    })),
    inputs: [valueInfoProto('x', 'float32', inputShape(parts[0]!.layer))],
    outputs: parts.map(({ layer, units }, index) =>
      valueInfoProto(shardOutput(index), 'float32', outputShape(layer, units, index)),
    ),
    constants: parts.flatMap(({ layer, weights, bias, units }, index) => [
      weightsOf(suffixed('w', index), weightShape(layer, units), weights),
      ...(bias === undefined ? [] : [{ name: suffixed('b', index), value: float32([units], bias) }]),
    ]),
  });
}

function weightsOf(name: string, shape: Shape, weights: ShardPart['weights']): Constant {
  if (weights instanceof Float32Array) return { name, value: float32(shape, weights) };
  const read = () => float32(shape, atOnce(joined(weights(), new Float32Array(elementCount(shape)))));
  return { name, dtype: 'float32', shape, read, bands: weights };
}

function suffixed(name: string, index: number): string {
  return index === 0 ? name : `${name}${index}`;
}

/** The whole layer, then its activation: `x` → `y`. A MatMul takes any leading dimensions. Throws SHAPE_MISMATCH. */
export function layerModel(layer: LinearLayer, activation?: ActivationName): ModelFiles {
  const { units, fanIn, weights, bias, conv, name } = layer;
  if (weights.length !== units * fanIn) {
    throw new KofnError('SHAPE_MISMATCH', `layer ${name}: ${units} x ${fanIn} weights expected, got ${weights.length}`);
  }
  const matMul = layer.operator === 'MatMul';
  const input = matMul || bias === undefined ? ['x', 'w'] : ['x', 'w', 'b'];
  const attribute = conv !== undefined ? convAttributes(conv) : matMul ? [] : [{ name: 'transB', type: 2, i: 1 }];
  const nodes: NodeProto[] = [{ opType: layer.operator, name, input, attribute }];
  if (matMul && bias !== undefined) nodes.push({ opType: 'Add', name: `${name}/bias`, input: ['product', 'b'] });
  if (activation !== undefined) {
    const softmaxAxis = conv === undefined ? -1 : 1;
    nodes.push({
      opType: ACTIVATION_OPERATORS[activation],
      name: `${name}/${activation}`,
      input: ['linear'],
      attribute: activation === 'softmax' ? [{ name: 'axis', type: 2, i: softmaxAxis }] : [],
    });
  }
  nodes.forEach((node, i) => (node.output = [nodes[i + 1]?.input?.[0] ?? 'y']));
  return writeModel({
    nodes,
    inputs: [valueInfoProto('x', 'float32', matMul ? undefined : inputShape(layer))],
    outputs: [valueInfoProto('y', 'float32', matMul ? undefined : outputShape(layer, units))],
    constants: [
      matMul
        ? { name: 'w', value: float32([fanIn, units], transposed(weights, units, fanIn)) }
        : { name: 'w', value: float32(weightShape(layer, units), weights) },
      ...(bias === undefined ? [] : [{ name: 'b', value: float32([units], bias) }]),
    ],
  });
}

/** Input shape of a dense layer or convolution, with names for what is open. */
export function inputShape({ conv, fanIn }: Pick<LinearLayer, 'conv' | 'fanIn'>): (number | string)[] {
  if (conv === undefined) return ['rows', fanIn];
  return ['N', channelsPerGroup(conv, fanIn) * conv.groups, ...conv.kernel.map((_, i) => `size${i}`)];
}

function outputShape({ conv }: Pick<LinearLayer, 'conv'>, units: number, part = 0): (number | string)[] {
  return conv === undefined
    ? ['rows', units]
    : ['N', units, ...conv.kernel.map((_, i) => suffixed(`out${i}${part > 0 ? '_' : ''}`, part))];
}

function weightShape({ conv, fanIn }: Pick<LinearLayer, 'conv' | 'fanIn'>, units: number): Shape {
  return conv === undefined ? [units, fanIn] : [units, channelsPerGroup(conv, fanIn), ...conv.kernel];
}

function channelsPerGroup({ kernel }: ConvAttributes, fanIn: number): number {
  const channels = fanIn / kernel.reduce((a, b) => a * b, 1);
  if (Number.isInteger(channels) && channels > 0) return channels;
  throw new KofnError('SHAPE_MISMATCH', `${fanIn} weights a channel do not fit a kernel ${formatShape(kernel)}`);
}

function convAttributes({ groups, kernel, strides, dilations, pads, autoPad }: ConvAttributes) {
  return [
    { name: 'kernel_shape', type: 7, ints: [...kernel] },
    { name: 'strides', type: 7, ints: [...strides] },
    { name: 'dilations', type: 7, ints: [...dilations] },
    { name: 'group', type: 2, i: groups },
    autoPad === 'NOTSET'
      ? { name: 'pads', type: 7, ints: [...pads] }
      : { name: 'auto_pad', type: 3, s: Buffer.from(autoPad) },
  ];
}
