/**
 * Five workers, each a process with a data directory of its own behind a link of its own, and what can be done to them.
 *
 * Invariants
 * 1. Only workers that `startLocalWorkers` started are signalled; all processes end with the fleet.
 * 2. A worker that was killed starts again on the same disk, and is for the master at the same address.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { KofnError, seededRng } from '@kofn/core';
import { startLocalWorkers, type LocalWorkers } from 'kofn';
import { Links, type LinkMode } from 'kofn/measure';
import type { Fault } from './faults.js';

export const WORKERS = 5;

export class Fleet implements AsyncDisposable {
  readonly #folder: string;
  readonly #workers: LocalWorkers[];
  readonly #starts = new Array<number>(WORKERS).fill(1);
  readonly #links: Links;

  static async start(): Promise<Fleet> {
    const folder = mkdtempSync(path.join(tmpdir(), 'kofn-chaos-'));
    const starts = await Promise.allSettled(Array.from({ length: WORKERS }, (_, worker) => startOne(folder, worker)));
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

  async begin({ kind, worker, ...how }: Fault): Promise<void> {
    if (kind === 'kill') await this.#workers[worker]!.kill(0);
    else if (kind === 'pause') this.#workers[worker]!.pause(0);
    else await this.#links.set(worker, modeOf(kind, how));
  }

  async end({ kind, worker }: Fault): Promise<void> {
    if (kind === 'kill') {
      this.#workers[worker] = await startOne(this.#folder, worker);
      this.#starts[worker]!++;
      await this.#links.aim(worker, portOf(this.#workers[worker]));
    } else if (kind === 'pause') this.#workers[worker]!.resume(0);
    else await this.#links.set(worker, { kind: 'forward' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#workers.map(worker => worker.close()));
    await this.#links[Symbol.asyncDispose]();
    rmSync(this.#folder, { recursive: true });
  }
}

function startOne(folder: string, worker: number): Promise<LocalWorkers> {
  return startLocalWorkers(1, { dataDir: path.join(folder, `${worker}`) });
}

function portOf(workers: LocalWorkers): number {
  return Number(workers.addresses[0]!.split(':')[1]);
}

function modeOf(
  kind: Exclude<Fault['kind'], 'kill' | 'pause'>,
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
