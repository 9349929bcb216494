/** How far an answer is from the uncoded model's, and how far it may be. */
import { formatShape, fromHalf, KofnError, type Tensor, type Tensors } from '@kofn/core';

/** What an answer may always be off by, relative to the largest magnitude of its output: the rounding of sums in another order. */
export const EXACT_WITHIN = 1e-4;
/** Of what the uncoded model differs from itself: one more order of the same sums may lie as far on the other side, and then some. */
const SELF_DIFFERENCES = 3;

/** An element is right when |actual - expected| <= atol + rtol * |expected|. */
export interface Tolerance {
  readonly atol: number;
  readonly rtol: number;
}

/** The tolerance of `output`, whose largest expected magnitude is `largest`. */
export type ToleranceOf = (output: string, largest: number) => Tolerance;

/** Largest relative differences by output, as `compareOutputs` has them: what the uncoded model differs from itself. */
export type SelfDifferences = Readonly<Record<string, number>>;

/**
 * Half of what an output may be off by (`allowedOf`) is relative to its largest magnitude and half to each element: at the largest
 * element both add up to the whole, and small elements are held to less.
 */
export function calibrated(differences: SelfDifferences): ToleranceOf {
  return (output, largest) => {
    const half = allowedOf(differences[output]) / 2;
    return { atol: half === Infinity ? Infinity : half * largest, rtol: half };
  };
}

/** Relative to the largest magnitude of an output that differs from itself by `difference`. */
export function allowedOf(difference = 0): number {
  return Math.max(EXACT_WITHIN, SELF_DIFFERENCES * difference);
}

export interface OutputError {
  readonly maxAbsError: number;
  /** Relative to the largest magnitude in the expected output. Infinity where shapes, NaN or infinities do not match. */
  readonly maxRelError: number;
  readonly isWrong: boolean;
}

/**
 * Compares `actual` with `expected` by name. Shapes have to be equal, NaN must meet NaN and an infinity the same infinity; strings must
 * be equal. Throws PROTOCOL when names or types differ.
 */
export function compareOutputs(
  actual: Tensors,
  expected: Tensors,
  toleranceOf: ToleranceOf = calibrated({}),
): Record<string, OutputError> {
  return Object.fromEntries(
    Object.entries(expected).map(([name, want]) => {
      const have = actual[name];
      if (have?.dtype !== want.dtype) {
        const got = have === undefined ? 'nothing' : `${have.dtype} ${formatShape(have.shape)}`;
        const message = `output "${name}": the uncoded model gives ${want.dtype} ${formatShape(want.shape)}, the coded one ${got}`;
        throw new KofnError('PROTOCOL', message);
      }
      return [name, compareTensors(have, want, largest => toleranceOf(name, largest))];
    }),
  );
}

export function isWrong(errors: Readonly<Record<string, OutputError>>): boolean {
  return Object.values(errors).some(error => error.isWrong);
}

function compareTensors(actual: Tensor, expected: Tensor, toleranceOf: (largest: number) => Tolerance): OutputError {
  const largest = largestMagnitude(expected);
  const { atol, rtol } = toleranceOf(largest);
  const differs = { maxAbsError: Infinity, maxRelError: Infinity, isWrong: atol !== Infinity };
  if (formatShape(actual.shape) !== formatShape(expected.shape)) return differs;
  let maxAbs = 0;
  let isOff = false;
  for (let i = 0; i < expected.data.length; i++) {
    const have = numberAt(actual, i);
    const want = numberAt(expected, i);
    if (isFinite(want) && isFinite(have)) {
      const error = Math.abs(have - want);
      maxAbs = Math.max(maxAbs, error);
      isOff ||= error > atol + rtol * Math.abs(want);
    } else if (!Object.is(have, want)) {
      return differs;
    }
  }
  const maxRel = maxAbs === 0 ? 0 : largest === 0 ? Infinity : maxAbs / largest;
  return { maxAbsError: maxAbs, maxRelError: maxRel, isWrong: isOff };
}

/** Of the elements that are finite numbers; 0 when there are none. */
function largestMagnitude(values: Tensor): number {
  let largest = 0;
  for (let i = 0; i < values.data.length; i++) {
    const value = numberAt(values, i);
    if (isFinite(value)) largest = Math.max(largest, Math.abs(value));
  }
  return largest;
}

function isFinite(value: number | string): value is number {
  return Number.isFinite(value);
}

function numberAt({ dtype, data }: Tensor, index: number): number | string {
  const element = data[index]!;
  if (typeof element === 'string') return element;
  if (dtype === 'float16') return fromHalf(Number(element));
  if (dtype === 'bfloat16') return new Float32Array(Uint32Array.of(Number(element) << 16).buffer)[0]!;
  return Number(element);
}
