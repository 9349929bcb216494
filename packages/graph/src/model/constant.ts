/** The elements of constants, in the model or beside it: as a whole, a slice at a time, or only looked at. */
import {
  elementBytes,
  elementCount,
  fromHalf,
  isFiniteTensor,
  KofnError,
  PART_VALUES,
  tensor,
  tensorFromBytes,
  type Parts,
  type Tensor,
  type TypedArray,
} from '@kofn/core';
import { externalRange } from './external-data.js';
import type { OnnxModel } from './graph.js';
import { dtypeOf, shapeOf, toBigInt, toNumber, type TensorProto } from './proto.js';

/** All that reading a constant takes of a model: where external data is. */
type Reading = Pick<OnnxModel, 'readExternal'>;

/** Read at a time where a whole constant is not needed. */
const PIECE_BYTES = 2 ** 24;

/** The elements of a constant. Throws UNSUPPORTED (element type), else what reading external data throws. */
export function constantValue(model: Reading, constant: TensorProto): Tensor {
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
  model: Reading,
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
 * Whether no element of a float32 or float16 constant, times `factor`, is NaN or infinite in float32; reads external data piece by piece.
 * Throws as {@link constantValue}.
 */
export function isFiniteConstant(model: Reading, constant: TensorProto, factor = 1): boolean {
  const dtype = dtypeOf(constant.dataType);
  const range = externalRange(constant);
  if (range === undefined || (dtype !== 'float32' && dtype !== 'float16')) {
    return isFiniteTimes(constantValue(model, constant), factor);
  }
  const end = range.offset + elementCount(shapeOf(constant)) * elementBytes(dtype);
  for (let at = range.offset; at < end; at += PIECE_BYTES) {
    const bytes = model.readExternal(range.location, at, Math.min(PIECE_BYTES, end - at));
    if (!isFiniteTimes(tensorFromBytes(dtype, [bytes.byteLength / elementBytes(dtype)], bytes), factor)) return false;
  }
  return true;
}

function isFiniteTimes(value: Tensor, factor: number): boolean {
  if (!isFiniteTensor(value)) return false;
  if (Math.abs(factor) <= 1) return true; // nothing grows
  const { dtype, data } = value;
  const isFinite = (element: number) => Number.isFinite(Math.fround(element * factor));
  if (dtype === 'float16') return (data as Uint16Array).every(bits => isFinite(fromHalf(bits)));
  return dtype !== 'float32' || (data as Float32Array).every(isFinite);
}
