/** What happens to a cluster, for whoever looks after it: told at the moment, and the latest kept. */
import type { Clock } from '@kofn/core';

/**
 * - lost: a worker is dead, or did not answer when the cluster was connected; it is connected to again
 * - back: a worker that was lost is ready
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
 */
export type EventKind =
  | 'lost'
  | 'back'
  | 'moved'
  | 'restored'
  | 'released'
  | 'reduced'
  | 'failed'
  | 'straggler'
  | 'steady'
  | 'audit-failed'
  | 'added'
  | 'removed'
  | 'replanned';

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
