/**
 * Whether blocks that were replied fit together: more than k of them must satisfy the code's own relations. With r ≥ 2 of them too
 * many, the one that does not fit can be told: without it the others do. docs/math.md derives the tolerance.
 */
import type { Code } from './code.js';
import type { EncodedBlock, LayerEncoding } from './encode.js';
import { tolerance } from './rounding.js';

/** ‖weights‖² and bias² of each unit of one coded block: groups × blockUnits. */
export interface UnitEnergies {
  readonly weights: Float64Array;
  readonly biases: Float64Array;
}

export function unitEnergies({ weights, bias }: EncodedBlock, units: number): UnitEnergies {
  const fanIn = weights.length / units;
  const energies = new Float64Array(units);
  for (let unit = 0, i = 0; unit < units; unit++) {
    let energy = 0;
    for (const end = i + fanIn; i < end; i++) energy += weights[i]! * weights[i]!;
    energies[unit] = energy;
  }
  return { weights: energies, biases: Float64Array.from({ length: units }, (_, unit) => (bias?.[unit] ?? 0) ** 2) };
}

/** What is known of a layer at its deployment. */
export interface CheckedLayer extends Pick<LayerEncoding, 'code' | 'partition' | 'scales'> {
  readonly fanIn: number;
  /** Of each coded block. */
  readonly energies: readonly UnitEnergies[];
}

/**
 * The relations that the blocks `present` satisfy: independent rows of n · subBlocks coefficients, by block, then part, whose sum of
 * coefficient times scaled part is 0. As many as the blocks beyond those that determine the output times subBlocks; none for k blocks or fewer.
 */
export function parityChecks({ generator, k, n, r, subBlocks }: Code, present: readonly number[]): Float64Array[] {
  const [dataParts, parts, rows] = [k * subBlocks, n * subBlocks, r * subBlocks];
  const there = new Set(present);
  const isThere = (part: number) => there.has(Math.floor(part / subBlocks));
  // (-P, I): parity less what the data make of it.
  const entry = (row: number, part: number) => {
    if (part < dataParts) return -generator.get(dataParts + row, part);
    return part - dataParts === row ? 1 : 0;
  };
  const absent = Array.from({ length: parts }, (_, part) => part).filter(part => !isThere(part));
  if (absent.length === 0) {
    return Array.from({ length: rows }, (_, row) =>
      Float64Array.from({ length: parts }, (_v, part) => entry(row, part)),
    );
  }
  const columns = absent.map(part => Float64Array.from({ length: rows }, (_, row) => entry(row, part)));
  return complement(columns, rows).map(combination =>
    Float64Array.from({ length: parts }, (_, part) =>
      isThere(part) ? combination.reduce((sum, factor, row) => sum + factor * entry(row, part), 0) : 0,
    ),
  );
}

/** A part of a vector's length that is rounding. */
const RANK = 1e-9;

/** An orthonormal basis of what is orthogonal to `vectors` of `size` numbers: Gram-Schmidt, each twice. */
function complement(vectors: readonly Float64Array[], size: number): Float64Array[] {
  const basis: Float64Array[] = [];
  const add = (vector: Float64Array): boolean => {
    const rest = vector.slice();
    for (const axis of [...basis, ...basis]) {
      const along = rest.reduce((sum, value, i) => sum + value * axis[i]!, 0);
      rest.forEach((value, i) => (rest[i] = value - along * axis[i]!));
    }
    const length = Math.hypot(...rest);
    if (length <= RANK * Math.hypot(...vector)) return false;
    basis.push(rest.map(value => value / length));
    return true;
  };
  for (const vector of vectors) add(vector);
  const spanned = basis.length;
  for (let i = 0; basis.length < size && i < size; i++)
    add(Float64Array.from({ length: size }, (_, j) => (i === j ? 1 : 0)));
  return basis.slice(spanned);
}

/**
 * How far replies are from satisfying `checks` (of those of their blocks), in parts of the tolerance: beyond 1 one of them is wrong.
 * `replies` by block, [batch][groups][blockUnits][positions] and finite; `energies` as of `inputEnergies`. Work in pieces.
 */
export function* misfit(
  { code, partition, scales, fanIn, energies: unitsOf }: CheckedLayer,
  checks: readonly Float64Array[],
  replies: ReadonlyMap<number, Float32Array>,
  { energies, positions }: { energies: Float64Array; positions: number },
): Generator<number, number> {
  const { groups, blockUnits, unitsPerGroup } = partition;
  const { k, subBlocks } = code;
  const partUnits = blockUnits / subBlocks;
  const slices = energies.length / positions; // batch · groups
  const termsOf = (check: Float64Array) =>
    [...check.entries()].flatMap(([part, coefficient]) => {
      const block = Math.floor(part / subBlocks);
      return coefficient === 0 ? [] : [{ block, first: (part % subBlocks) * partUnits, coefficient }];
    });
  const terms = checks.map(termsOf);
  const sums = new Float64Array(positions);
  const squares = new Float64Array(positions);
  let worst = 0;
  for (let slice = 0; slice < slices; slice++) {
    const group = slice % groups;
    for (let inPart = 0; inPart < partUnits; inPart++) {
      for (const check of terms) {
        sums.fill(0);
        squares.fill(0);
        let [size, biasSize] = [0, 0];
        for (const { block, first, coefficient } of check) {
          const unit = first + inPart;
          const inGroup = block * blockUnits + unit;
          const isScaled = block < k && inGroup < unitsPerGroup; // parity is of scaled rows; padding is 0
          const factor = isScaled ? coefficient * scales[group * unitsPerGroup + inGroup]! : coefficient;
          size += factor * factor * unitsOf[block]!.weights[group * blockUnits + unit]!;
          biasSize += factor * factor * unitsOf[block]!.biases[group * blockUnits + unit]!;
          add(replies.get(block)!, (slice * blockUnits + unit) * positions, factor, sums, squares);
        }
        for (let p = 0; p < positions; p++) {
          const allowed = tolerance(size * energies[slice * positions + p]! + biasSize, squares[p]!, fanIn);
          const off = Math.abs(sums[p]!) / allowed;
          if (!(off <= worst)) worst = off;
        }
        yield check.length * positions;
      }
    }
  }
  return worst;
}

function add(reply: Float32Array, at: number, factor: number, sums: Float64Array, squares: Float64Array): void {
  for (let p = 0; p < sums.length; p++) {
    const term = factor * reply[at + p]!;
    sums[p]! += term;
    squares[p]! += term * term;
  }
}
