/** Chance of a station in one direction: what each frame of it is held up by. The same seed draws the same, frame by frame. */
import { seededRng, type Rng } from '@kofn/core';
import type { Direction } from './mode.js';
import type { LinkShape } from './shape.js';

export interface FrameDraw {
  /** Jitter, stall and retransmissions together. */
  readonly ms: number;
  readonly isStalled: boolean;
  readonly losses: number;
}

/** Linux's TCP_RTO_MAX. */
const MAX_RTO_MS = 120_000;

export class Draws {
  readonly #shape: LinkShape;
  readonly #rng: Rng;
  #wasStalled = false;

  constructor(shape: LinkShape, seed: number, station: number, direction: Direction) {
    this.#shape = shape;
    this.#rng = seededRng(seedOf(seed, 2 * station + (direction === 'there' ? 0 : 1)));
  }

  next(): FrameDraw {
    const { jitter, stalls, loss } = this.#shape;
    const rng = this.#rng;
    let ms = jitter === undefined ? 0 : Math.exp(jitter.mu + jitter.sigma * rng.normal());
    const isStalled = stalls !== undefined && rng.uniform() < (this.#wasStalled ? stalls.burst : stalls.rate);
    if (isStalled) ms += stalls.minMs + rng.uniform() * (stalls.maxMs - stalls.minMs);
    this.#wasStalled = isStalled;
    let losses = 0;
    while (loss !== undefined && rng.uniform() < loss.rate) ms += Math.min(MAX_RTO_MS, loss.rtoMs * 2 ** losses++);
    return { ms, isStalled, losses };
  }
}

/** The seed of generator `index`, of those that `seed` begins. */
function seedOf(seed: number, index: number): number {
  const root = seededRng(seed);
  for (let skipped = 0; skipped < index; skipped++) root.uniform();
  return root.uniform() * 2 ** 53;
}
