/**
 * What goes wrong in a run, drawn from its seed: one fault after another, each on one worker, so never more than r = 1.
 * A fault lasts and is followed in requests, not in time, so that a seed replays the same faults on any machine.
 */
import type { Rng } from '@kofn/core';

/** Whether a master comes back to a worker whose link broke. While it does not, a run has one such fault, and it is the last. */
export const MASTER_RECONNECTS = false;

const KEEP_LINK = ['pause', 'delay', 'drip', 'hole'] as const;
const LOSE_LINK = ['kill', 'reset', 'corrupt'] as const;
export type FaultKind = (typeof KEEP_LINK)[number] | (typeof LOSE_LINK)[number];

export interface Fault {
  readonly kind: FaultKind;
  readonly worker: number;
  /** Undisturbed requests before it, from when the worker of the fault before answers again. */
  readonly gap: number;
  readonly length: number;
  readonly seed: number;
}

const MIN_GAP = 3;
const GAPS = 12;
const MIN_LENGTH = 2;
const LENGTHS = 30;

/** The faults of a run in their order; more than can happen in `requests`. The last is due at 90 % of them when links stay lost. */
export function drawFaults(rng: Rng, requests: number, workers: number): { faults: Fault[]; last: Fault | undefined } {
  const kinds: readonly FaultKind[] = MASTER_RECONNECTS ? [...KEEP_LINK, ...LOSE_LINK] : KEEP_LINK;
  const draw = (from: readonly FaultKind[]): Fault => ({
    kind: from[rng.integer(from.length)]!,
    worker: rng.integer(workers),
    gap: MIN_GAP + rng.integer(GAPS),
    length: MIN_LENGTH + rng.integer(LENGTHS),
    seed: rng.integer(2 ** 32),
  });
  const last = MASTER_RECONNECTS ? undefined : draw(LOSE_LINK);
  return { faults: Array.from({ length: Math.ceil(requests / (MIN_GAP + MIN_LENGTH)) }, () => draw(kinds)), last };
}
