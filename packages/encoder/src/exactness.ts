/** The word "exact" as a number. `npm run bench:codes` measures what the codes reach (docs/math.md). */
import type { Code } from './code.js';

/**
 * Worst float32 error of systematic rotation over every loss pattern, inner dimension 4096, relative to ‖w_row‖·‖x‖:
 * figures of a prototype, to equal or beat.
 */
export const ROTATION_FIGURES: readonly { readonly k: number; readonly r: number; readonly figure: number }[] = [
  { k: 8, r: 1, figure: 3e-6 },
  { k: 8, r: 2, figure: 6e-6 },
  { k: 8, r: 4, figure: 6e-5 },
  { k: 16, r: 2, figure: 3e-5 },
  { k: 32, r: 1, figure: 6e-6 },
  { k: 32, r: 2, figure: 5e-5 },
  { k: 32, r: 3, figure: 6e-4 },
  { k: 32, r: 4, figure: 1.8e-3 },
];

/**
 * How far an output element may be from the uncoded one, relative to ‖(w_row, bias)‖·‖(x, 1)‖, and still be exact:
 * max(1e-5, 2 × the code's figure). A (k, r) between two figures takes the next larger; beyond them, the last.
 */
export function exactTolerance({ name, k, r }: Pick<Code, 'name' | 'k' | 'r'>): number {
  if (name !== 'rotation') return 1e-5;
  const figures = ROTATION_FIGURES.filter(entry => entry.k >= k && entry.r >= r).map(entry => entry.figure);
  return Math.max(1e-5, 2 * Math.min(...figures, ROTATION_FIGURES.at(-1)!.figure));
}
