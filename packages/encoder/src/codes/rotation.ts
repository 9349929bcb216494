/**
 * Systematic code from a Vandermonde matrix on roots of unity, for any r. Such matrices are unitary before rows are
 * taken away, so its decode sets stay well conditioned where a real Vandermonde's lose all digits (docs/math.md). Real
 * blocks are made complex by halves: a block is u + iv.
 */
import { KofnError } from '@kofn/core';
import { inverse, Matrix } from 'ml-matrix';
import type { Code } from '../code.js';

/** Throws INVALID_ARGUMENT unless r ≥ 1. */
export function rotation(k: number, r: number): Code {
  if (r < 1) throw new KofnError('INVALID_ARGUMENT', `r: the rotation code takes r ≥ 1, got ${r}; use 'uncoded'`);
  const n = k + r;
  // V[i,j] = e^(2πi·ij/n). Parity rows are spread evenly over the circle, which keeps the data rows well conditioned.
  const parityRows = Array.from({ length: r }, (_, m) => Math.round((m * n) / r));
  const dataRows = Array.from({ length: n }, (_, row) => row).filter(row => !parityRows.includes(row));
  const parity = vandermonde(parityRows, k, n).mmul(inverse(vandermonde(dataRows, k, n)));
  const generator = Matrix.zeros(2 * n, 2 * k);
  generator.setSubMatrix(Matrix.eye(2 * k), 0, 0);
  generator.setSubMatrix(parity, 2 * k, 0);
  return {
    name: 'rotation',
    k,
    r,
    n,
    subBlocks: 2,
    generator,
    quorums: [{ members: Array.from({ length: n }, (_, block) => block), count: k }],
  };
}

/** The given rows of V, each complex entry a + ib as the real 2×2 block [a -b; b a] that multiplies (u, v). */
function vandermonde(rows: readonly number[], k: number, n: number): Matrix {
  const v = Matrix.zeros(2 * rows.length, 2 * k);
  rows.forEach((node, row) => {
    for (let column = 0; column < k; column++) {
      // The product is reduced mod n first: cos and sin keep full precision only near 0.
      const angle = (2 * Math.PI * ((node * column) % n)) / n;
      const [re, im] = [Math.cos(angle), Math.sin(angle)];
      v.set(2 * row, 2 * column, re);
      v.set(2 * row, 2 * column + 1, -im);
      v.set(2 * row + 1, 2 * column, im);
      v.set(2 * row + 1, 2 * column + 1, re);
    }
  });
  return v;
}
