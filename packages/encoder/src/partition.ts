/**
 * How a layer's output units (rows of a dense layer, channels of a convolution) are cut into k equal blocks. All index
 * arithmetic of blocks is here.
 *
 * Layouts (row-major)
 *   whole output  [batch][groups][unitsPerGroup][inner]
 *   block's reply [batch][groups][blockUnits][inner]: the block's slice of every group, padded with zero units
 */
import { KofnError } from '@kofn/core';

export interface Partition {
  /** Output units of the layer. */
  readonly units: number;
  /** Groups of a grouped convolution; 1 for everything else. */
  readonly groups: number;
  /** Data blocks. */
  readonly k: number;
  /** Parts that a block is cut into within each group (`Code.subBlocks`). */
  readonly subBlocks: number;
  /** units / groups. */
  readonly unitsPerGroup: number;
  /** Units of one block within each group, padding included: a multiple of subBlocks. */
  readonly blockUnits: number;
}

/** Throws INVALID_ARGUMENT when a group has fewer units than there are blocks, or the counts are not whole. */
export function partition(options: { units: number; groups: number; k: number; subBlocks: number }): Partition {
  const { units, groups, k, subBlocks } = options;
  for (const [name, value] of Object.entries(options)) {
    if (!Number.isInteger(value) || value < 1) {
      throw new KofnError('INVALID_ARGUMENT', `${name}: must be a whole number ≥ 1, got ${value}`);
    }
  }
  if (units % groups !== 0) {
    throw new KofnError('INVALID_ARGUMENT', `groups: ${groups} does not divide the ${units} output units`);
  }
  const unitsPerGroup = units / groups;
  if (unitsPerGroup < k) {
    const where = groups > 1 ? ' in each group' : '';
    throw new KofnError('INVALID_ARGUMENT', `k: ${unitsPerGroup} output units${where} cannot be cut into ${k} blocks`);
  }
  const blockUnits = subBlocks * Math.ceil(unitsPerGroup / (k * subBlocks));
  return { units, groups, k, subBlocks, unitsPerGroup, blockUnits };
}

/** Units of data block `block` within each group, without padding; empty when start = end. */
export function blockRange({ unitsPerGroup, blockUnits }: Partition, block: number): { start: number; end: number } {
  const start = Math.min(block * blockUnits, unitsPerGroup);
  return { start, end: Math.min(start + blockUnits, unitsPerGroup) };
}

/** Elements of a block's reply for `batch` samples of `inner` elements a unit. */
export function blockLength({ groups, blockUnits }: Partition, size: { batch: number; inner: number }): number {
  return size.batch * groups * blockUnits * size.inner;
}
