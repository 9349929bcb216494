/** What a model takes, checked before anything runs. */
import {
  elementBytes,
  elementCount,
  formatShape,
  KofnError,
  tensor,
  tensorFromBytes,
  type Tensor,
  type Tensors,
} from '@kofn/core';
import type { ValueInfo } from '@kofn/graph';

/** Throws INVALID_ARGUMENT (missing or unknown name), DTYPE_MISMATCH or SHAPE_MISMATCH, naming input and model. */
export function checkInputs(expected: readonly ValueInfo[], inputs: Tensors): void {
  const takes = expected.map(({ name, dtype, shape }) => `${name}: ${dtype} ${formatShape(shape)}`).join('; ');
  for (const name of Object.keys(inputs)) {
    if (!expected.some(input => input.name === name)) {
      throw new KofnError('INVALID_ARGUMENT', `the model has no input "${name}"; it takes ${takes}`);
    }
  }
  for (const info of expected) {
    const value = inputs[info.name];
    if (value === undefined)
      throw new KofnError('INVALID_ARGUMENT', `input "${info.name}" is missing; the model takes ${takes}`);
    if (value.dtype !== info.dtype) {
      throw new KofnError('DTYPE_MISMATCH', `input "${info.name}" is ${info.dtype} in the model, got ${value.dtype}`);
    }
    const fits =
      info.shape.length === 0 || // a scalar, or a rank that the model leaves open: the engine will say
      (value.shape.length === info.shape.length &&
        info.shape.every((size, i) => typeof size !== 'number' || size === value.shape[i]));
    if (!fits) {
      throw new KofnError(
        'SHAPE_MISMATCH',
        `input "${info.name}" has shape ${formatShape(info.shape)} in the model, got ${formatShape(value.shape)}`,
      );
    }
    tensor(value.dtype, value.shape, value.data); // the caller may have built it by hand
  }
}

/** Zeros for every input, 1 for an open first size. Throws INVALID_ARGUMENT where another size is open. */
export function zeroInputs(expected: readonly ValueInfo[]): Tensors {
  return Object.fromEntries(expected.map(info => [info.name, zeros(info)]));
}

function zeros({ name, dtype, shape }: ValueInfo): Tensor {
  const sizes = shape.map((size, axis) => {
    if (typeof size === 'number') return size;
    if (axis === 0) return 1;
    throw new KofnError(
      'INVALID_ARGUMENT',
      `input "${name}" has the open shape ${formatShape(shape)}; give an example of it (sampleInputs)`,
    );
  });
  if (dtype === 'string') return tensor('string', sizes, new Array<string>(elementCount(sizes)).fill(''));
  return tensorFromBytes(dtype, sizes, new Uint8Array(elementCount(sizes) * elementBytes(dtype)));
}
