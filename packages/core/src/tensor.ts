/**
 * A tensor is an element type, a shape and row-major (C order) elements. It owns nothing: `data` may be a view of a
 * larger buffer.
 */
import { KofnError } from './errors.js';

/** Element types by their ONNX names. float16 and bfloat16 are held as their bits; bool as 0 or 1 a byte. */
const ARRAY_TYPES = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
} as const;

export type NumericDType = keyof typeof ARRAY_TYPES;
export type DType = NumericDType | 'string';
export type TypedArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;
export type Shape = readonly number[];

export interface Tensor {
  readonly dtype: DType;
  /** Sizes from the outermost to the innermost dimension; [] is a scalar with one element. */
  readonly shape: Shape;
  /** As many elements as the shape holds, row-major. `string[]` only for dtype 'string'. */
  readonly data: TypedArray | string[];
}

export interface Float32Tensor extends Tensor {
  readonly dtype: 'float32';
  readonly data: Float32Array;
}

export type Tensors = Readonly<Record<string, Tensor>>;

/** Number of elements of a shape. */
export function elementCount(shape: Shape): number {
  let count = 1;
  for (const size of shape) count *= size;
  return count;
}

export function formatShape(shape: readonly (number | string)[]): string {
  return `[${shape.join(',')}]`;
}

export function isNumericDType(dtype: string): dtype is NumericDType {
  return Object.hasOwn(ARRAY_TYPES, dtype);
}

/** Bytes of one element. Throws UNSUPPORTED for 'string', which has no fixed size. */
export function elementBytes(dtype: DType): number {
  if (dtype === 'string') throw new KofnError('UNSUPPORTED', 'string tensors have no fixed element size');
  return ARRAY_TYPES[dtype].BYTES_PER_ELEMENT;
}

/** A tensor after checking that `data` fits `dtype` and `shape`. Throws DTYPE_MISMATCH or SHAPE_MISMATCH. */
export function tensor(dtype: DType, shape: Shape, data: TypedArray | string[]): Tensor {
  if (dtype === 'string' ? !Array.isArray(data) : !(data instanceof ARRAY_TYPES[dtype])) {
    throw new KofnError('DTYPE_MISMATCH', `a ${dtype} tensor cannot hold a ${data.constructor.name}`);
  }
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw new KofnError('SHAPE_MISMATCH', `shape ${formatShape(shape)} has a size that is not a whole number ≥ 0`);
    }
  }
  if (data.length !== elementCount(shape)) {
    throw new KofnError(
      'SHAPE_MISMATCH',
      `shape ${formatShape(shape)} holds ${elementCount(shape)} elements, the data has ${data.length}`,
    );
  }
  return { dtype, shape, data };
}

/** A float32 tensor of `data`. Throws SHAPE_MISMATCH. */
export function float32(shape: Shape, data: Float32Array): Float32Tensor {
  return tensor('float32', shape, data) as Float32Tensor;
}

/** The raw little-endian bytes of a numeric tensor: a view, not a copy. Throws UNSUPPORTED for 'string'. */
export function tensorBytes(value: Tensor): Uint8Array {
  if (Array.isArray(value.data)) throw new KofnError('UNSUPPORTED', 'string tensors have no raw bytes');
  return new Uint8Array(value.data.buffer, value.data.byteOffset, value.data.byteLength);
}

/**
 * A numeric tensor over raw little-endian bytes: a view where the alignment allows, else a copy. Throws
 * SHAPE_MISMATCH when the length does not fit and UNSUPPORTED for 'string'.
 */
export function tensorFromBytes(dtype: DType, shape: Shape, bytes: Uint8Array): Tensor {
  const size = elementBytes(dtype);
  if (bytes.byteLength !== size * elementCount(shape)) {
    throw new KofnError(
      'SHAPE_MISMATCH',
      `${dtype} ${formatShape(shape)} takes ${size * elementCount(shape)} bytes, got ${bytes.byteLength}`,
    );
  }
  const Type = ARRAY_TYPES[dtype as NumericDType];
  // Not bytes.slice(): a Buffer's gives a view.
  const aligned = bytes.byteOffset % size === 0 ? bytes : Uint8Array.prototype.slice.call(bytes);
  return tensor(dtype, shape, new Type(aligned.buffer as ArrayBuffer, aligned.byteOffset, elementCount(shape)));
}

/** True when no float32 or float64 element is NaN or infinite; other types are always finite (float16 by its bits). */
export function isFiniteTensor(value: Tensor): boolean {
  const { dtype, data } = value;
  if (dtype === 'float32' || dtype === 'float64') return allFinite(data as Float32Array | Float64Array);
  if (dtype === 'float16') return (data as Uint16Array).every(bits => (bits & 0x7c00) !== 0x7c00);
  if (dtype === 'bfloat16') return (data as Uint16Array).every(bits => (bits & 0x7f80) !== 0x7f80);
  return true;
}

/** True when no element is NaN or infinite. */
export function allFinite(data: Float32Array | Float64Array): boolean {
  return data instanceof Float32Array ? allFinite32(data) : data.every(Number.isFinite);
}

/** Every input and reply passes through here. Four sums at once, since an addition of floats waits for the one before. */
function allFinite32(data: Float32Array): boolean {
  // 0 · x is 0 for finite x and NaN otherwise, and NaN is sticky in a sum.
  let [a, b, c, d] = [0, 0, 0, 0];
  const whole = data.length & ~3;
  for (let i = 0; i < whole; i += 4) {
    a += 0 * data[i]!;
    b += 0 * data[i + 1]!;
    c += 0 * data[i + 2]!;
    d += 0 * data[i + 3]!;
  }
  for (let i = whole; i < data.length; i++) a += 0 * data[i]!;
  return a + b + c + d === 0;
}
