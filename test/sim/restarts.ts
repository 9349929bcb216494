/**
 * Masters that die in the middle of what they do, and others that begin in their place, with the same name and some other workers:
 * drawn from a stream of their own, so that other seeds are what they were without them.
 *
 * What must hold of a new master: it finds what stands where and sends none of it again (checks/homes.ts), and from then on all
 * that holds of any other.
 */
import type { Rng } from '@kofn/core';
import type { Phase } from './scenario.js';
import { between, pick } from './streams.js';

export interface Restart {
  /** After the begin of its phase. */
  readonly atMs: number;
  /** Until the next one begins. */
  readonly downMs: number;
  /** How many workers the next one knows: the fleet may have grown or shrunk. */
  readonly machines: number;
}

/** Longer than a lease. */
const LONG_DOWN_MS = 30 * 3_600_000;

export function drawRestarts(
  rng: Rng,
  phases: readonly Phase[],
  { workers, spares }: { workers: number; spares: number },
): Phase[] {
  let machines = workers + spares;
  return phases.map((phase, number) => {
    if (rng.integer(4) > 0 || phase.close !== undefined) return phase;
    const lastMs = Math.max(...phase.requests.map(({ atMs }) => atMs));
    const downMs = rng.integer(8) === 0 ? LONG_DOWN_MS : 10 ** between(rng, 0, 4);
    // One fewer only in the end: what is drawn for later phases counts on the spares.
    const change = pick(rng, number === phases.length - 1 && machines > workers ? [0, 1, -1] : [0, 0, 1]);
    machines += change;
    return { ...phase, restart: { atMs: between(rng, 0, 1.2 * lastMs), downMs, machines } };
  });
}
