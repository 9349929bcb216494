/** How far float32 arithmetic may be off: what a check of sums that workers add up has to allow. docs/math.md derives it. */

/** Half the distance from 1 to the next float32: the largest relative rounding error. */
const UNIT_ROUNDOFF = 2 ** -24;
/**
 * Standard deviations of the rounding, added up in the worst order, that a tolerance holds. Short sums are added in that order by
 * engines, too; long ones, of more than LONG products, in blocks.
 */
const DEVIATIONS = { short: 11, long: 6 } as const;
const LONG = 1024;
/** Below float32's normal numbers an engine may round to zero. */
export const UNDERFLOW = 2 ** -126;

/**
 * What rounding makes of Σ c·y, where each y is a sum of `fanIn` products that were added up in float32, one after the other (no order
 * is worse, and engines' are better), and coefficients of the products have been rounded to float32 when they were formed: `size` is
 * Σ c²·(‖w‖²·‖x‖² + b²), `squares` Σ c²·y².
 */
export function tolerance(size: number, squares: number, fanIn: number): number {
  const variance = 0.03 * ((1 + 14 / fanIn) * size + 2 * (fanIn + 4) * squares);
  return DEVIATIONS[lengthOf(fanIn)] * UNIT_ROUNDOFF * Math.sqrt(variance) + UNDERFLOW * (fanIn + 1);
}

export function lengthOf(fanIn: number): keyof typeof DEVIATIONS {
  return fanIn > LONG ? 'long' : 'short';
}
