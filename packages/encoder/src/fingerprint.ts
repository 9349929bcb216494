/**
 * Whether a worker computed its block: a secret combination of the block's units, formed of the weights at deployment and of each
 * reply (Freivalds, 1977). With random factors s, s·(Wx + b) = (s·W)x + s·b, and the right side is one unit's work instead of a
 * block's. docs/math.md derives what is found, the tolerance and how often an honest reply fails.
 *
 * Invariants
 * 1. Factors are ± a number from [1, 1.5): a single wrong element always shows, and several cancel only by chance.
 * 2. Sums are float64; what differs beyond them is the worker's own float32 rounding and that of the filters, which the tolerance covers.
 * 3. Nothing here is sent anywhere: who knows the factors can lie.
 */
import type { EncodedBlock } from './encode.js';
import { lengthOf, tolerance, UNDERFLOW } from './rounding.js';

/** The secret combinations of one coded block: `rows` of them in each of its groups, over `rowUnits` units each (the last, fewer). */
export interface Fingerprint {
  readonly groups: number;
  readonly blockUnits: number;
  readonly fanIn: number;
  readonly rows: number;
  readonly rowUnits: number;
  /** groups × blockUnits. */
  readonly factors: Float64Array;
  /** (groups · rows) × fanIn: the combined weights, rounded. */
  readonly filters: Float32Array;
  /** groups · rows: the combined bias. */
  readonly biases: Float64Array;
  /** groups · rows: Σ factor² · ‖weights‖² of the combined units, and Σ factor² · bias². */
  readonly energies: Float64Array;
  readonly biasEnergies: Float64Array;
}

/** What honest replies to one input combine to, within the rounding: of one block. */
export interface Expectation {
  /** [batch][groups · rows][positions]. */
  readonly sums: Float64Array;
  /** [batch][groups][positions]: ‖x‖² of what a unit reads. */
  readonly energies: Float64Array;
}

/**
 * Weights of a unit times units of a combination: so many keep the tolerance below 1e-4 / 1.5 of the outputs' RMS where weights
 * and inputs have no common direction.
 */
const MAX_COMBINED = { short: 60_000, long: 230_000 } as const;

/**
 * The fingerprint of `block`, which has `blockUnits` units of `fanIn` weights in each of `groups` groups. `random(count)` gives so
 * many bytes from a source that workers cannot guess.
 */
export function fingerprint(
  { weights, bias }: EncodedBlock,
  { groups, blockUnits, fanIn }: { groups: number; blockUnits: number; fanIn: number },
  random: (count: number) => Uint8Array,
): Fingerprint {
  const largest = Math.max(1, Math.floor(MAX_COMBINED[lengthOf(fanIn)] / fanIn));
  const rows = Math.ceil(blockUnits / largest);
  const rowUnits = Math.ceil(blockUnits / rows);
  const factors = drawFactors(groups * blockUnits, random);
  const filters = new Float32Array(groups * rows * fanIn);
  const biases = new Float64Array(groups * rows);
  const energies = new Float64Array(groups * rows);
  const biasEnergies = new Float64Array(groups * rows);
  const combined = new Float64Array(fanIn);
  for (let row = 0; row < groups * rows; row++) {
    const first = Math.floor(row / rows) * blockUnits;
    const start = first + (row % rows) * rowUnits;
    combined.fill(0);
    for (let unit = start, end = Math.min(first + blockUnits, start + rowUnits); unit < end; unit++) {
      const factor = factors[unit]!;
      const b = bias?.[unit] ?? 0;
      let energy = 0;
      for (let i = 0, at = unit * fanIn; i < fanIn; i++, at++) {
        const weight = weights[at]!;
        combined[i]! += factor * weight;
        energy += weight * weight;
      }
      biases[row]! += factor * b;
      energies[row]! += factor * factor * energy;
      biasEnergies[row]! += factor * factor * b * b;
    }
    filters.set(combined, row * fanIn);
  }
  return { groups, blockUnits, fanIn, rows, rowUnits, factors, filters, biases, energies, biasEnergies };
}

/**
 * How far `reply`, [batch][groups][blockUnits][positions] and finite, is from what was expected, in parts of the tolerance: beyond 1
 * it is not what the block gives. The largest of all combinations.
 */
export function deviation(of: Fingerprint, expected: Expectation, reply: Float32Array, positions: number): number {
  const { groups, blockUnits, fanIn, rows, rowUnits, factors, energies, biasEnergies } = of;
  const batch = reply.length / (groups * blockUnits * positions);
  const sums = new Float64Array(positions);
  const squares = new Float64Array(positions);
  let worst = 0;
  for (let slice = 0; slice < batch * groups; slice++) {
    const group = slice % groups;
    for (let row = 0; row < rows; row++) {
      sums.fill(0);
      squares.fill(0);
      const [from, end] = [row * rowUnits, Math.min(blockUnits, (row + 1) * rowUnits)];
      addUnits(reply, factors, { at: slice * blockUnits, factorsAt: group * blockUnits, from, end }, sums, squares);
      const energy = energies[group * rows + row]!;
      const biasEnergy = biasEnergies[group * rows + row]!;
      for (let p = 0; p < positions; p++) {
        const size = energy * expected.energies[slice * positions + p]! + biasEnergy;
        const off = Math.abs(sums[p]! - expected.sums[(slice * rows + row) * positions + p]!);
        const parts = off / tolerance(size, squares[p]!, fanIn);
        if (!(parts <= worst)) worst = parts;
      }
    }
  }
  return worst;
}

/** Adds factor · y of units `from` to `end` at each position to `sums`, and its square to `squares`; two units a pass. */
function addUnits(
  reply: Float32Array,
  factors: Float64Array,
  { at, factorsAt, from, end }: { at: number; factorsAt: number; from: number; end: number },
  sums: Float64Array,
  squares: Float64Array,
): void {
  const positions = sums.length;
  for (let unit = from; unit < end; unit += 2) {
    const isPair = unit + 1 < end;
    const f = factors[factorsAt + unit]!;
    const g = isPair ? factors[factorsAt + unit + 1]! : 0;
    const next = isPair ? positions : 0; // by a factor of 0: whatever is there
    for (let p = 0, i = (at + unit) * positions; p < positions; p++, i++) {
      const y = f * reply[i]!;
      const z = g * reply[i + next]!;
      sums[p]! += y + z;
      squares[p]! += y * y + z * z;
    }
  }
}

/** Parts of a block's RMS by which two sound engines' elements may differ. */
const AGREEMENT = 3e-5;

/** Whether `reply` is the block that was computed as `own`, but for the order of adding. */
export function agrees(own: Float32Array, reply: Float32Array): boolean {
  let squares = 0;
  let most = 0;
  for (let i = 0; i < own.length; i++) {
    squares += own[i]! * own[i]!;
    most = Math.max(most, Math.abs(own[i]! - reply[i]!));
  }
  return most <= AGREEMENT * Math.sqrt(squares / own.length) + UNDERFLOW;
}

function drawFactors(count: number, random: (count: number) => Uint8Array): Float64Array {
  const bytes = random(4 * count);
  return Float64Array.from({ length: count }, (_, i) => {
    const bits =
      (bytes[4 * i]! | (bytes[4 * i + 1]! << 8) | (bytes[4 * i + 2]! << 16) | (bytes[4 * i + 3]! << 24)) >>> 0;
    const size = 1 + (bits >>> 1) / 2 ** 32; // [1, 1.5)
    return (bits & 1) === 1 ? -size : size;
  });
}
