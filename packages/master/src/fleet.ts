/** The fleet: the workers as the master sees them now. A snapshot is immutable and replaced on change. */
import type { Connection } from './connection.js';
import type { WorkerSpeed } from './speeds.js';

/**
 * - connecting: the link is being made anew, the how-many-eth time
 * - ready: it answers and takes calls
 * - suspect: it has not answered for a moment (calls still go there), or its engine has been on one run for much longer than
 *   its runs take (calls do not)
 * - draining: it was told to stop and finishes what it has
 * - quarantined: several of its replies were none and it is left alone for a while, or two were wrong and it is left alone until
 *   it is released
 * - dead: the link is lost, or it has never answered; it is tried again with backoff
 * - duplicate: its address leads to the process of another worker of the cluster, which counts once; it is tried again
 * - removed: it is no part of the cluster any more; its number stays its own
 */
export type WorkerState =
  | { readonly kind: 'connecting'; readonly attempt: number }
  | { readonly kind: 'ready' }
  | { readonly kind: 'suspect'; readonly reason: 'silent' | 'engine' }
  | { readonly kind: 'draining' }
  | { readonly kind: 'quarantined'; readonly reason: string }
  | { readonly kind: 'dead'; readonly reason: string }
  | { readonly kind: 'duplicate'; readonly reason: string }
  | { readonly kind: 'removed' };

/** Whether there is no link to it. */
export function isGone({ kind }: WorkerState): boolean {
  return kind === 'dead' || kind === 'connecting' || kind === 'duplicate' || kind === 'removed';
}

export interface WorkerView {
  readonly index: number;
  readonly address: string;
  readonly state: WorkerState['kind'];
  /** Why it is not ready; empty when it is. */
  readonly reason: string;
  /** Empty, and 0, until it has answered for the first time. */
  readonly engine: string;
  readonly cores: number;
  /** Replies that came after their request was over: counted, never used. */
  readonly lateReplies: number;
  /** Replies that were wrong, and those that failed their check and were right (`verify`). */
  readonly wrongAnswers: number;
  readonly falseAlarms: number;
  /** How fast it was seen to be lately: as it is known when this is read. */
  readonly speed: WorkerSpeed;
}

export type Fleet = readonly WorkerView[];

export function snapshot(connections: readonly Connection[]): Fleet {
  return Object.freeze(
    connections.map(({ index, address, state, inventory, lateReplies, trust, speed }) =>
      Object.freeze({
        index,
        address,
        state: state.kind,
        reason: reasonOf(state),
        engine: inventory.engine,
        cores: inventory.cores,
        lateReplies,
        wrongAnswers: trust.wrongAnswers,
        falseAlarms: trust.falseAlarms,
        get speed() {
          return speed.view;
        },
      }),
    ),
  );
}

function reasonOf(state: WorkerState): string {
  if (state.kind === 'connecting') return `attempt ${state.attempt}`;
  return 'reason' in state ? state.reason : '';
}
