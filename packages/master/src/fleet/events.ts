/** What happens to a cluster, for whoever looks after it: told at the moment, and the latest kept. */
import type { Clock } from '@kofn/core';
import type { Connection } from './connection.js';

/**
 * - lost: a worker is dead, or did not answer when the cluster was connected; it is connected to again
 * - back: a worker that was lost, or a duplicate, is ready
 * - duplicate: a worker's address leads to the process of another worker; it counts as lost until it leads to one of its own
 * - moved: what a lost worker held of a layer stands on another now
 * - restored: a worker was given again what it lacked of a layer
 * - released: a worker keeps no longer what stands elsewhere now
 * - reduced: nobody can take what a lost worker held of a layer, which goes on with less margin
 * - failed: a worker did not take a shard; it is tried again
 * - straggler: a worker takes at least twice as long for its blocks as the others do for theirs
 * - steady: a straggler is none any more
 * - audit-failed: replies to a layer do not fit together (`verify: 'audit'`); `worker` is whose is wrong, where that can be told
 * - added: a worker is new in the cluster
 * - removed: a worker is no part of the cluster any more
 * - replanned: a model stands by a plan for other workers, or of another code
 * - noted: a model runs otherwise than its user may expect (`Plan.notes`), as it was deployed
 * - quarantined: a worker is given no calls, for its replies were none, or wrong
 * - trusted: a worker that was quarantined is given calls again
 */
export const EVENT_KINDS = [
  'lost',
  'back',
  'duplicate',
  'moved',
  'restored',
  'released',
  'reduced',
  'failed',
  'straggler',
  'steady',
  'audit-failed',
  'added',
  'removed',
  'replanned',
  'noted',
  'quarantined',
  'trusted',
] as const;

export type EventKind = (typeof EVENT_KINDS)[number];

export interface ClusterEvent {
  /** Milliseconds of the cluster's clock (without one given: `performance.now()`). */
  readonly atMs: number;
  readonly kind: EventKind;
  readonly worker?: number;
  /** Names of layers that share their shards, or a segment's, as in reports. */
  readonly layer?: string;
  /** Of a failed audit: the request's number in its report, and whose replies were looked at. */
  readonly request?: number;
  readonly workers?: readonly number[];
  readonly message: string;
}

/** So many of the latest are kept. */
export const KEPT_EVENTS = 256;

export class Events {
  readonly #clock: Clock;
  readonly #listeners = new Set<(event: ClusterEvent) => void>();
  #latest: readonly ClusterEvent[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The latest, oldest first; a new array with each. */
  get latest(): readonly ClusterEvent[] {
    return this.#latest;
  }

  listen(listener: (event: ClusterEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  tell(about: Omit<ClusterEvent, 'atMs'>): void {
    const event = Object.freeze({ atMs: this.#clock.now(), ...about });
    this.#latest = [...this.#latest.slice(1 - KEPT_EVENTS), event];
    for (const listener of [...this.#listeners]) listener(event);
  }
}

/** What connections have to tell of their workers. */
export class WorkerEvents {
  readonly #tell: (event: Omit<ClusterEvent, 'atMs'>) => void;
  readonly #lost = new Set<Connection>();
  readonly #stragglers = new Set<Connection>();
  readonly #quarantined = new Set<Connection>();

  constructor(tell: (event: Omit<ClusterEvent, 'atMs'>) => void) {
    this.#tell = tell;
  }

  /** Its state is another. */
  ofState(connection: Connection): void {
    const { state, index: worker, address } = connection;
    if (state.kind === 'dead' && !this.#lost.has(connection)) {
      this.#lost.add(connection);
      this.#tell({ kind: 'lost', worker, message: `worker ${worker} (${address}) is lost: ${state.reason}` });
    } else if (state.kind === 'duplicate') {
      this.#lost.add(connection);
      const message = `worker ${worker} (${address}) is a duplicate: ${state.reason}, and counts once`;
      this.#tell({ kind: 'duplicate', worker, message });
    } else if (state.kind === 'ready' && this.#lost.delete(connection)) {
      this.#tell({ kind: 'back', worker, message: `worker ${worker} (${address}) is back` });
    } else if (state.kind === 'removed') {
      this.#lost.delete(connection);
      this.#tell({ kind: 'removed', worker, message: `worker ${worker} (${address}) was removed` });
    }
    if (state.kind === 'quarantined' && !this.#quarantined.has(connection)) {
      this.#quarantined.add(connection);
      this.#tell({
        kind: 'quarantined',
        worker,
        message: `worker ${worker} (${address}) is quarantined: ${state.reason}`,
      });
    } else if (state.kind === 'ready' && this.#quarantined.delete(connection)) {
      this.#tell({ kind: 'trusted', worker, message: `worker ${worker} (${address}) is given calls again` });
    }
  }

  /** It may have become a straggler, or have ceased to be one. */
  ofSpeed(connection: Connection): void {
    const { index: worker, address, speed } = connection;
    if (speed.isStraggler === this.#stragglers.has(connection)) return;
    const { slowness, inTime } = speed.view;
    const how = `its blocks take ${slowness!.toFixed(1)} times as long as those of the others`;
    const cost = `${Math.round(100 * (inTime ?? 0))} % of its latest calls were answered in time to be used`;
    if (speed.isStraggler) {
      this.#stragglers.add(connection);
      this.#tell({
        kind: 'straggler',
        worker,
        message: `worker ${worker} (${address}) is a straggler: ${how}; ${cost}`,
      });
    } else {
      this.#stragglers.delete(connection);
      this.#tell({ kind: 'steady', worker, message: `worker ${worker} (${address}) is no straggler any more: ${how}` });
    }
  }
}
