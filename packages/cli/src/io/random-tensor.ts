/** Inputs drawn by a seed, for trying a model out: the same seed gives the same tensor everywhere. */
import { elementCount, KofnError, tensor, toHalf, type DType, type Rng, type Shape, type Tensor } from '@kofn/core';

/** Whole numbers are drawn below this: small enough for an index into most tables, and for every type. */
const INTEGER_BELOW = 8;

/** Standard normal for floating-point types, whole numbers from 0 to 7 for integers, 0 or 1 for bool. Throws UNSUPPORTED (string). */
export function randomTensor(dtype: DType, shape: Shape, rng: Rng): Tensor {
  const length = elementCount(shape);
  const floats = () => Float32Array.from({ length }, () => rng.normal());
  const integer = () => rng.integer(INTEGER_BELOW);
  switch (dtype) {
    case 'float32':
      return tensor(dtype, shape, floats());
    case 'float64':
      return tensor(
        dtype,
        shape,
        Float64Array.from({ length }, () => rng.normal()),
      );
    case 'float16':
      return tensor(dtype, shape, Uint16Array.from(floats(), toHalf));
    case 'bfloat16':
      return tensor(
        dtype,
        shape,
        Uint16Array.from(new Uint32Array(floats().buffer), bits => bits >>> 16),
      );
    case 'bool':
      return tensor(
        dtype,
        shape,
        Uint8Array.from({ length }, () => rng.integer(2)),
      );
    case 'int8':
      return tensor(dtype, shape, Int8Array.from({ length }, integer));
    case 'uint8':
      return tensor(dtype, shape, Uint8Array.from({ length }, integer));
    case 'int16':
      return tensor(dtype, shape, Int16Array.from({ length }, integer));
    case 'uint16':
      return tensor(dtype, shape, Uint16Array.from({ length }, integer));
    case 'int32':
      return tensor(dtype, shape, Int32Array.from({ length }, integer));
    case 'uint32':
      return tensor(dtype, shape, Uint32Array.from({ length }, integer));
    case 'int64':
      return tensor(
        dtype,
        shape,
        BigInt64Array.from({ length }, () => BigInt(integer())),
      );
    case 'uint64':
      return tensor(
        dtype,
        shape,
        BigUint64Array.from({ length }, () => BigInt(integer())),
      );
    case 'string':
      throw new KofnError('UNSUPPORTED', 'strings cannot be drawn at random; give them as --input NAME=FILE.pb');
  }
}
