/** Figures over many requests. */

/** The nearest-rank percentile (0 < percent ≤ 100) of `values`; null when there are none. */
export function percentile(values: readonly number[], percent: number): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)]!;
}

/** Largest of `values`, or null when there are none. Not Math.max(...): that ends at some 100,000 arguments. */
export function largest(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((a, b) => (b > a ? b : a));
}

/** `value` to 3 decimals, for JSON: more would be noise of the clock. */
export function roundMs(value: number | null): number | null {
  return value === null ? null : Math.round(value * 1000) / 1000;
}
