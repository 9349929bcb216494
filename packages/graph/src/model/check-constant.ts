/** Whether a constant's elements are all there, found out when the model is loaded: nothing has started then. */
import { elementBytes, elementCount, formatShape, KofnError, type DType } from '@kofn/core';
import { externalRange } from './external-data.js';
import type { OnnxModel } from './graph.js';
import { dtypeOf, shapeOf, type TensorProto } from './proto.js';

/**
 * Throws INVALID_MODEL (a shape that is none, another number of elements than it says) and what reading external data
 * throws; of that one byte, the last, is read. Element types that kofn cannot hold are not looked at.
 */
export function checkConstant(constant: TensorProto, origin: string, readExternal: OnnxModel['readExternal']): void {
  const dtype = dtypeOf(constant.dataType);
  if (dtype === undefined) return;
  const shape = shapeOf(constant);
  const refuse = (why: string): never => {
    throw new KofnError(
      'INVALID_MODEL',
      `${origin} is not a usable ONNX model: constant "${constant.name ?? ''}" of shape ${formatShape(shape)} ${why}`,
    );
  };
  if (!shape.every(size => Number.isSafeInteger(size) && size >= 0)) refuse('has a size that cannot be');
  const count = elementCount(shape);
  const range = externalRange(constant);
  if (range === undefined) {
    const given = elementsInside(constant, dtype);
    if (given !== count) refuse(`holds ${count} elements, the model has ${given}`);
    return;
  }
  if (dtype === 'string') refuse('holds strings in external data, which ONNX does not allow');
  const expected = count * elementBytes(dtype);
  const byteLength = range.byteLength ?? expected;
  if (byteLength !== expected) refuse(`takes ${expected} bytes, its external data has ${byteLength}`);
  readExternal(range.location, range.offset + Math.max(0, byteLength - 1), Math.min(1, byteLength));
}

function elementsInside(constant: TensorProto, dtype: DType): number {
  if (dtype === 'string') return constant.stringData?.length ?? 0;
  if (constant.rawData && constant.rawData.length > 0) return constant.rawData.length / elementBytes(dtype);
  switch (dtype) {
    case 'float32':
      return constant.floatData?.length ?? 0;
    case 'float64':
      return constant.doubleData?.length ?? 0;
    case 'int64':
      return constant.int64Data?.length ?? 0;
    case 'uint64':
    case 'uint32':
      return constant.uint64Data?.length ?? 0;
    default:
      return constant.int32Data?.length ?? 0;
  }
}
