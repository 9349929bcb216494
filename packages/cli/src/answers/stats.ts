/** Figures over many requests. */

/** The nearest-rank percentile (0 < percent ≤ 100) of `values`; null when there are none. */
export function percentile(values: readonly number[], percent: number): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[nearestRank(sorted.length, percent) - 1]!;
}

/** The rank, from 1, of the percentile of `count` values. */
export function nearestRank(count: number, percent: number): number {
  // Divided last: 0.999 * 10,000 is a little more than 9,990, and would be the rank after it.
  return Math.max(1, Math.ceil((percent * count) / 100));
}

/** Largest of `values`, or null when there are none. Not Math.max(...): that ends at some 100,000 arguments. */
export function largest(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((a, b) => (b > a ? b : a));
}

/** `value` to 3 decimals, for JSON: more would be noise of the clock. */
export function roundMs(value: number | null): number | null {
  return value === null ? null : Math.round(value * 1000) / 1000;
}
