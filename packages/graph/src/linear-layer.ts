/**
 * A linear layer as the encoder and the shard models see it: output = weights · input + bias, whatever ONNX node or
 * user object it came from. All shape arithmetic of coded layers is in this file.
 */
import { elementCount, formatShape, KofnError, type Shape } from '@kofn/core';

/** Attributes of a convolution, ONNX's Conv semantics; arrays have one entry a spatial dimension (d of them). */
export interface ConvAttributes {
  readonly groups: number;
  /** Kernel sizes. */
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  /** 2d entries: begin of each dimension, then end of each. Ignored unless autoPad is NOTSET. */
  readonly pads: readonly number[];
  readonly autoPad: 'NOTSET' | 'SAME_UPPER' | 'SAME_LOWER' | 'VALID';
}

export interface LinearLayer {
  readonly name: string;
  /** ONNX operator it stands for: Gemm and MatMul are dense. */
  readonly operator: 'Gemm' | 'MatMul' | 'Conv';
  /** Output rows (dense) or output channels (conv): what the code splits. */
  readonly units: number;
  /** Weights of one unit: the inner dimension (dense) or channels/groups × kernel sizes (conv). */
  readonly fanIn: number;
  /** units × fanIn, row-major: dense [units, fanIn]; conv [units, channels/groups, ...kernel], ONNX's order. */
  readonly weights: Float32Array;
  /** One value a unit. */
  readonly bias?: Float32Array | undefined;
  /** Only for Conv. */
  readonly conv?: ConvAttributes | undefined;
}

/** A layer without its weights: all that its shapes depend on. */
export type LayerGeometry = Omit<LinearLayer, 'weights' | 'bias'>;

/** Groups of the layer: its units are split within each; 1 but for grouped convolutions. */
export function groupsOf(layer: Pick<LinearLayer, 'conv'>): number {
  return layer.conv?.groups ?? 1;
}

/**
 * Shape of the whole output for an input of shape `input`: dense [...leading, fanIn] → [...leading, units]; conv
 * [N, channels, ...spatial] → [N, units, ...]. Throws SHAPE_MISMATCH naming layer, expected and given shape.
 */
export function outputShape(layer: LayerGeometry, input: Shape): number[] {
  if (layer.conv === undefined) {
    if (
      input.length < 1 ||
      input[input.length - 1] !== layer.fanIn ||
      (layer.operator === 'Gemm' && input.length !== 2)
    ) {
      throw mismatch(layer, layer.operator === 'Gemm' ? `[N,${layer.fanIn}]` : `[…,${layer.fanIn}]`, input);
    }
    return [...input.slice(0, -1), layer.units];
  }
  const { conv } = layer;
  const dims = conv.kernel.length;
  const channels = (layer.fanIn / conv.kernel.reduce((a, b) => a * b, 1)) * conv.groups;
  const expected = `[N,${channels}${',size'.repeat(dims)}]`;
  if (input.length !== dims + 2 || input[1] !== channels) throw mismatch(layer, expected, input);
  const spatial = conv.kernel.map((kernel, i) => convOutputSize(conv, i, kernel, input[i + 2]!));
  if (spatial.some(size => size < 1)) throw mismatch(layer, `${expected} at least as large as the kernel`, input);
  return [input[0]!, layer.units, ...spatial];
}

/** Multiply-accumulates of one run that gives an output of shape `output`. */
export function macsOf(layer: Pick<LinearLayer, 'fanIn'>, output: Shape): number {
  return elementCount(output) * layer.fanIn;
}

function convOutputSize(conv: ConvAttributes, i: number, kernel: number, size: number): number {
  const stride = conv.strides[i]!;
  if (conv.autoPad === 'SAME_UPPER' || conv.autoPad === 'SAME_LOWER') return Math.ceil(size / stride);
  const pads = conv.autoPad === 'VALID' ? 0 : conv.pads[i]! + conv.pads[i + conv.kernel.length]!;
  return Math.floor((size + pads - (conv.dilations[i]! * (kernel - 1) + 1)) / stride) + 1;
}

function mismatch(layer: LayerGeometry, expected: string, given: Shape): KofnError {
  return new KofnError(
    'SHAPE_MISMATCH',
    `layer ${layer.name} (${layer.operator}) takes an input of shape ${expected}, got ${formatShape(given)}`,
  );
}
