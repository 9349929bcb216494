/** What a shard is to its owner: a block of coded layers. Workers keep it for whoever asks, and make nothing of it. */
import { KofnError } from '@kofn/core';

/** Of the names of its layers, in UTF-16 units, a separator each included; of the name of a code. */
const MAX_NAMES_CHARS = 4_000;
const MAX_CODE_CHARS = 40;
const MAX_BLOCKS = 65_536;

export interface ShardBlock {
  /** Names of the layers that share it. */
  readonly layers: readonly string[];
  /** The code's name; k data and r parity blocks. */
  readonly code: string;
  readonly k: number;
  readonly r: number;
  /** Which of them it is, from 0. */
  readonly block: number;
}

/** Whether layers of these names can be told of. */
export function fitsBlock(layers: readonly string[]): boolean {
  return layers.length > 0 && layers.reduce((sum, name) => sum + name.length + 1, 0) <= MAX_NAMES_CHARS;
}

/** The block that `given` tells of, once it is what the protocol allows. Throws INVALID_ARGUMENT. */
export function checkBlock(given: ShardBlock): ShardBlock {
  const { layers, code, k, r, block } = given;
  const isWhole = (value: number, least: number) => Number.isInteger(value) && value >= least && value <= MAX_BLOCKS;
  const areNames = Array.isArray(layers) && layers.every(name => typeof name === 'string') && fitsBlock(layers);
  const isCode = typeof code === 'string' && code.length > 0 && code.length <= MAX_CODE_CHARS;
  if (areNames && isCode && isWhole(k, 1) && isWhole(r, 0) && isWhole(block, 0) && block < k + r) {
    return { layers: [...layers], code, k, r, block };
  }
  throw new KofnError(
    'INVALID_ARGUMENT',
    `the block of a shard must be one of k + r of layers whose names have at most ${MAX_NAMES_CHARS} characters together`,
  );
}
