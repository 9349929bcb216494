/**
 * Kills or stops workers while they hold a request, by the hooks of the master's dispatch. kill-plan.ts does it for `kofn run` and
 * the demonstration, by number of the request; this, for whatever call comes next.
 *
 * Invariants
 * 1. The worker is stopped (SIGSTOP) before the frame of its call is written, and killed (SIGKILL) once it is: it dies holding the
 *    call and cannot have answered it.
 */
import { systemClock } from '@kofn/core';
import type { DispatchCall, DispatchHooks } from '@kofn/master';
import { signalProcess, stopProcess } from '../../workers/kill-plan.js';

export interface Strike {
  readonly worker: number;
  readonly pid: number;
  readonly action: 'kill' | 'pause';
}

export class MidRequest {
  /** Give these to `connect`. */
  readonly hooks: DispatchHooks = {
    beforeSend: call => this.#beforeSend(call),
    afterWrite: call => this.#afterWrite(call),
  };
  readonly #armed = new Map<number, Strike>();
  readonly #held = new Map<number, { strike: Strike; call: DispatchCall }>();

  /** The next call to the worker of `strike` is its last, or its last for a while. */
  arm(strike: Strike): void {
    this.#armed.set(strike.worker, strike);
  }

  /** Takes `worker` out again; returns whether it was struck. */
  disarm(worker: number): boolean {
    return !this.#armed.delete(worker);
  }

  #beforeSend(call: DispatchCall): void {
    const strike = this.#armed.get(call.worker);
    if (strike === undefined || this.#held.has(call.worker)) return;
    stopProcess(strike.pid, systemClock);
    if (strike.action === 'kill') this.#held.set(call.worker, { strike, call });
    else this.#armed.delete(call.worker);
  }

  #afterWrite(call: DispatchCall): void {
    const held = this.#held.get(call.worker);
    if (held?.call.request !== call.request || held.call.layer !== call.layer) return;
    this.#held.delete(call.worker);
    this.#armed.delete(call.worker);
    signalProcess(held.strike.pid, 'SIGKILL');
  }
}
