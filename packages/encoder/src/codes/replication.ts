/**
 * Each data block on several workers: the classical baseline (2MR for two copies). Survives the loss of any
 * copies - 1 blocks, and of more when they are not the same block's.
 */
import { KofnError } from '@kofn/core';
import { Matrix } from 'ml-matrix';
import type { Code } from '../code.js';

/** Coded block c·k + i is copy c of data block i, for copies = r / k + 1. Throws INVALID_ARGUMENT (r no multiple of k). */
export function replication(k: number, r: number): Code {
  if (r < k || r % k !== 0) {
    throw new KofnError('INVALID_ARGUMENT', `r: replication of ${k} blocks takes r = ${k}, ${2 * k}, …, got ${r}`);
  }
  const n = k + r;
  const generator = Matrix.zeros(n, k);
  for (let block = 0; block < n; block++) generator.set(block, block % k, 1);
  const quorums = Array.from({ length: k }, (_, i) => ({
    members: Array.from({ length: n / k }, (_, copy) => copy * k + i),
    count: 1,
  }));
  return { name: 'replication', k, r, n, subBlocks: 1, generator, quorums };
}
