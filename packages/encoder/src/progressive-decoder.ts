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
    const solve = inner < SHORT_ROW ? addUp : combine;
    const sum = new Float64Array(solve === addUp ? units * inner : inner);
    for (let slice = 0; slice < this.#batch * groups; slice++) {
      const scales = this.#scales.subarray((slice % groups) * unitsPerGroup);
      const terms: Term[] = [];
      for (let j = 0; j < row.length; j++) {
        const factor = row[j]!;
        if (factor === 0) continue;
        const block = decodeSet[Math.floor(j / subBlocks)]!;
        const inPart = (j % subBlocks) * partUnits;
        const parity = this.#arrived.get(block);
        if (parity !== undefined) {
          terms.push({ values: parity, at: (slice * blockUnits + inPart) * inner, units, factor, scales: undefined });
        } else {
          const unit = block * blockUnits + inPart;
          const real = Math.min(units, unitsPerGroup - unit); // the rest is padding, which is zero
          const at = (slice * unitsPerGroup + unit) * inner;
          if (real > 0) terms.push({ values: this.#output, at, units: real, factor, scales: scales.subarray(unit) });
        }
      }
      const to = {
        out: this.#output,
        at: (slice * unitsPerGroup + first) * inner,
        units,
        scales: scales.subarray(first),
      };
      solve(terms, inner, sum, to);
    }
  }
}

/** A part of the decode set and what it is multiplied by: `factor`, and the scale of each unit where it has them. */
interface Term {
  readonly values: Float32Array;
  readonly at: number;
  readonly units: number;
  readonly factor: number;
  readonly scales: Float64Array | undefined;
}

/** Where a solved part goes, divided by the scale of each unit. */
interface Place {
  readonly out: Float32Array;
  readonly at: number;
  readonly units: number;
  readonly scales: Float64Array;
}

/** Fewer elements a unit than this are not worth a loop of their own. */
const SHORT_ROW = 16;

/** For units of few elements, as fully connected layers have: term by term over all of them. */
function addUp(terms: readonly Term[], inner: number, sum: Float64Array, { out, at, units, scales }: Place): void {
  sum.fill(0);
  for (const { values, at: from, units: count, factor, scales: own } of terms) {
    for (let unit = 0, i = 0; unit < count; unit++) {
      const f = own === undefined ? factor : factor * own[unit]!;
      for (let end = i + inner; i < end; i++) sum[i]! += f * values[from + i]!;
    }
  }
  for (let unit = 0, i = 0; unit < units; unit++) {
    const unscale = 1 / scales[unit]!;
    for (let end = i + inner; i < end; i++) out[at + i] = sum[i]! * unscale;
  }
}

/** For units of many elements, as convolutions have: unit by unit, four terms a pass, for the cost is memory traffic. */
function combine(terms: readonly Term[], inner: number, sum: Float64Array, { out, at, units, scales }: Place): void {
  const factorOf = (term: Term | undefined, unit: number) => {
    if (term === undefined || unit >= term.units) return 0;
    return term.scales === undefined ? term.factor : term.factor * term.scales[unit]!;
  };
  // With a factor of 0 it does not matter which values: those that are there.
  const from = (term: Term, unit: number) => term.at + (unit < term.units ? unit : 0) * inner;
  for (let unit = 0; unit < units; unit++) {
    const start = at + unit * inner;
    const unscale = 1 / scales[unit]!;
    sum.fill(0);
    if (terms.length === 0) out.fill(0, start, start + inner);
    for (let j = 0; j < terms.length; j += 4) {
      const a = terms[j]!;
      const [b, c, d] = [terms[j + 1] ?? a, terms[j + 2] ?? a, terms[j + 3] ?? a];
      const [fa, fb] = [factorOf(a, unit), factorOf(terms[j + 1], unit)];
      const [fc, fd] = [factorOf(terms[j + 2], unit), factorOf(terms[j + 3], unit)];
      const [pa, pb, pc, pd] = [from(a, unit), from(b, unit), from(c, unit), from(d, unit)];
      const [va, vb, vc, vd] = [a.values, b.values, c.values, d.values];
      if (j + 4 < terms.length) {
        for (let i = 0; i < inner; i++) {
          sum[i]! += fa * va[pa + i]! + fb * vb[pb + i]! + fc * vc[pc + i]! + fd * vd[pd + i]!;
        }
      } else {
        for (let i = 0; i < inner; i++) {
          const four = fa * va[pa + i]! + fb * vb[pb + i]! + fc * vc[pc + i]! + fd * vd[pd + i]!;
          out[start + i] = (sum[i]! + four) * unscale;
        }
      }
    }
  }
}
