/**
 * Kills local workers that hold a request, by hooks in the master's dispatch: proof that a loss in flight costs nothing.
 *
 * Invariants
 * 1. The worker is stopped (SIGSTOP) before the frame of its request is written, and killed (SIGKILL) once it is: it dies holding the
 *    request and cannot have answered it.
 * 2. A kill counts as a hit only when that request's report shows no arrival from the worker in the layer it was killed in.
 */
import { readFileSync } from 'node:fs';
import { KofnError, type Clock } from '@kofn/core';
import type { DispatchCall, DispatchHooks, RunReport } from '@kofn/master';
import type { Kill } from '../options/arguments.js';

/** A stop takes effect within microseconds; longer than this, something else is wrong, and the hit will not be counted. */
const STOP_WAIT_MS = 250;

export interface KillOutcome extends Kill {
  /** Whether the worker died holding that request. */
  readonly hit: boolean;
  /** Time of the request it died with; null when that request was not answered. */
  readonly ms: number | null;
  /** Layer whose call it held; null when none was sent to it. */
  readonly layer: string | null;
}

/** The pid of local worker `index`, or undefined when it runs no more. */
export type PidOf = (index: number) => number | undefined;

/** Throws INVALID_ARGUMENT when a kill names a worker or request that there will not be. */
export function checkKills(kills: readonly Kill[], localWorkers: number | undefined, requests: number): void {
  for (const { worker, request } of kills) {
    const given = `--kill ${worker}@${request}`;
    if (localWorkers === undefined) {
      throw new KofnError(
        'INVALID_ARGUMENT',
        `${given}: only local workers can be killed; use --local N, not --workers`,
      );
    }
    if (worker >= localWorkers) {
      const range = `workers 0 to ${localWorkers - 1}`;
      throw new KofnError(
        'INVALID_ARGUMENT',
        `${given}: there is no worker ${worker}; --local ${localWorkers} has ${range}`,
      );
    }
    if (request >= requests) {
      const range = requests === 1 ? 'only request 0' : `requests 0 to ${requests - 1}`;
      throw new KofnError('INVALID_ARGUMENT', `${given}: there is no request ${request}; this run has ${range}`);
    }
  }
}

export class KillPlan {
  /** Give these to `connect`. */
  readonly hooks: DispatchHooks;
  readonly #kills: readonly Kill[];
  readonly #pidOf: PidOf;
  readonly #clock: Clock;
  /** Calls in which a worker was stopped, by worker. */
  readonly #held = new Map<number, DispatchCall>();
  readonly #killed = new Set<number>();
  readonly #outcomes = new Map<number, KillOutcome>();

  constructor(kills: readonly Kill[], pidOf: PidOf, clock: Clock) {
    this.#kills = kills;
    this.#pidOf = pidOf;
    this.#clock = clock;
    this.hooks =
      kills.length === 0
        ? {}
        : { beforeSend: call => this.#beforeSend(call), afterWrite: call => this.#afterWrite(call) };
  }

  /** Judges the kills of the request that has just ended; `report` is undefined when it was not answered. */
  requestEnded(request: number, report: RunReport | undefined): void {
    for (const kill of this.#kills) {
      if (kill.request !== request) continue;
      const call = this.#held.get(kill.worker);
      const layer = report?.layers.find(({ name }) => name === call?.layer);
      // A request that failed has no report; its worker was killed all the same, before it could answer (invariant 1).
      const missing = layer === undefined || !layer.arrivals.some(({ worker }) => worker === kill.worker);
      const hit = call !== undefined && this.#killed.has(kill.worker) && missing;
      this.#outcomes.set(kill.worker, { ...kill, hit, ms: report?.ms ?? null, layer: call?.layer ?? null });
    }
  }

  /** In the order given. A kill whose request never ran is no hit. */
  get outcomes(): readonly KillOutcome[] {
    return this.#kills.map(kill => this.#outcomes.get(kill.worker) ?? { ...kill, hit: false, ms: null, layer: null });
  }

  #beforeSend(call: DispatchCall): void {
    if (this.#held.has(call.worker)) return;
    if (!this.#kills.some(({ worker, request }) => worker === call.worker && request === call.request)) return;
    const pid = this.#pidOf(call.worker);
    if (pid === undefined) return;
    this.#held.set(call.worker, call);
    stopProcess(pid, this.#clock);
  }

  #afterWrite(call: DispatchCall): void {
    const held = this.#held.get(call.worker);
    if (held?.request !== call.request || held.layer !== call.layer || this.#killed.has(call.worker)) return;
    const pid = this.#pidOf(call.worker);
    if (pid !== undefined && signalProcess(pid, 'SIGKILL')) this.#killed.add(call.worker);
  }
}

/**
 * Stops a process (SIGSTOP) and waits until it stands still: spins, because a hook is synchronous. Elsewhere than on Linux a stop is not
 * to be seen, and is taken as done.
 */
export function stopProcess(pid: number, clock: Clock): void {
  signalProcess(pid, 'SIGSTOP');
  const start = clock.now();
  while (!isStopped(pid) && clock.now() - start < STOP_WAIT_MS);
}

/** True as soon as the process is stopped or gone. */
export function isStopped(pid: number): boolean {
  if (process.platform !== 'linux') return true;
  try {
    // `pid (name) state ...`; the name may hold anything, so the state is what follows the last parenthesis.
    const status = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return /^[TtZX]/.test(status.slice(status.lastIndexOf(')') + 2));
  } catch {
    return true;
  }
}

/** False when the process is gone already. */
export function signalProcess(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch {
    return false;
  }
}
