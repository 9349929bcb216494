/**
 * Workers as child processes of this one, for trying things out and for tests: `kofn-worker`, by default on loopback ports of the
 * system's choice, each with a data directory of its own.
 *
 * Invariants
 * 1. A worker does not outlive this process: `close` waits until it has exited; when this process exits or crashes it is killed; and when
 *    this process is killed, the worker sees its standard input end and exits by itself.
 * 2. Data directories made here are removed once their worker has exited, without holding this process up: it may be a master with
 *    requests under way. Only when this process exits itself are they removed at once.
 * 3. Either all workers start or none is left.
 * 4. Ctrl-C in a terminal is for this process, which needs its workers until it has drained: each has a process group of its own.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { abortable, KofnError, openScope, systemClock, throwIfAborted, type Signal } from '@kofn/core';
import type { EngineName } from '@kofn/engine';
import { signalProcess } from './kill-plan.js';

export interface LocalWorkerOptions {
  /** Default 'auto'. */
  readonly engine?: EngineName | 'auto';
  /** Threads of each worker's engine. Default 1. */
  readonly threads?: number;
  /** Worker i keeps its shards in `dataDir/worker-i`, which stay. Default: temporary directories, removed on close. */
  readonly dataDir?: string;
  /** Where worker `index` listens, `host:port`. Default '127.0.0.1:0', a free port. */
  readonly listen?: (index: number) => string;
  /** What its command line begins with: a command that becomes the one behind it, as `ip netns exec NAME` does. Default nothing. */
  readonly command?: (index: number) => readonly string[];
  /** Further arguments of kofn-worker. */
  readonly extraArgs?: readonly string[];
  /** Longest wait until all are ready. Default 30,000. */
  readonly startDeadlineMs?: number;
  /** Ends a start; once started, `close` ends the workers. */
  readonly signal?: Signal;
}

export interface LocalWorker {
  readonly address: string;
  readonly pid: number;
}

/** As in the first line of kofn-worker.js (docs/adr/0002-memory.md, 0004-heap.md). */
export const MALLOC = { MALLOC_ARENA_MAX: '2', MALLOC_MMAP_THRESHOLD_: '131072', MALLOC_TRIM_THRESHOLD_: '131072' };
export const HEAP = ['--initial-heap-size=64'];
const EXIT_WAIT_MS = 5_000;
/** What systemd and Kubernetes give at least, or more: a worker's own grace is 20 s. */
const STOP_WAIT_MS = 30_000;
const STDERR_TAIL = 2_000;
const WHOLE = { recursive: true, force: true };

export class LocalWorkers implements AsyncDisposable {
  readonly #children: Child[];
  readonly #options: LocalWorkerOptions;

  /** @internal Use {@link startLocalWorkers}. */
  constructor(children: Child[], options: LocalWorkerOptions) {
    this.#children = children;
    this.#options = options;
  }

  get workers(): readonly LocalWorker[] {
    return this.#children.map(({ address, pid }) => ({ address, pid }));
  }

  /** `host:port` of each, for `connect`. */
  get addresses(): readonly string[] {
    return this.#children.map(({ address }) => address);
  }

  /** The pid of worker `index`; undefined once it has exited. Throws INVALID_ARGUMENT (no such worker). */
  pidOf(index: number): number | undefined {
    const child = this.#child(index);
    return child.exited ? undefined : child.pid;
  }

  /** Kills worker `index` at once (SIGKILL), as a power cut would. Its address stays taken by nobody. */
  async kill(index: number): Promise<void> {
    const child = this.#child(index);
    child.signal('SIGKILL');
    await child.gone;
  }

  /**
   * Asks worker `index` to finish (SIGTERM) and waits until it has exited. Resolves with its exit code, 0 when it has answered what it
   * had taken; null when it was killed, as it is after 30 s.
   */
  async stop(index: number): Promise<number | null> {
    const child = this.#child(index);
    await child.end(STOP_WAIT_MS);
    return child.exitCode;
  }

  /**
   * Starts worker `index` anew where it was, with the disk that it had when there is a `dataDir`, and resolves when it is ready. Throws
   * INVALID_ARGUMENT (it runs: `stop` or `kill` it first), else as `startLocalWorkers`; it can then be started again.
   */
  async start(index: number): Promise<void> {
    const before = this.#child(index);
    if (!before.exited) throw new KofnError('INVALID_ARGUMENT', `local worker ${index} runs; stop or kill it first`);
    await before.gone;
    const { address } = before;
    const child = new Child(index, { ...this.#options, listen: () => address }, address);
    this.#children[index] = child; // from now on `close` ends it
    await untilReady([child], this.#options);
  }

  /** Stops worker `index` where it is (SIGSTOP): connected and silent. Stopped, it does not notice that this process was killed. */
  pause(index: number): void {
    this.#child(index).signal('SIGSTOP');
  }

  /** Lets a paused worker go on. */
  resume(index: number): void {
    this.#child(index).signal('SIGCONT');
  }

  /** Asks every worker to finish (SIGTERM), kills those that have not after 5 s, and waits until all have exited. */
  async close(): Promise<void> {
    await Promise.all(this.#children.map(child => child.end()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #child(index: number): Child {
    const child = this.#children[index];
    if (child !== undefined) return child;
    throw new KofnError('INVALID_ARGUMENT', `there is no local worker ${index}; there are ${this.#children.length}`);
  }
}

/**
 * Starts `count` workers and resolves when all are ready. Throws INVALID_ARGUMENT (count), UNAVAILABLE (a worker exited; the message has
 * the end of what it wrote), DEADLINE_EXCEEDED, CANCELLED.
 */
export async function startLocalWorkers(count: number, options: LocalWorkerOptions = {}): Promise<LocalWorkers> {
  if (!Number.isInteger(count) || count < 1 || count > 256) {
    throw new KofnError('INVALID_ARGUMENT', `${count} local workers: give a whole number from 1 to 256`);
  }
  throwIfAborted(options.signal);
  const children = Array.from({ length: count }, (_, index) => new Child(index, options));
  await untilReady(children, options);
  return new LocalWorkers(children, options);
}

/** Throws what the first that fails says, and ends all. */
async function untilReady(
  children: readonly Child[],
  { startDeadlineMs: deadlineMs = 30_000, signal: parent }: LocalWorkerOptions,
): Promise<void> {
  using scope = openScope(systemClock, { parent, deadlineMs, what: 'start of the local workers' });
  try {
    await Promise.all(children.map(child => abortable(child.ready, scope.signal)));
  } catch (error) {
    await Promise.all(children.map(child => child.end()));
    throw error;
  }
}

/** Children that run; one listener for all of them (invariant 1). */
const running = new Set<Child>();
const abandonAll = () => running.forEach(child => child.abandon());

function track(child: Child): void {
  if (running.size === 0) process.on('exit', abandonAll);
  running.add(child);
}

function untrack(child: Child): void {
  running.delete(child);
  if (running.size === 0) process.off('exit', abandonAll);
}

class Child {
  readonly ready: Promise<void>;
  /** Resolves when the process has exited and its temporary directory is removed. */
  readonly gone: Promise<void>;
  address: string;
  exited = false;
  readonly #process: ChildProcess;
  /** Temporary, removed with the child. */
  readonly #folder: string | undefined;
  #stderr = '';

  constructor(
    index: number,
    { engine = 'auto', threads = 1, dataDir, listen, command, extraArgs }: LocalWorkerOptions,
    address = '',
  ) {
    this.address = address;
    this.#folder = dataDir === undefined ? mkdtempSync(path.join(tmpdir(), 'kofn-worker-')) : undefined;
    const [file, ...args] = [
      ...(command?.(index) ?? []),
      process.execPath,
      ...HEAP,
      workerBin(),
      ...[
        '--listen',
        listen?.(index) ?? '127.0.0.1:0',
        '--data-dir',
        this.#folder ?? path.join(dataDir!, `worker-${index}`),
      ],
      ...['--engine', engine, '--threads', String(threads), '--json', '--exit-with-parent'],
      ...(extraArgs ?? []),
    ];
    const env = { ...process.env, ...MALLOC };
    this.#process = spawn(file!, args, { stdio: ['pipe', 'pipe', 'pipe'], env, detached: true }); // (4)
    this.#process.once('exit', () => (this.exited = true));
    track(this);
    this.gone = this.#untilGone();
    this.#process.stdin!.on('error', () => undefined); // it may exit first
    this.#process.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_TAIL);
    });
    this.ready = this.#untilReady(index);
    this.ready.catch(() => undefined); // the first that fails is reported, the others are ended
  }

  get pid(): number {
    return this.#process.pid ?? -1;
  }

  signal(signal: NodeJS.Signals): void {
    if (!this.exited && this.#process.pid !== undefined) signalProcess(this.#process.pid, signal);
  }

  /** Null while it runs, and when a signal ended it. */
  get exitCode(): number | null {
    return this.#process.exitCode;
  }

  async end(waitMs = EXIT_WAIT_MS): Promise<void> {
    this.signal('SIGTERM');
    this.signal('SIGCONT'); // a stopped process takes SIGTERM only when it goes on
    const late = systemClock.setTimer(() => this.signal('SIGKILL'), waitMs);
    await this.gone;
    late.cancel();
  }

  /** For when this process exits without having closed it. */
  abandon(): void {
    this.signal('SIGKILL');
    try {
      if (this.#folder !== undefined) rmSync(this.#folder, WHOLE);
    } catch {
      // This process is ending, and the child may still have been writing.
    }
  }

  async #untilReady(index: number): Promise<void> {
    const lines = createInterface({ input: this.#process.stdout! });
    const first = new Promise<string>(resolve => lines.once('line', resolve));
    const exit = this.gone.then(() => undefined);
    const line = await Promise.race([first, exit]);
    if (line === undefined) {
      const { exitCode, signalCode } = this.#process;
      const how = signalCode === null ? `exit code ${exitCode}` : signalCode;
      const said = this.#stderr.trim() || 'it said nothing';
      throw new KofnError('UNAVAILABLE', `local worker ${index} ended (${how}) before it was ready: ${said}`);
    }
    this.address = addressIn(line, index);
    lines.on('line', () => undefined); // keeps the pipe empty
  }

  async #untilGone(): Promise<void> {
    try {
      // 'close' and not 'exit': by then stderr has been read to its end.
      await once(this.#process, 'close');
    } catch (error) {
      this.#stderr = String(error);
    }
    this.exited = true;
    try {
      if (this.#folder !== undefined) await rm(this.#folder, WHOLE);
    } finally {
      untrack(this); // not before: when this process exits meanwhile, `abandon` removes the rest
    }
  }
}

function addressIn(line: string, index: number): string {
  try {
    const { address } = JSON.parse(line) as { address?: unknown };
    if (typeof address === 'string') return address;
  } catch {
    // said below
  }
  throw new KofnError('PROTOCOL', `local worker ${index} began with "${line.slice(0, 200)}", not with its address`);
}

function workerBin(): string {
  return fileURLToPath(new URL('../../bin/kofn-worker.js', import.meta.resolve('@kofn/worker')));
}
