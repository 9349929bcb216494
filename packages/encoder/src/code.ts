/**
 * The contract of a code: how the n coded blocks of a linear layer are made from its k data blocks, and which sets of
 * blocks give the data back. Everything else here (encode, decode plans, the progressive decoder) works on the
 * generator alone, so a new code is one file in codes/ and one line in `createCode`.
 *
 * Source: Hadidi et al., "Robustly Executing DNNs in IoT Systems Using Coded Distributed Computing" (DAC'19) and
 * arXiv 2104.04447.
 */
import type { Matrix } from 'ml-matrix';

export const CODE_NAMES = ['uncoded', 'replication', 'sum', 'rotation'] as const;
export type CodeName = (typeof CODE_NAMES)[number];

/** `count` arrivals out of `members` (block indices). The output decodes once every quorum of the code is met. */
export interface Quorum {
  readonly members: readonly number[];
  readonly count: number;
}

/**
 * A systematic linear code over the reals. Blocks are numbered from 0 to n - 1; block i < k is data block i.
 * Immutable; may be shared between layers.
 */
export interface Code {
  readonly name: CodeName;
  /** Data blocks, ≥ 1. */
  readonly k: number;
  /** Parity blocks, ≥ 0. */
  readonly r: number;
  /** k + r. */
  readonly n: number;
  /**
   * Equal parts that a block is cut into along its units, each with generator rows of its own: 1, or 2 where the parts
   * (u, v) are the complex number u + iv. A block has a multiple of this many units in each group.
   */
  readonly subBlocks: 1 | 2;
  /**
   * (n·subBlocks) × (k·subBlocks), row-major by block, then part: coded part (i, p) is row i·subBlocks + p times the
   * data parts. Its first k·subBlocks rows are the identity.
   */
  readonly generator: Matrix;
  /** One quorum {all n blocks, k} for an MDS code; one quorum {copies of block i, 1} a data block for replication. */
  readonly quorums: readonly Quorum[];
}
