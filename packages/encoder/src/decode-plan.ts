/**
 * What to do with a set of arrived blocks: which of them to decode from, and the linear combination of those that is
 * each missing data block. A plan depends on the code and the set alone, so it is made once and kept.
 */
import { KofnError } from '@kofn/core';
import { inverse, Matrix, SVD } from 'ml-matrix';
import type { Code } from './code.js';

export interface DecodePlan {
  /** The k blocks that are used, ascending: every data block that arrived, and parity for the others. */
  readonly decodeSet: readonly number[];
  /** Data blocks to solve for, ascending. */
  readonly recovered: readonly number[];
  /**
   * [recovered · subBlocks][decodeSet · subBlocks], row-major: scaled missing part = Σ coefficient · part of the decode
   * set (data parts scaled, parity parts as they are).
   */
  readonly coefficients: Float64Array;
  /** Ratio of the largest to the smallest singular value of the solved system; 1 when nothing is solved. */
  readonly condition: number;
  /** Largest 2-norm of a row of `coefficients`: how much it multiplies independent rounding errors; at least 1. */
  readonly errorGain: number;
}

/** Beyond this a solve in float64 of float32 values has no digits left, whatever its pivots say. */
const MAX_CONDITION = 1e8;
/** Plans kept a layer: k = 32, r = 4 has 58,905 survivor sets, of which a cluster sees few. */
const MAX_PLANS = 512;

export class DecodePlans {
  readonly #code: Code;
  readonly #plans = new Map<string, DecodePlan>();

  constructor(code: Code) {
    this.#code = code;
  }

  /** The plan for the arrived blocks `indices` (any order, no repeats). Throws UNDECODABLE naming what is missing. */
  planFor(indices: readonly number[]): DecodePlan {
    const survivors = [...indices].sort((a, b) => a - b);
    const key = survivors.join(',');
    let plan = this.#plans.get(key);
    if (plan === undefined) {
      plan = makePlan(this.#code, survivors);
      if (this.#plans.size >= MAX_PLANS) this.#plans.delete(this.#plans.keys().next().value!);
      this.#plans.set(key, plan);
    }
    return plan;
  }
}

/**
 * The fewest data blocks that `survivors` lack: together with them the output decodes. Greedy over a matroid (column
 * sets of the parity rows that are independent), so no smaller choice exists.
 */
export function missingBlocks(code: Code, survivors: readonly number[]): number[] {
  const parity = survivors.filter(block => block >= code.k);
  const solvable: number[] = [];
  const missing: number[] = [];
  for (const block of absentData(code, survivors)) {
    const columns = [...solvable, block];
    const enough = parity.length > 0 && rank(system(code, parity, columns)) === columns.length * code.subBlocks;
    (enough ? solvable : missing).push(block);
  }
  return missing;
}

function makePlan(code: Code, survivors: readonly number[]): DecodePlan {
  const { k, subBlocks } = code;
  const data = survivors.filter(block => block < k);
  const recovered = absentData(code, survivors);
  const parity = chooseParity(code, survivors, recovered);
  const decodeSet = [...data, ...parity];
  if (recovered.length === 0) {
    return { decodeSet, recovered, coefficients: new Float64Array(0), condition: 1, errorGain: 1 };
  }
  // parity = G[parity, data]·data + A·missing, so missing = A⁻¹·parity - A⁻¹·G[parity, data]·data.
  const a = system(code, parity, recovered);
  const singular = new SVD(a).diagonal;
  const condition = Math.max(...singular) / Math.min(...singular);
  if (!(condition <= MAX_CONDITION)) throw undecodable(code, survivors, recovered);
  const solve = inverse(a);
  const rows = recovered.length * subBlocks;
  const coefficients = new Matrix(rows, k * subBlocks);
  if (data.length > 0) {
    coefficients.setSubMatrix(solve.mmul(system(code, parity, data)).mul(-1), 0, 0);
  }
  coefficients.setSubMatrix(solve, 0, data.length * subBlocks);
  const gains = coefficients.to2DArray().map(row => Math.hypot(...row));
  return {
    decodeSet,
    recovered,
    coefficients: Float64Array.from(coefficients.to1DArray()),
    condition,
    errorGain: Math.max(1, ...gains),
  };
}

/** The first parity survivors that together determine `absent`; as many as there are absent blocks. */
function chooseParity(code: Code, survivors: readonly number[], absent: readonly number[]): number[] {
  const chosen: number[] = [];
  for (const block of survivors) {
    if (chosen.length === absent.length) break;
    if (block < code.k) continue;
    const rows = [...chosen, block];
    if (rank(system(code, rows, absent)) === rows.length * code.subBlocks) chosen.push(block);
  }
  if (chosen.length < absent.length) throw undecodable(code, survivors, absent);
  return chosen;
}

function absentData(code: Code, survivors: readonly number[]): number[] {
  const present = new Set(survivors);
  return Array.from({ length: code.k }, (_, block) => block).filter(block => !present.has(block));
}

/** The generator's entries for coded blocks `blocks` and data blocks `data`, part by part. */
function system({ generator, subBlocks }: Code, blocks: readonly number[], data: readonly number[]): Matrix {
  const parts = (list: readonly number[]) =>
    list.flatMap(block => Array.from({ length: subBlocks }, (_, part) => block * subBlocks + part));
  return generator.selection(parts(blocks), parts(data));
}

function rank(matrix: Matrix): number {
  const singular = new SVD(matrix, { autoTranspose: true }).diagonal;
  const largest = Math.max(...singular);
  return largest === 0 ? 0 : singular.filter(value => value * MAX_CONDITION > largest).length;
}

function undecodable({ k, n, name }: Code, survivors: readonly number[], absent: readonly number[]): KofnError {
  return new KofnError(
    'UNDECODABLE',
    `blocks ${survivors.join(',') || '(none)'} of ${n} do not determine data blocks ${absent.join(',')} ` +
      `(${name}, k = ${k}): more blocks are needed`,
  );
}
