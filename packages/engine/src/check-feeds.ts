/** Looks at inputs before a runtime sees them, so that a mistake is named in the user's words. */
import { formatShape, isKofnError, KofnError, tensor, type Tensor, type Tensors } from '@kofn/core';
import type { ValueInfo } from './engine.js';

/** Throws INVALID_ARGUMENT (missing or unknown name), DTYPE_MISMATCH, SHAPE_MISMATCH or UNSUPPORTED (text that would be changed), naming input, expected and given. */
export function checkFeeds(inputs: readonly ValueInfo[], feeds: Tensors): void {
  const takes = () => inputs.map(describe).join('; ') || 'nothing';
  for (const name of Object.keys(feeds)) {
    if (!inputs.some(input => input.name === name)) {
      throw new KofnError('INVALID_ARGUMENT', `there is no input "${name}"; the model takes ${takes()}`);
    }
  }
  for (const input of inputs) {
    const value = Object.hasOwn(feeds, input.name) ? feeds[input.name] : undefined;
    if (value === undefined) {
      throw new KofnError('INVALID_ARGUMENT', `input "${input.name}" is missing; the model takes ${takes()}`);
    }
    if (value.dtype !== input.dtype) {
      throw new KofnError('DTYPE_MISMATCH', `input "${input.name}" takes ${input.dtype}, got ${value.dtype}`);
    }
    checkData(input.name, value);
    if (Array.isArray(value.data)) checkTexts(input.name, value.data);
    // The runtime tells an unknown rank and a scalar apart no more than by this: an empty shape is not checked.
    const { shape } = input;
    if (shape.length === 0) continue;
    const fits =
      value.shape.length === shape.length && shape.every((s, i) => typeof s === 'string' || s === value.shape[i]);
    if (!fits) {
      throw new KofnError(
        'SHAPE_MISMATCH',
        `input "${input.name}" takes shape ${formatShape(shape)}, got ${formatShape(value.shape)}`,
      );
    }
  }
}

/** Throws DTYPE_MISMATCH or SHAPE_MISMATCH when the data is not what the tensor says: most often, already moved away. */
function checkData(name: string, { dtype, shape, data }: Tensor): void {
  try {
    tensor(dtype, shape, data);
  } catch (error) {
    if (!isKofnError(error)) throw error;
    const moved = data.length === 0 ? '; was its buffer given to an earlier run with `transfer`?' : '';
    throw new KofnError(error.code, `input "${name}": ${error.message}${moved}`, { cause: error });
  }
}

/** Text that ONNX Runtime's binding changes on its way in: it ends at a NUL, and half of a surrogate pair has no UTF-8. */
const NOT_CARRIED = /\0|\p{Surrogate}/u;

/** Throws UNSUPPORTED. */
function checkTexts(name: string, texts: readonly string[]): void {
  const at = texts.findIndex(text => NOT_CARRIED.test(text));
  if (at === -1) return;
  const why = texts[at]!.includes('\0') ? 'a NUL, at which the engine would end it' : 'half of a surrogate pair';
  throw new KofnError(
    'UNSUPPORTED',
    `input "${name}": its element ${at} has ${why}; such bytes go to models that take UINT8`,
  );
}

function describe({ name, dtype, shape }: ValueInfo): string {
  return `"${name}" (${dtype} ${formatShape(shape)})`;
}
