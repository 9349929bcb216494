/**
 * Cancellation and deadlines. A reason is always a KofnError: CANCELLED for the caller's own abort, DEADLINE_EXCEEDED
 * for a deadline.
 */
import { setMaxListeners } from 'node:events';
import type { Clock } from './clock.js';
import { KofnError } from './errors.js';

/** The KofnError that says why `signal` aborted. */
export function abortReason(signal: AbortSignal | undefined): KofnError {
  const reason: unknown = signal?.reason;
  if (reason instanceof KofnError) return reason;
  return new KofnError('CANCELLED', 'the caller cancelled the request', { cause: reason });
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortReason(signal);
}

/** `promise`, or a rejection with the signal's reason as soon as it aborts. The work behind `promise` goes on. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  if (signal.aborted) {
    promise.catch(() => undefined);
    throw abortReason(signal);
  }
  let onAbort!: () => void;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(abortReason(signal));
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** A controller whose signal any number of waits may share: each of ours leaves in a finally, so many are no leak. */
export function sharedController(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}

/** A signal with a life of its own: dispose it and its timer and listener are gone. */
export interface Scope extends Disposable {
  readonly signal: AbortSignal;
  /** Aborts the signal with `reason`; harmless when it is aborted already. */
  abort(reason: KofnError): void;
  /** Whether it has ended. It ends here when its deadline has passed and its timer is late, as after a machine's sleep. */
  hasEnded(): boolean;
}

/**
 * A scope that ends with `parent`, or with DEADLINE_EXCEEDED `deadlineMs` from now. `what` names the work in the
 * message ("request", "shard upload").
 */
export function openScope(
  clock: Clock,
  options: { parent?: AbortSignal | undefined; deadlineMs?: number | undefined; what?: string } = {},
): Scope {
  const { parent, deadlineMs, what = 'request' } = options;
  const controller = sharedController();
  const onParent = () => controller.abort(abortReason(parent));
  if (parent?.aborted) onParent();
  else parent?.addEventListener('abort', onParent, { once: true });
  const endsAt = deadlineMs === undefined ? Infinity : clock.now() + deadlineMs;
  const expire = () =>
    controller.abort(new KofnError('DEADLINE_EXCEEDED', `the ${what} did not end within ${deadlineMs} ms`));
  const timer = deadlineMs === undefined ? undefined : clock.setTimer(expire, deadlineMs);
  return {
    signal: controller.signal,
    abort: reason => controller.abort(reason),
    hasEnded() {
      if (clock.now() >= endsAt) expire();
      return controller.signal.aborted;
    },
    [Symbol.dispose]() {
      timer?.cancel();
      parent?.removeEventListener('abort', onParent);
    },
  };
}
