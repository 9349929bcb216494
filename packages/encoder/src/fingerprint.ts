/**
 * Whether a worker computed its block: a secret combination of the block's units, formed of the weights at deployment and of each
 * reply (Freivalds, 1977). With random factors s, s·(Wx + b) = (s·W)x + s·b, and the right side is one unit's work instead of a
 * block's. docs/math.md derives what is found, the tolerance and how often an honest reply fails.
 *
 * Invariants
 * 1. Factors are ± a number from [1, 1.5): a single wrong element always shows, and several cancel only by chance.
 * 2. Combinations are float64; what differs beyond them is the worker's own float32 rounding, which the tolerance covers.
 * 3. Nothing here is sent anywhere: who knows the factors can lie.
 */
import type { EncodedBlock } from './encode.js';

/** The secret combinations of one coded block: `rows` of them in each of its groups, over `rowUnits` units each (the last, fewer). */
export interface Fingerprint {
  readonly groups: number;
  readonly blockUnits: number;
  readonly fanIn: number;
  readonly rows: number;
  readonly rowUnits: number;
  /** groups × blockUnits. */
  readonly factors: Float64Array;
  /** (groups · rows) × fanIn: the combined weights. */
  readonly filters: Float64Array;
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

/** Half the distance from 1 to the next float32: the largest relative rounding error. */
const UNIT_ROUNDOFF = 2 ** -24;
/**
 * Standard deviations of the rounding, added up in the worst order, that the tolerance holds. Short sums are added in that order by
 * engines, too; long ones, of more than LONG products, in blocks.
 */
const DEVIATIONS = { short: 11, long: 6 } as const;
const LONG = 1024;
/** Below float32's normal numbers an engine may round to zero. */
const UNDERFLOW = 2 ** -126;
/**
 * Weights of a unit times units of a combination: so many keep the tolerance below 1e-4 / 1.5 of the outputs' RMS where weights
 * and inputs have no common direction.
 */
const MAX_COMBINED = { short: 68_000, long: 230_000 } as const;

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
  const filters = new Float64Array(groups * rows * fanIn);
  const biases = new Float64Array(groups * rows);
  const energies = new Float64Array(groups * rows);
  const biasEnergies = new Float64Array(groups * rows);
  for (let unit = 0; unit < groups * blockUnits; unit++) {
    const row = Math.floor(unit / blockUnits) * rows + Math.floor((unit % blockUnits) / rowUnits);
    const factor = factors[unit]!;
    const b = bias?.[unit] ?? 0;
    let energy = 0;
    for (let i = unit * fanIn, end = i + fanIn, to = row * fanIn; i < end; i++, to++) {
      const weight = weights[i]!;
      filters[to]! += factor * weight;
      energy += weight * weight;
    }
    biases[row]! += factor * b;
    energies[row]! += factor * factor * energy;
    biasEnergies[row]! += factor * factor * b * b;
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
      const end = Math.min(blockUnits, (row + 1) * rowUnits);
      for (let unit = row * rowUnits; unit < end; unit++) {
        const factor = factors[group * blockUnits + unit]!;
        for (let p = 0, i = (slice * blockUnits + unit) * positions; p < positions; p++, i++) {
          const term = factor * reply[i]!;
          sums[p]! += term;
          squares[p]! += term * term;
        }
      }
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

/**
 * What rounding makes of a sum of units that add up `fanIn` products each in float32, one after the other (no order is worse, and
 * engines' are better), DEVIATIONS standard deviations of it: `size` is Σ factor²·(‖w‖²·‖x‖² + b²), `squares` Σ factor²·y².
 */
function tolerance(size: number, squares: number, fanIn: number): number {
  const variance = 0.03 * ((1 + 8 / fanIn) * size + 2 * (fanIn + 4) * squares);
  return DEVIATIONS[lengthOf(fanIn)] * UNIT_ROUNDOFF * Math.sqrt(variance) + UNDERFLOW * (fanIn + 1);
}

function lengthOf(fanIn: number): 'short' | 'long' {
  return fanIn > LONG ? 'long' : 'short';
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
