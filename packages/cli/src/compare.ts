/** How far an answer is from the uncoded model's. */
import { formatShape, fromHalf, KofnError, type Tensor, type Tensors } from '@kofn/core';

/** A request whose largest relative error is above this counts as wrong. */
export const WRONG_ABOVE = 1e-4;

export interface OutputError {
  readonly maxAbsError: number;
  /** Relative to the largest magnitude in the expected output. Infinity where NaN or infinities do not match. */
  readonly maxRelError: number;
}

/**
 * Compares `actual` with `expected` by name. NaN must meet NaN and an infinity the same infinity; strings must be equal.
 * Throws PROTOCOL when names, types or shapes differ.
 */
export function compareOutputs(actual: Tensors, expected: Tensors): Record<string, OutputError> {
  return Object.fromEntries(
    Object.entries(expected).map(([name, want]) => {
      const have = actual[name];
      if (have === undefined || have.dtype !== want.dtype || formatShape(have.shape) !== formatShape(want.shape)) {
        const got = have === undefined ? 'nothing' : `${have.dtype} ${formatShape(have.shape)}`;
        const message = `output "${name}": the uncoded model gives ${want.dtype} ${formatShape(want.shape)}, the coded one ${got}`;
        throw new KofnError('PROTOCOL', message);
      }
      return [name, compareTensors(have, want)];
    }),
  );
}

function compareTensors(actual: Tensor, expected: Tensor): OutputError {
  let maxAbs = 0;
  let magnitude = 0;
  let mismatch = false;
  for (let i = 0; i < expected.data.length; i++) {
    const have = numberAt(actual, i);
    const want = numberAt(expected, i);
    if (typeof want === 'number' && typeof have === 'number' && Number.isFinite(want) && Number.isFinite(have)) {
      maxAbs = Math.max(maxAbs, Math.abs(have - want));
      magnitude = Math.max(magnitude, Math.abs(want));
    } else if (!Object.is(have, want)) {
      mismatch = true;
    }
  }
  if (mismatch) return { maxAbsError: Infinity, maxRelError: Infinity };
  return { maxAbsError: maxAbs, maxRelError: maxAbs === 0 ? 0 : magnitude === 0 ? Infinity : maxAbs / magnitude };
}

function numberAt({ dtype, data }: Tensor, index: number): number | string {
  const element = data[index]!;
  if (typeof element === 'string') return element;
  if (dtype === 'float16') return fromHalf(Number(element));
  if (dtype === 'bfloat16') return new Float32Array(Uint32Array.of(Number(element) << 16).buffer)[0]!;
  return Number(element);
}
