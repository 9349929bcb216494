/** Chance behind a seam: a seed replays every draw. */
import { KofnError } from './errors.js';

export interface Rng {
  /** A float64 drawn uniformly from [0, 1). */
  uniform(): number;
  /** A whole number drawn uniformly from [0, below); `below` from 1 to 2^32. */
  integer(below: number): number;
  /** A draw from the standard normal distribution (Box and Muller, 1958). */
  normal(): number;
}

/**
 * A generator for simulation and test data, not for secrets: sfc32 (C. Doty-Humphrey, PractRand), 128 bits of state.
 * `seed` is a whole number from 0 to 2^53 - 1. Throws INVALID_ARGUMENT.
 */
export function seededRng(seed: number): Rng {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new KofnError('INVALID_ARGUMENT', `seed ${seed}: must be a whole number from 0 to 2^53 - 1`);
  }
  let a = seed >>> 0;
  let b = Math.floor(seed / 2 ** 32) >>> 0;
  let c = 0x9e3779b9;
  let counter = 1;
  const uint32 = () => {
    const mixed = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + mixed) | 0;
    return mixed >>> 0;
  };
  for (let i = 0; i < 16; i++) uint32();
  const uniform = () => (uint32() * 2 ** 21 + (uint32() >>> 11)) / 2 ** 53;
  return {
    uniform,
    integer: below => Math.floor(uniform() * below),
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
  };
}
