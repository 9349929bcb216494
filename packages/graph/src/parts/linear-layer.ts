/**
 * A linear layer as the encoder and the shard models see it: output = weights · input + bias, whatever ONNX node or
 * user object it came from. All shape arithmetic of coded layers is in this file.
 */
import {
  elementCount,
  float32,
  formatShape,
  KofnError,
  PART_VALUES,
  type Float32Tensor,
  type Parts,
  type Shape,
  type Tensor,
} from '@kofn/core';

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
  /** Dense: the input has its samples in columns, [..., fanIn, rows] (Gemm's transA, a MatMul with weights on the left). */
  readonly columnsIn?: boolean | undefined;
  /** Dense: so has the output, [..., units, rows] (a MatMul with weights on the left). */
  readonly columnsOut?: boolean | undefined;
}

/** A layer without its weights: all that its shapes depend on. */
export type LayerGeometry = Omit<LinearLayer, 'weights' | 'bias'>;

/** Groups of the layer: its units are split within each; 1 but for grouped convolutions. */
export function groupsOf(layer: Pick<LinearLayer, 'conv'>): number {
  return layer.conv?.groups ?? 1;
}

/**
 * Shape of the whole output for an input of shape `input`: dense [...leading, fanIn] → [...leading, units] (see columnsIn and
 * columnsOut for the others); conv [N, channels, ...spatial] → [N, units, ...]. Throws SHAPE_MISMATCH naming layer, expected
 * and given shape.
 */
export function outputShape(layer: LayerGeometry, input: Shape): number[] {
  if (layer.conv === undefined) return denseOutputShape(layer, input);
  const { conv } = layer;
  const dims = conv.kernel.length;
  const channels = (layer.fanIn / conv.kernel.reduce((a, b) => a * b, 1)) * conv.groups;
  const expected = `[N,${channels}${',size'.repeat(dims)}]`;
  if (input.length !== dims + 2 || input[1] !== channels) throw mismatch(layer, expected, input);
  const spatial = conv.kernel.map((kernel, i) => convOutputSize(conv, i, kernel, input[i + 2]!));
  if (spatial.some(size => size < 1)) throw mismatch(layer, `${expected} at least as large as the kernel`, input);
  return [input[0]!, layer.units, ...spatial];
}

function denseOutputShape(layer: LayerGeometry, input: Shape): number[] {
  const { operator, fanIn, units } = layer;
  const [leading, rows] = [input.slice(0, -2), input.slice(-1)];
  const isMatrix = operator === 'Gemm' ? input.length === 2 : input.length >= 2;
  if (layer.columnsIn !== true || (input.length === 1 && operator === 'MatMul')) {
    if (input.at(-1) === fanIn && (isMatrix || operator === 'MatMul')) return [...input.slice(0, -1), units];
    throw mismatch(layer, operator === 'Gemm' ? `[N,${fanIn}]` : `[…,${fanIn}]`, input);
  }
  if (input.at(-2) !== fanIn || !isMatrix)
    throw mismatch(layer, `${operator === 'Gemm' ? '[' : '[…,'}${fanIn},N]`, input);
  return layer.columnsOut === true ? [...leading, units, ...rows] : [...leading, ...rows, units];
}

/**
 * `input` as a shard takes it: a convolution's as it is, dense [rows, fanIn] over the same elements, which are moved only
 * where they stand in columns.
 */
export function shardInput(layer: LayerGeometry, input: Tensor): Tensor {
  if (layer.conv !== undefined) return input;
  const rows = elementCount(input.shape) / layer.fanIn;
  const shape = [rows, layer.fanIn];
  if (layer.columnsIn !== true || input.shape.length < 2) return { ...input, shape };
  return float32(shape, transposed(input.data as Float32Array, layer.fanIn, input.shape.at(-1)!));
}

/** The layer's output, of shape `shape`, from `values`: dense [rows, units], conv as it is. `values` may become its data. */
export function layerOutput(layer: LayerGeometry, shape: Shape, values: Float32Array): Float32Tensor {
  if (layer.columnsOut !== true || shape.length < 2) return float32(shape, values);
  return float32(shape, transposed(values, shape.at(-1)!, layer.units));
}

/** Matrices of `rows` × `columns`, one after the other, each transposed to columns × rows. */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const size = rows * columns;
  const result = new Float32Array(values.length);
  for (let start = 0; start < values.length; start += size) {
    const [matrix, turned] = [values, result].map(all => all.subarray(start, start + size));
    turnRows(matrix!, turned!, { rows, columns, first: 0, end: rows });
  }
  return result;
}

/** One matrix of `rows` × `columns`, transposed. */
export function* transposedInParts(values: Float32Array, rows: number, columns: number): Parts<Float32Array> {
  const result = new Float32Array(values.length);
  const step = Math.max(1, Math.floor(PART_VALUES / columns));
  for (let first = 0; first < rows; first += step) {
    turnRows(values, result, { rows, columns, first, end: Math.min(rows, first + step) });
    yield;
  }
  return result;
}

/** Writes the rows of `matrix` from `first` to `end` to `turned`, as columns. */
function turnRows(
  matrix: Float32Array,
  turned: Float32Array,
  { rows, columns, first, end }: { rows: number; columns: number; first: number; end: number },
): void {
  for (let row = first, from = first * columns; row < end; row++) {
    for (let to = row, column = 0; column < columns; column++, to += rows) turned[to] = matrix[from++]!;
  }
}

/** Multiply-accumulates of one run that gives an output of shape `output`. */
export function macsOf(layer: Pick<LinearLayer, 'fanIn'>, output: Shape): number {
  return elementCount(output) * layer.fanIn;
}

/** Zeros before the first element of each spatial dimension of an input of shape `input`, whose output has shape `output`. */
export function padsBefore(conv: ConvAttributes, input: Shape, output: Shape): number[] {
  const { kernel, strides, dilations, pads, autoPad } = conv;
  return kernel.map((size, i) => {
    if (autoPad === 'VALID') return 0;
    if (autoPad === 'NOTSET') return pads[i]!;
    const reach = (output[i + 2]! - 1) * strides[i]! + dilations[i]! * (size - 1) + 1;
    const both = Math.max(0, reach - input[i + 2]!);
    return autoPad === 'SAME_UPPER' ? Math.floor(both / 2) : Math.ceil(both / 2);
  });
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
