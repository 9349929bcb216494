/** What became of the calls to one worker since the cluster was connected: for metrics.ts. Held by its connection. */
import type { ErrorCode } from '@kofn/core';

export class CallTally {
  /** Replies that were verified. */
  arrivals = 0;
  /** Calls that were given up because others had answered. */
  missed = 0;
  /** Links that were made anew after the one before was lost. */
  reconnects = 0;
  /** Replies over links that are gone that came after their request was over. */
  lateReplies = 0;
  /** Failed calls, by why. */
  readonly erasures = new Map<ErrorCode, number>();

  erased(code: ErrorCode): void {
    this.erasures.set(code, (this.erasures.get(code) ?? 0) + 1);
  }

  /** A link stands again in the place of one over which so many replies came late. */
  relinked({ lateReplies }: { readonly lateReplies: number }): void {
    this.reconnects++;
    this.lateReplies += lateReplies;
  }
}
