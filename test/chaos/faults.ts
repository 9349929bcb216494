/**
 * What goes wrong in a run, drawn from its seed: one fault after another, each on one worker, so never more than r = 1: the one that
 * holds a drawn block at the time, as blocks move. A fault is followed in requests and in what the master's fleet says, not in time, so that a seed replays the same faults on
 * any machine. Every kind comes once in each round.
 */
import type { Rng } from '@kofn/core';

/**
 * kill to delay: of a process or its link, which is then as it was. lose: the process is gone until what it held stands elsewhere, and
 * comes back on an empty disk. full: it comes back on an empty disk that takes nothing. lie: every answer has one wrong value.
 */
export const KINDS = [
  ...(['kill', 'pause', 'hole', 'reset', 'corrupt', 'drip', 'delay'] as const),
  ...(['lose', 'full', 'lie'] as const),
] as const;
export type FaultKind = (typeof KINDS)[number];

/** Between two faults, while one is on, while its worker comes back. */
export type Phase = 'gap' | 'fault' | 'healing';
const PHASES: readonly Phase[] = ['gap', 'fault', 'healing'];

export interface Fault {
  readonly kind: FaultKind;
  /** Of the first layer: whoever holds it is struck. */
  readonly block: number;
  /** Undisturbed requests before it, from when the worker of the fault before has answered again. */
  readonly gap: number;
  /** Requests for which it lasts at least. */
  readonly length: number;
  /** It lasts until the master has given the worker up; else a silent worker comes back before. */
  readonly untilNoticed: boolean;
  /** When the master's event loop stands still. */
  readonly blockIn: Phase | undefined;
  /** Corruption: of a payload instead of a frame header. */
  readonly inPayload: boolean;
  readonly seed: number;
}

const REQUESTS_A_FAULT = 40;
const MIN_GAP = 3;
const GAPS = 12;
const MIN_LENGTH = 2;
const LENGTHS = 30;

/** The faults of a run of at least so many requests. */
export function drawFaults(rng: Rng, requests: number, blocks: number, kinds: readonly FaultKind[] = KINDS): Fault[] {
  const rounds = Math.max(1, Math.round(requests / (REQUESTS_A_FAULT * kinds.length)));
  return Array.from({ length: rounds }, () => shuffled(rng, kinds))
    .flat()
    .map(kind => {
      const inPayload = kind === 'corrupt' && rng.integer(2) === 0;
      return {
        kind,
        block: rng.integer(blocks),
        gap: MIN_GAP + rng.integer(GAPS),
        length: MIN_LENGTH + rng.integer(LENGTHS),
        untilNoticed: isNoticed(kind, inPayload) ?? rng.integer(2) === 0,
        blockIn: PHASES[rng.integer(2 * PHASES.length)],
        inPayload,
        seed: rng.integer(2 ** 32),
      };
    });
}

/** Whether a fault ends the link or lets it be; undefined when that depends on how long it lasts. */
function isNoticed(kind: FaultKind, inPayload: boolean): boolean | undefined {
  if (kind === 'hole' || kind === 'pause') return undefined;
  return !['corrupt', 'drip', 'delay'].includes(kind) || (kind === 'corrupt' && !inPayload);
}

function shuffled<T>(rng: Rng, items: readonly T[]): T[] {
  const left = [...items];
  return items.map(() => left.splice(rng.integer(left.length), 1)[0]!);
}
