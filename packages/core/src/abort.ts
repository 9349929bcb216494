/**
 * Cancellation and deadlines. A reason is always a KofnError: CANCELLED for the caller's own abort, DEADLINE_EXCEEDED
 * for a deadline.
 *
 * A request makes a dozen scopes, and an AbortController of the platform takes as long as all else that a scope does (it is an
 * event target with a finalizer): ours are plain objects with the part of AbortSignal that is used here.
 */
import type { Clock } from './clock.js';
import { KofnError } from './errors.js';

/** What is used of a signal: an AbortSignal is one. */
export interface Signal {
  readonly aborted: boolean;
  readonly reason: unknown;
  addEventListener(type: 'abort', listener: () => void, options?: { readonly once?: boolean }): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** Any number of waits may share its signal. */
export interface Controller {
  readonly signal: Signal;
  /** The first reason stays. */
  abort(reason: KofnError): void;
}

/** The KofnError that says why `signal` aborted. */
export function abortReason(signal: Signal | undefined): KofnError {
  const reason: unknown = signal?.reason;
  if (reason instanceof KofnError) return reason;
  return new KofnError('CANCELLED', 'the caller cancelled the request', { cause: reason });
}

export function throwIfAborted(signal: Signal | undefined): void {
  if (signal?.aborted) throw abortReason(signal);
}

/** `promise`, or a rejection with the signal's reason as soon as it aborts. The work behind `promise` goes on. */
export async function abortable<T>(promise: Promise<T>, signal: Signal | undefined): Promise<T> {
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

export function openController(): Controller {
  return new LightController();
}

class LightController implements Controller, Signal {
  aborted = false;
  reason: unknown = undefined;
  #listeners: Set<() => void> | undefined;

  get signal(): Signal {
    return this;
  }

  abort(reason: KofnError): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    const listeners = this.#listeners;
    this.#listeners = undefined;
    // Those that were there at the time, but for any that another of them took away.
    if (listeners !== undefined) for (const listener of listeners) listener();
  }

  /** Every listener is called once at most: a signal aborts once. */
  addEventListener(_type: 'abort', listener: () => void): void {
    if (!this.aborted) (this.#listeners ??= new Set()).add(listener);
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners?.delete(listener);
  }
}

/** A signal with a life of its own: dispose it and its timer and listener are gone. */
export interface Scope extends Disposable {
  readonly signal: Signal;
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
  options: { parent?: Signal | undefined; deadlineMs?: number | undefined; what?: string } = {},
): Scope {
  const { parent, deadlineMs, what = 'request' } = options;
  const controller = openController();
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

/** Resolves `delayMs` from now; rejects with CANCELLED (or the signal's KofnError) as soon as `signal` aborts. */
export function sleep(clock: Clock, delayMs: number, signal?: Signal): Promise<void> {
  return new Promise((resolve, reject) => {
    throwIfAborted(signal);
    const onAbort = () => {
      timer.cancel();
      reject(abortReason(signal));
    };
    const timer = clock.setTimer(() => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    }, delayMs);
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
