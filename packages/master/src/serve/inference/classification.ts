/** Triton's classification extension: of an output its highest values, each as text, `value:index` or `value:index:label`. */
import { elementCount, KofnError, tensor, type DType, type Tensor, type TypedArray } from '@kofn/core';

const RANKED = /^(float(32|64)|u?int(8|16|32|64))$/;

export interface ClassOptions {
  /** How many are wanted of each row; there are no more than it has values. */
  readonly count: number;
  /** Whether the first size counts rows; if not, all values are one row. */
  readonly hasRows: boolean;
  /** By index. They are those of this output when a row has as many values. */
  readonly labels: readonly string[] | undefined;
}

/** Throws UNSUPPORTED: the output has no numbers, or they are held as their bits, which do not compare. */
export function checkRanked({ name, dtype }: { readonly name: string; readonly dtype: DType }): void {
  if (RANKED.test(dtype)) return;
  throw new KofnError('UNSUPPORTED', `output "${name}": parameter classification is not supported for ${dtype}`);
}

/**
 * The classes of output `name`, which is ranked: BYTES of shape [rows, count], or [count] without rows, the highest value first and of equal values
 * the one of the lower index. Floats have six decimals, as Triton writes them. Throws NON_FINITE: a NaN has no rank.
 */
export function classesOf(name: string, value: Tensor, { count, hasRows, labels }: ClassOptions): Tensor {
  const { dtype, shape } = value;
  const data = value.data as TypedArray;
  const isFloat = dtype === 'float32' || dtype === 'float64';
  if (isFloat && (data as Float32Array).some(Number.isNaN)) {
    throw new KofnError('NON_FINITE', `output "${name}" has NaN, which has no rank among classes`);
  }
  const batch = hasRows ? shape.slice(0, 1) : [];
  const rows = elementCount(batch);
  const rowLength = elementCount(shape.slice(batch.length));
  const classes = Math.min(count, rowLength);
  const own = labels?.length === rowLength ? labels : undefined;
  const texts: string[] = [];
  for (let row = 0; row < rows; row++) {
    const values = data.subarray(row * rowLength, (row + 1) * rowLength);
    for (const index of highest(values, classes)) {
      const shown = isFloat ? (values[index] as number).toFixed(6) : String(values[index]);
      texts.push([shown, index, ...(own === undefined ? [] : [own[index]])].join(':'));
    }
  }
  return tensor('string', [...batch, classes], texts);
}

/** Indices of the `count` highest of `values`, which has as many; sorts them all by the fast sort of numbers, and only those by index. */
function highest(values: TypedArray, count: number): number[] {
  if (count === 0) return [];
  const least = values.slice().sort()[values.length - count]!;
  const above: number[] = [];
  const equal: number[] = [];
  for (let index = 0; index < values.length; index++) {
    const value = values[index]!;
    if (value > least) above.push(index);
    else if (value === least && equal.length < count) equal.push(index);
  }
  above.sort((a, b) => (values[a]! > values[b]! ? -1 : values[a]! < values[b]! ? 1 : a - b));
  return [...above, ...equal].slice(0, count);
}
