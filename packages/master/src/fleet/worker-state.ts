/** The state of a worker, as the master sees it. */

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
