/**
 * Hedged requests (Dean and Barroso, "The Tail at Scale", CACM 2013): when a layer's reply is late, whoever else holds the block
 * is asked as well. This file says when; dispatch.ts asks.
 *
 * 'p95' is a quantile of what is seen of the replies, and a hedge cuts off just those that are long: of a reply that lost the
 * race it is known only that it would have taken longer. To forget these would leave the short ones alone in the window, so that
 * each hedge made the next earlier, down to asking everybody twice at once.
 *
 * Invariants
 * 1. The window holds the latest times of blocks' own workers: of those that arrived their time, of those that were cancelled
 *    the time so far, which is less than theirs.
 * 2. A time so far that is below the quantile tells nothing (a caller that gives up early cancels calls that are not late), and
 *    is left out. At or above it, it counts on the right side of the quantile. So the quantile is never above that of the true
 *    times, and rises to it while hedges come too early.
 * 3. A worker that failed adds no time.
 * 4. No call and no timer outlives the signal of the layer's calls.
 */
import { openScope, sleep, type Scope, type Signal } from '@kofn/core';
import { RecentTimes } from '../fleet/recent-times.js';
import { ANSWERED, type RequestContext } from './worker-call.js';
import type { HedgeAfter } from '../contract/options.js';

const WINDOW = 200;
/** Fewer say nothing of a 95th percentile. */
const LEAST_KNOWN = 20;
const QUANTILE = 0.95;

/** When the blocks of one group of layers are late; over all its requests. */
export class Hedge {
  readonly #fixedMs: number | undefined;
  readonly #times = new RecentTimes(WINDOW);

  constructor(after: HedgeAfter) {
    this.#fixedMs = after === 'p95' ? undefined : after;
  }

  /** Undefined while too little is known. */
  get afterMs(): number | undefined {
    if (this.#fixedMs !== undefined) return this.#fixedMs;
    return this.#times.count < LEAST_KNOWN ? undefined : this.#times.quantile(QUANTILE);
  }

  /** A block's own worker took `ms`. */
  arrived(ms: number): void {
    if (this.#fixedMs === undefined) this.#times.add(ms);
  }

  /** A block's own worker was given up after `ms`. */
  cancelled(ms: number): void {
    if (this.#fixedMs === undefined && ms >= (this.afterMs ?? Infinity)) this.#times.add(ms);
  }
}

/** Calls `worker` for `block`, until `signal` aborts. */
export type CallBlock = (block: number, worker: number, signal: Signal) => Promise<void>;

/** The calls of one layer of one request, where blocks have two holders. */
export class Hedging {
  /** Blocks that the other holder was called for because their own worker was late, or because it failed. */
  readonly late = new Set<number>();
  readonly lost = new Set<number>();
  readonly #context: Pick<RequestContext, 'clock' | 'connections' | 'signal'>;
  readonly #hedge: Hedge;
  readonly #call: CallBlock;
  /** Of each block's calls: the first that is answered ends the other. All end with the request's. */
  readonly #scopes: Scope[] = [];
  #isLate = false;
  #lateness: Promise<void> | undefined;

  constructor(context: Pick<RequestContext, 'clock' | 'connections' | 'signal'>, hedge: Hedge, call: CallBlock) {
    this.#context = context;
    this.#hedge = hedge;
    this.#call = call;
    const { afterMs } = hedge;
    if (afterMs === undefined) return;
    const become = () => {
      this.#isLate = true;
      this.#lateness = undefined;
    };
    this.#lateness = sleep(context.clock, afterMs, context.signal).then(become, () => undefined); // or all is over
  }

  /** Whether what has not come is late. */
  get isLate(): boolean {
    return this.#isLate;
  }

  /** Resolves when it is; undefined when it is already, or never will be. */
  get lateness(): Promise<void> | undefined {
    return this.#lateness;
  }

  callOwn(block: number, worker: number): void {
    const { clock, signal } = this.#context;
    const startMs = clock.now();
    const scope = openScope(clock, { parent: signal });
    this.#scopes[block] = scope;
    this.#call(block, worker, scope.signal).then(
      () => {
        this.#hedge.arrived(clock.now() - startMs);
        scope.abort(ANSWERED);
      },
      () => {
        if (scope.signal.aborted) this.#hedge.cancelled(clock.now() - startMs);
      },
    );
  }

  /**
   * Calls the other holders of `shards`, blocks from 0, that have not `arrived`: of those that are `coming` when they are late and
   * the other holder can take a call, of all else at once.
   */
  callOthers(
    shards: readonly { readonly other: number | undefined }[],
    { arrived, coming }: { arrived: ReadonlySet<number>; coming: ReadonlySet<number> },
  ): void {
    for (const [block, { other }] of shards.entries()) {
      if (other === undefined || arrived.has(block) || this.isOtherCalled(block)) continue;
      const { takesCalls, isFull } = this.#context.connections[other]!;
      if (coming.has(block) && (!this.#isLate || !takesCalls || isFull)) continue;
      (coming.has(block) ? this.late : this.lost).add(block);
      const scope = this.#scopes[block]!;
      this.#call(block, other, scope.signal).then(
        () => scope.abort(ANSWERED),
        () => undefined,
      );
    }
  }

  isOtherCalled(block: number): boolean {
    return this.late.has(block) || this.lost.has(block);
  }
}
