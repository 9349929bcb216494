/**
 * One layer's output from the blocks that arrive, in whatever order. A data block is written to its place at once, so
 * that after the k-th arrival only the missing blocks are left to solve for.
 *
 * Invariants
 * 1. A block counts once; after `complete` nothing is taken any more: the output is a function of the decode set.
 * 2. Sums are formed in float64 and rounded once to float32.
 * 3. Blocks are read, never changed; parity blocks are kept by reference until `finish`.
 */
import { KofnError } from '@kofn/core';
import type { Code } from './code.js';
import { missingBlocks, type DecodePlan, type DecodePlans } from './decode-plan.js';
import type { LayerEncoding } from './encode.js';
import { blockLength, blockRange, type Partition } from './partition.js';

export interface Decoded {
  /** [batch][units][inner]. */
  readonly output: Float32Array;
  /** Blocks it was decoded from, ascending. */
  readonly decodeSet: readonly number[];
  /** Data blocks that were solved for, ascending. */
  readonly recovered: readonly number[];
  readonly errorGain: number;
  readonly condition: number;
}

export class ProgressiveDecoder {
  /** Elements of a block: batch · groups · blockUnits · inner. */
  readonly blockLength: number;
  readonly #code: Code;
  readonly #partition: Partition;
  readonly #scales: Float64Array;
  readonly #plans: DecodePlans;
  readonly #batch: number;
  readonly #inner: number;
  readonly #output: Float32Array;
  /** Arrived blocks; a data block's values are in the output already. */
  readonly #arrived = new Map<number, Float32Array | undefined>();
  #complete = false;

  /** `output`: where to write, batch · units · inner elements; made here when not given. Throws SHAPE_MISMATCH. */
  constructor(options: {
    encoding: Pick<LayerEncoding, 'code' | 'partition' | 'scales'>;
    plans: DecodePlans;
    batch: number;
    inner: number;
    output?: Float32Array;
  }) {
    const { encoding, plans, batch, inner } = options;
    const length = batch * encoding.partition.units * inner;
    if (options.output !== undefined && options.output.length !== length) {
      throw new KofnError('SHAPE_MISMATCH', `output: ${length} elements expected, got ${options.output.length}`);
    }
    this.#code = encoding.code;
    this.#partition = encoding.partition;
    this.#scales = encoding.scales;
    this.#plans = plans;
    this.#batch = batch;
    this.#inner = inner;
    this.#output = options.output ?? new Float32Array(length);
    this.blockLength = blockLength(encoding.partition, { batch, inner });
  }

  /** Whether the blocks taken so far determine the output. */
  get complete(): boolean {
    return this.#complete;
  }

  /**
   * Takes coded block `index`, [batch][groups][blockUnits][inner]. False, and nothing is done, when that block was
   * taken before or the output is complete. Throws INVALID_ARGUMENT (index) or SHAPE_MISMATCH (length).
   */
  accept(index: number, block: Float32Array): boolean {
    if (!Number.isInteger(index) || index < 0 || index >= this.#code.n) {
      throw new KofnError('INVALID_ARGUMENT', `block index: must be 0 to ${this.#code.n - 1}, got ${index}`);
    }
    if (block.length !== this.blockLength) {
      throw new KofnError(
        'SHAPE_MISMATCH',
        `block ${index}: ${this.blockLength} elements expected, got ${block.length}`,
      );
    }
    if (this.#complete || this.#arrived.has(index)) return false;
    if (index < this.#code.k) this.#writeData(index, block);
    this.#arrived.set(index, index < this.#code.k ? undefined : block);
    this.#complete = this.#code.quorums.every(
      ({ members, count }) => members.filter(member => this.#arrived.has(member)).length >= count,
    );
    return true;
  }

  /** The fewest data blocks that must come beside those that have and those of `coming`; none once it is complete. */
  missing(coming: Iterable<number> = []): number[] {
    return this.#complete ? [] : missingBlocks(this.#code, [...new Set([...this.#arrived.keys(), ...coming])]);
  }

  /** Solves for what is missing. Throws UNDECODABLE when not `complete`. */
  finish(): Decoded {
    const { decodeSet, recovered, errorGain, condition, coefficients } = this.#plans.planFor([...this.#arrived.keys()]);
    const { subBlocks } = this.#partition;
    for (let part = 0; part < recovered.length * subBlocks; part++) {
      const row = coefficients.subarray(part * decodeSet.length * subBlocks, (part + 1) * decodeSet.length * subBlocks);
      this.#solvePart(recovered[Math.floor(part / subBlocks)]!, part % subBlocks, decodeSet, row);
    }
    return { output: this.#output, decodeSet, recovered, errorGain, condition };
  }

  #writeData(index: number, block: Float32Array): void {
    const { groups, unitsPerGroup, blockUnits } = this.#partition;
    const { start, end } = blockRange(this.#partition, index);
    const slices = this.#batch * groups;
    for (let slice = 0; slice < slices; slice++) {
      const from = slice * blockUnits * this.#inner;
      const values = block.subarray(from, from + (end - start) * this.#inner);
      this.#output.set(values, (slice * unitsPerGroup + start) * this.#inner);
    }
  }

  /** Writes part `part` of data block `target`: Σ row[j] · scaled part j of the decode set, unscaled. */
  #solvePart(target: number, part: number, decodeSet: DecodePlan['decodeSet'], row: Float64Array): void {
    const { groups, unitsPerGroup, blockUnits, subBlocks } = this.#partition;
    const partUnits = blockUnits / subBlocks;
    const first = target * blockUnits + part * partUnits;
    const units = Math.min(partUnits, unitsPerGroup - first);
    if (units <= 0) return; // all padding
    const inner = this.#inner;
    const sum = new Float64Array(units * inner);
    for (let slice = 0; slice < this.#batch * groups; slice++) {
      const scales = this.#scales.subarray((slice % groups) * unitsPerGroup);
      sum.fill(0);
      for (let j = 0; j < row.length; j++) {
        const block = decodeSet[Math.floor(j / subBlocks)]!;
        const inPart = (j % subBlocks) * partUnits;
        const parity = this.#arrived.get(block);
        if (parity !== undefined) {
          const at = (slice * blockUnits + inPart) * inner;
          addScaled(sum, parity, at, units, inner, row[j]!, undefined);
        } else {
          const unit = block * blockUnits + inPart;
          const real = Math.min(units, unitsPerGroup - unit); // the rest is padding, which is zero
          const at = (slice * unitsPerGroup + unit) * inner;
          if (real > 0) addScaled(sum, this.#output, at, real, inner, row[j]!, scales.subarray(unit));
        }
      }
      const out = (slice * unitsPerGroup + first) * inner;
      for (let unit = 0, i = 0; unit < units; unit++) {
        const unscale = 1 / scales[first + unit]!;
        for (let end = i + inner; i < end; i++) this.#output[out + i] = sum[i]! * unscale;
      }
    }
  }
}

/** sum[u,i] += factor · scales[u] · source[at + (u,i)] for `units` units of `inner` elements; scales are 1 when absent. */
function addScaled(
  sum: Float64Array,
  source: Float32Array,
  at: number,
  units: number,
  inner: number,
  factor: number,
  scales: Float64Array | undefined,
): void {
  if (factor === 0) return;
  for (let unit = 0, i = 0; unit < units; unit++) {
    const f = scales === undefined ? factor : factor * scales[unit]!;
    for (let end = i + inner; i < end; i++) sum[i]! += f * source[at + i]!;
  }
}
