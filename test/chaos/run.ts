/**
 * Requests through a master and five real workers while one of them after another fails: paused, behind a link that is slow,
 * silent or broken, killed and started again. Now and then the master's own event loop stands still. Everything is drawn from
 * one seed. Checked: every request is answered by its deadline with the uncoded model's answer, and nothing piles up.
 *
 * Invariants
 * 1. At most r = 1 worker is at fault: the next fault waits until the worker of the last one has answered again.
 * 2. A fault ends after its number of requests, or after MAX_FAULT_MS: before keepalive takes a silent link for a broken one.
 * 3. Only workers that `startLocalWorkers` started are signalled; all processes end with the run.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { KofnError, seededRng, type Tensors } from '@kofn/core';
import { codedModel, connect, startLocalWorkers, type LocalWorkers, type RunReport } from 'kofn';
import { compareOutputs, loadDemoData, percentile, Reference, roundMs, WRONG_ABOVE } from 'kofn/measure';
import { drawFaults, type Fault, type FaultKind } from './faults.js';
import { Links } from './links.js';
import type { LinkMode } from './proxy.js';
import { Resources, type Growth } from './resources.js';

const WORKERS = 5;
const PICTURES = 40;
const DEADLINE_MS = 10_000;
/** A deadline is a timer: it may fire this much late, and as much more as the event loop stood still. */
const TIMER_SLACK_MS = 100;
const BLOCK_MS = 500;
const BLOCK_ONE_IN = 60;
const MAX_FAULT_MS = 6_000;
const HEAL_MS = 20_000;
const LAST_FAULT_AT = 0.9;
const SAMPLES = 200;

export interface ChaosResult {
  readonly seed: number;
  readonly requests: number;
  readonly lost: number;
  readonly wrong: number;
  /** Ended after their deadline. */
  readonly late: number;
  readonly faults: Readonly<Partial<Record<FaultKind, number>>>;
  /** Times that the master's event loop stood still. */
  readonly blocks: number;
  /** Workers that did not answer again within HEAL_MS of their fault's end. */
  readonly unhealed: number;
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  readonly maxMs: number | null;
  readonly seconds: number;
  readonly growth: readonly Growth[];
  /** The first failures, in words. */
  readonly failures: readonly string[];
  readonly holds: boolean;
}

export interface ChaosOptions {
  readonly requests: number;
  readonly seed: number;
  readonly onProgress?: (done: number, fault: string, lost: number) => void;
}

export async function runChaos({ requests, seed, onProgress }: ChaosOptions): Promise<ChaosResult> {
  const start = performance.now();
  const data = await loadDemoData();
  const expected = await expectedOutputs(data.modelPath, data.inputs);
  await using fleet = await Fleet.start();
  await using cluster = await connect({ workers: fleet.addresses });
  const model = await codedModel(data.modelPath, { cluster, parity: 1, layers: 'all' });
  const faults = new FaultRunner(fleet, seed, requests);
  const rng = seededRng(seed + 1);
  const resources = new Resources();
  const times: number[] = [];
  const failures: string[] = [];
  let [wrong, late, blocks] = [0, 0, 0];

  for (let request = 0; request < requests; request++) {
    await faults.before(request);
    const isBlocked = rng.integer(BLOCK_ONE_IN) === 0;
    const begin = performance.now();
    let report: RunReport | undefined;
    try {
      const running = model.run(data.inputs(request % PICTURES), { deadlineMs: DEADLINE_MS });
      if (isBlocked) setImmediate(standStill);
      const result = await running;
      report = result.report;
      times.push(report.ms);
      const errors = Object.values(compareOutputs(result.outputs, expected[request % PICTURES]!));
      if (!errors.every(({ maxRelError }) => maxRelError <= WRONG_ABOVE)) {
        wrong++;
        failures.push(`request ${request} (${faults.current}): a wrong answer`);
      }
    } catch (error) {
      failures.push(`request ${request} (${faults.current}): ${KofnError.from(error).message}`);
    }
    if (isBlocked) blocks++;
    if (performance.now() - begin > DEADLINE_MS + TIMER_SLACK_MS + (isBlocked ? BLOCK_MS : 0)) late++;
    faults.after(report);
    if (request % Math.ceil(requests / SAMPLES) === 0) resources.sample(request / requests, fleet.pids());
    onProgress?.(request + 1, faults.current, request + 1 - times.length);
  }
  await faults.end();

  const lost = requests - times.length;
  const growth = resources.growth();
  const { unhealed, counts } = faults;
  return {
    ...{ seed, requests, lost, wrong, late, faults: counts, blocks, unhealed },
    p50Ms: roundMs(percentile(times, 50)),
    p99Ms: roundMs(percentile(times, 99)),
    maxMs: roundMs(percentile(times, 100)),
    seconds: Math.round((performance.now() - start) / 1000),
    growth,
    failures: failures.slice(0, 10),
    holds: lost + wrong + late + unhealed === 0 && growth.every(({ flat }) => flat),
  };
}

async function expectedOutputs(modelPath: string, inputs: (picture: number) => Tensors): Promise<Tensors[]> {
  await using reference = await Reference.open(modelPath);
  const outputs: Tensors[] = [];
  for (let picture = 0; picture < PICTURES; picture++) outputs.push(await reference.run(inputs(picture)));
  return outputs;
}

/** As a long garbage collection or a careless caller would. */
function standStill(): void {
  const end = performance.now() + BLOCK_MS;
  while (performance.now() < end);
}

/** Five workers, each a process with a data directory of its own behind a link of its own. */
class Fleet implements AsyncDisposable {
  readonly #folder: string;
  readonly #workers: LocalWorkers[];
  readonly #links: Links;

  static async start(): Promise<Fleet> {
    const folder = mkdtempSync(path.join(tmpdir(), 'kofn-chaos-'));
    const workers: LocalWorkers[] = [];
    try {
      for (let i = 0; i < WORKERS; i++)
        workers.push(await startLocalWorkers(1, { dataDir: path.join(folder, `${i}`) }));
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

  pids(): Map<string, number | undefined> {
    const workers = this.#workers.map((worker, i) => [`worker ${i}`, worker.pidOf(0)] as const);
    return new Map([['master', process.pid], ...workers]);
  }

  async begin({ kind, worker, seed }: Fault): Promise<void> {
    if (kind === 'kill') await this.#workers[worker]!.kill(0);
    else if (kind === 'pause') this.#workers[worker]!.pause(0);
    else await this.#links.set(worker, modeOf(kind, seed));
  }

  async end({ kind, worker }: Fault): Promise<void> {
    if (kind === 'kill') {
      // On the same disk, and for the master at the same address.
      this.#workers[worker] = await startLocalWorkers(1, { dataDir: path.join(this.#folder, `${worker}`) });
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

function portOf(workers: LocalWorkers): number {
  return Number(workers.addresses[0]!.split(':')[1]);
}

function modeOf(kind: Exclude<FaultKind, 'kill' | 'pause'>, seed: number): LinkMode {
  const rng = seededRng(seed);
  switch (kind) {
    case 'drip':
      return { kind, bytes: 256 + rng.integer(4096), everyMs: 1 + rng.integer(5) };
    case 'delay':
      return { kind, ms: 1 + rng.integer(100) };
    case 'corrupt':
      return { kind, seed };
    case 'hole':
    case 'reset':
      return { kind };
  }
}

/** Begins and ends the faults between requests (invariants 1 and 2). */
class FaultRunner {
  readonly counts: Partial<Record<FaultKind, number>> = {};
  unhealed = 0;
  readonly #fleet: Fleet;
  readonly #faults: Fault[];
  readonly #last: Fault | undefined;
  readonly #lastAt: number;
  #phase: 'calm' | 'fault' | 'healing' | 'over' = 'calm';
  #fault: Fault;
  #left: number;
  #since = performance.now();

  constructor(fleet: Fleet, seed: number, requests: number) {
    const { faults, last } = drawFaults(seededRng(seed), requests, WORKERS);
    this.#fleet = fleet;
    this.#faults = faults;
    this.#last = last;
    this.#lastAt = last === undefined ? Infinity : Math.floor(LAST_FAULT_AT * requests);
    this.#fault = faults.shift()!;
    this.#left = this.#fault.gap;
  }

  /** The fault that shapes the next request. */
  get current(): string {
    const { kind, worker } = this.#fault;
    if (this.#phase === 'calm') return 'calm';
    return `${this.#phase === 'healing' ? 'after ' : ''}${kind} of worker ${worker}`;
  }

  async before(request: number): Promise<void> {
    const waited = performance.now() - this.#since;
    if (this.#phase === 'calm' && request >= this.#lastAt) await this.#begin(this.#last!);
    else if (this.#phase === 'calm' && this.#left-- === 0) await this.#begin(this.#fault);
    else if (this.#phase === 'fault' && (this.#left-- === 0 || waited > MAX_FAULT_MS)) await this.#end();
    else if (this.#phase === 'healing' && waited > HEAL_MS) {
      this.unhealed++;
      this.#phase = 'over'; // another fault would be one too many
    }
  }

  /** A worker is sound again when an answer of it counted. */
  after(report: RunReport | undefined): void {
    const { worker } = this.#fault;
    if (this.#phase !== 'healing') return;
    if (!report?.layers.some(({ arrivals }) => arrivals.some(arrival => arrival.worker === worker))) return;
    this.#phase = 'calm';
    this.#fault = this.#faults.shift() ?? this.#fault;
    this.#left = this.#fault.gap;
  }

  /** The run is over: ends the fault that is on. */
  async end(): Promise<void> {
    if (this.#phase === 'fault') await this.#end();
  }

  async #begin(fault: Fault): Promise<void> {
    this.#fault = fault;
    this.#phase = 'fault';
    this.#left = fault.length;
    this.#since = performance.now();
    this.counts[fault.kind] = (this.counts[fault.kind] ?? 0) + 1;
    await this.#fleet.begin(fault);
  }

  async #end(): Promise<void> {
    await this.#fleet.end(this.#fault);
    this.#phase = this.#fault === this.#last ? 'over' : 'healing';
    this.#since = performance.now();
  }
}
