/**
 * What asks a command to end: signals, and the end of the npm that started it. Every command listens here, and loads nothing else for it.
 *
 * Invariants
 * 1. The first request is told once. A later signal is told as one more: whoever sends it wants an end at once.
 * 2. A signal that comes twice within ECHO_MS is one request: Ctrl-C reaches a command from the terminal and from npm, which forwards it
 *    where its shell became the command; timeout(1) and supervisors of process groups signal twice as well.
 * 3. The end of npm is a request like the first signal, never one more. npm forwards SIGTERM to its shell alone, which dies of it, and
 *    npm after it; both would leave a server behind that holds its port and that nobody knows.
 */
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { systemClock, type Clock, type Timer } from '@kofn/core';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
type SignalName = (typeof SIGNALS)[number];

/** Longer than npm takes to forward a signal, shorter than a person takes to see that a first one was not enough. */
const ECHO_MS = 500;
const WATCH_MS = 250;

/** As this process began: later npm may have ended already. */
const npmLives = npmAbove();

export interface StopRequest {
  /** 'SIGTERM', or 'npm has ended'. */
  readonly reason: string;
  /** 128 + the signal's number, as shells have it; that of SIGTERM for the end of npm. */
  readonly exitCode: number;
}

export class StopRequests implements Disposable {
  readonly #listeners = SIGNALS.map(name => ({ name, listener: () => this.#signalled(name) }));
  readonly #clock: Clock;
  readonly #first: (request: StopRequest) => void;
  readonly #oneMore: (request: StopRequest) => void;
  #signal: { readonly name: SignalName; readonly sinceMs: number } | undefined;
  #isAsked = false;
  #watch: Timer | undefined;

  constructor(
    first: (request: StopRequest) => void,
    oneMore: (request: StopRequest) => void,
    clock: Clock = systemClock,
  ) {
    this.#first = first;
    this.#oneMore = oneMore;
    this.#clock = clock;
    for (const { name, listener } of this.#listeners) process.on(name, listener);
    if (npmLives !== undefined) this.#watchNpm(npmLives);
  }

  [Symbol.dispose](): void {
    this.#watch?.cancel();
    for (const { name, listener } of this.#listeners) process.off(name, listener);
  }

  #signalled(name: SignalName): void {
    const before = this.#signal;
    const nowMs = this.#clock.now();
    if (before?.name === name && nowMs - before.sinceMs < ECHO_MS) return;
    this.#signal ??= { name, sinceMs: nowMs };
    const request = { reason: name, exitCode: 128 + constants.signals[name] };
    if (before !== undefined) this.#oneMore(request);
    else this.#ask(request);
  }

  #watchNpm(lives: () => boolean): void {
    const look = () => {
      if (lives()) this.#watchNpm(lives);
      else this.#ask({ reason: 'npm has ended', exitCode: 128 + constants.signals.SIGTERM });
    };
    this.#watch = this.#clock.setTimer(look, WATCH_MS, { background: true });
  }

  #ask(request: StopRequest): void {
    if (this.#isAsked) return;
    this.#isAsked = true;
    this.#first(request);
  }
}

/**
 * Whether the npm that started this process (npx, npm exec, npm run), itself or by a shell that waits for it, still lives: to be asked
 * again and again. Undefined when none did, as when a script left this process in the background. Needs /proc: elsewhere always undefined.
 */
function npmAbove(): (() => boolean) | undefined {
  const parent = process.ppid;
  const its = processOf(parent);
  if (its === undefined) return undefined;
  if (isNpm(its.name)) return () => process.ppid === parent;
  if (!its.name.endsWith('sh') || !isNpm(processOf(its.parent)?.name)) return undefined;
  return () => process.ppid === parent && processOf(parent)?.parent === its.parent;
}

/** npm names itself after what it does: "npm exec kofn worker". */
function isNpm(name: string | undefined): boolean {
  return name !== undefined && /^npm\b/.test(name);
}

/** proc(5), /proc/PID/stat: `PID (NAME) STATE PARENT …`. The name may have blanks and parentheses. */
function processOf(pid: number): { readonly name: string; readonly parent: number } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const [from, to] = [stat.indexOf('('), stat.lastIndexOf(')')];
    const [, parent] = stat.slice(to + 2).split(' ');
    return { name: stat.slice(from + 1, to), parent: Number(parent) };
  } catch {
    return undefined; // it has ended
  }
}
