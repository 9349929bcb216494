/**
 * Workers, each a process with a data directory of its own behind a link of its own, and what can be done to them.
 *
 * Invariants
 * 1. Only workers that `startLocalWorkers` started are signalled; all processes end with the fleet.
 * 2. A worker that was killed starts again on the same disk, one that was lost on another, which is empty; for the master it is at the same
 *    address.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { KofnError, seededRng } from '@kofn/core';
import type { FaultSettings } from '@kofn/wire';
import { startLocalWorkers, type LocalWorkers } from 'kofn';
import { FaultControl, Links, type LinkMode } from 'kofn/measure';
import type { Fault } from './faults.js';

/** One more than blocks, so that each can be put elsewhere. */
export const WORKERS = 6;
export const BLOCKS = 5;
export const PARITY = 1;

export class Fleet implements AsyncDisposable {
  readonly #folder: string;
  readonly #workers: LocalWorkers[];
  readonly #starts: number[];
  readonly #disks: number[];
  readonly #links: Links;

  static async start(count = WORKERS): Promise<Fleet> {
    const folder = mkdtempSync(path.join(tmpdir(), 'kofn-chaos-'));
    const starts = await Promise.allSettled(Array.from({ length: count }, (_, worker) => startOne(folder, worker, 0)));
    const workers = starts.flatMap(start => (start.status === 'fulfilled' ? [start.value] : []));
    try {
      for (const start of starts) if (start.status === 'rejected') throw KofnError.from(start.reason);
      return new Fleet(folder, workers, await Links.open(workers.map(portOf)));
    } catch (error) {
      await Promise.all(workers.map(worker => worker.close()));
      rmSync(folder, { recursive: true });
      throw error;
    }
  }

  private constructor(folder: string, workers: LocalWorkers[], links: Links) {
    this.#folder = folder;
    this.#workers = workers;
    this.#starts = workers.map(() => 1);
    this.#disks = workers.map(() => 0);
    this.#links = links;
  }

  /** Of the links: what the master knows as its workers, whatever ports they have. */
  get addresses(): readonly string[] {
    return this.#links.addresses;
  }

  /** Every process, the master's too, under a name that no other process of the run has. */
  pids(): Map<string, number | undefined> {
    const workers = this.#workers.map((worker, i) => [`worker ${i}.${this.#starts[i]}`, worker.pidOf(0)] as const);
    return new Map([['master', process.pid], ...workers]);
  }

  async begin(worker: number, { kind, ...how }: Fault): Promise<void> {
    switch (kind) {
      case 'kill':
      case 'lose':
        return this.#workers[worker]!.kill(0);
      case 'full':
        return this.#begin(worker, { isEmpty: true, takes: '1' });
      case 'lie':
        return this.#set(worker, { seed: how.seed, wrongRate: 1 });
      case 'pause':
        return this.#workers[worker]!.pause(0);
      default:
        return this.#links.set(worker, modeOf(kind, how));
    }
  }

  async end(worker: number, { kind }: Fault): Promise<void> {
    switch (kind) {
      case 'kill':
        return this.#begin(worker);
      case 'lose':
        return this.#begin(worker, { isEmpty: true });
      case 'full':
        return this.#begin(worker);
      case 'lie':
        return this.#set(worker, {});
      case 'pause':
        return this.#workers[worker]!.resume(0);
      default:
        return this.#links.set(worker, { kind: 'forward' });
    }
  }

  kill(worker: number): Promise<void> {
    return this.#workers[worker]!.kill(0);
  }

  /** Tells it to finish; resolves with its exit code once it has. */
  stop(worker: number): Promise<number | null> {
    return this.#workers[worker]!.stop(0);
  }

  /** After `kill` or `stop`. */
  startAgain(worker: number): Promise<void> {
    return this.#begin(worker);
  }

  /** Another process, on an empty disk or the same, which takes all or no more than so many bytes; the last is killed. */
  async #begin(worker: number, { isEmpty = false, takes }: { isEmpty?: boolean; takes?: string } = {}): Promise<void> {
    await this.#workers[worker]!.kill(0);
    await this.#workers[worker]!.close();
    if (isEmpty) this.#disks[worker]!++;
    this.#workers[worker] = await startOne(this.#folder, worker, this.#disks[worker]!, takes);
    this.#starts[worker]!++;
    await this.#links.aim(worker, portOf(this.#workers[worker]));
  }

  /** The faults that it lets be brought upon it, past its link. */
  async #set(worker: number, settings: FaultSettings): Promise<void> {
    await using control = await FaultControl.connect(this.#workers[worker]!.addresses[0]!);
    await control.set(settings);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#workers.map(worker => worker.close()));
    await this.#links[Symbol.asyncDispose]();
    rmSync(this.#folder, { recursive: true });
  }
}

function startOne(folder: string, worker: number, disk: number, takes?: string): Promise<LocalWorkers> {
  const extraArgs = ['--allow-faults', ...(takes === undefined ? [] : ['--max-disk', takes])];
  return startLocalWorkers(1, { dataDir: path.join(folder, `${worker}.${disk}`), extraArgs });
}

function portOf(workers: LocalWorkers): number {
  return Number(workers.addresses[0]!.split(':')[1]);
}

function modeOf(
  kind: Exclude<Fault['kind'], 'kill' | 'pause' | 'lose' | 'full' | 'lie'>,
  { seed, inPayload }: Pick<Fault, 'seed' | 'inPayload'>,
): LinkMode {
  const rng = seededRng(seed);
  switch (kind) {
    case 'drip':
      return { kind, bytes: 256 + rng.integer(4096), everyMs: 1 + rng.integer(5) };
    case 'delay':
      return { kind, ms: 1 + rng.integer(100) };
    case 'corrupt':
      return { kind, seed, inPayload };
    case 'hole':
    case 'reset':
      return { kind };
  }
}
