/** One parity block, the sum of all data blocks; a missing block is the parity minus the others (DAC'19, section 4). */
import { KofnError } from '@kofn/core';
import { Matrix } from 'ml-matrix';
import type { Code } from '../code.js';

/** Throws INVALID_ARGUMENT unless r is 1. */
export function sumParity(k: number, r: number): Code {
  if (r !== 1) {
    throw new KofnError('INVALID_ARGUMENT', `r: the sum code has exactly 1 parity block, got ${r}; use 'rotation'`);
  }
  const n = k + 1;
  const generator = Matrix.zeros(n, k);
  for (let block = 0; block < k; block++) {
    generator.set(block, block, 1);
    generator.set(k, block, 1);
  }
  return {
    name: 'sum',
    k,
    r,
    n,
    subBlocks: 1,
    generator,
    quorums: [{ members: Array.from({ length: n }, (_, block) => block), count: k }],
  };
}
