/** The two pieces of statistics that a comparison needs and that are not percentiles. */

/**
 * Fisher's exact test, two-sided: how likely it is, if both have the same chance, that `a` of `m` and `b` of `n` differ so much or more
 * (the sum over all tables with these margins that are no likelier than this one). 1 where there is nothing to tell apart.
 */
export function fisher(a: number, m: number, b: number, n: number): number {
  const drawn = a + b;
  const logProbability = (x: number) => logChoose(m, x) + logChoose(n, drawn - x) - logChoose(m + n, drawn);
  // Tables as likely as this one differ from it by rounding.
  const observed = logProbability(a) + 1e-7;
  let sum = 0;
  for (let x = Math.max(0, drawn - n); x <= Math.min(m, drawn); x++) {
    const each = logProbability(x);
    if (each <= observed) sum += Math.exp(each);
  }
  return Math.min(1, sum);
}

/** The value that a standard normal variable does not exceed with probability `p`, 0 < p < 1 (Acklam; relative error below 1.2e-9). */
export function normalQuantile(p: number): number {
  if (p > 0.5) return -normalQuantile(1 - p);
  if (p < 0.02425) {
    const q = Math.sqrt(-2 * Math.log(p));
    return horner(TAIL_TOP, q) / (horner(TAIL_BOTTOM, q) * q + 1);
  }
  const q = p - 0.5;
  const square = q * q;
  return (horner(MIDDLE_TOP, square) * q) / (horner(MIDDLE_BOTTOM, square) * square + 1);
}

const MIDDLE_TOP = [
  -3.969683028665376e1, 2.209460984245205e2, -2.759285104469687e2, 1.38357751867269e2, -3.066479806614716e1,
  2.506628277459239,
];
const MIDDLE_BOTTOM = [
  -5.447609879822406e1, 1.615858368580409e2, -1.556989798598866e2, 6.680131188771972e1, -1.328068155288572e1,
];
const TAIL_TOP = [
  -7.784894002430293e-3, -3.223964580411365e-1, -2.400758277161838, -2.549732539343734, 4.374664141464968,
  2.938163982698783,
];
const TAIL_BOTTOM = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416];

const horner = (coefficients: readonly number[], x: number) => coefficients.reduce((sum, each) => sum * x + each, 0);

const logChoose = (n: number, k: number) => logFactorial(n) - logFactorial(k) - logFactorial(n - k);

const logFactorials = [0];

/** By a table that grows: exact to rounding, and the counts are of requests. */
function logFactorial(n: number): number {
  for (let i = logFactorials.length; i <= n; i++) logFactorials.push(logFactorials[i - 1]! + Math.log(i));
  return logFactorials[n]!;
}
