/** No parity: every block is needed. The baseline that coding is compared with. */
import { Matrix } from 'ml-matrix';
import type { Code } from '../code.js';

/** n = k; the output needs all k blocks. */
export function uncoded(k: number): Code {
  return {
    name: 'uncoded',
    k,
    r: 0,
    n: k,
    subBlocks: 1,
    generator: Matrix.eye(k),
    quorums: [{ members: Array.from({ length: k }, (_, block) => block), count: k }],
  };
}
