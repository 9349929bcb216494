/** The fleet: the workers as the master sees them now. A snapshot is immutable and replaced on change. */
import type { Connection } from './connection.js';
import type { WorkerSpeed } from './speeds.js';
import type { WorkerState } from './worker-state.js';

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
