/**
 * Requests for a long time through a master and six real workers, one a spare, while workers come and go without end: told to stop and
 * started again, killed and started again, killed for so long that what they held is put to the spare. Two are left alone, so that their
 * memory is that of one process over the whole run. Checked: no request is lost, wrong or late, every worker that is told to stop exits
 * with 0, all is whole again after each, what processes hold does not grow (judge.ts), and nothing is left at the end.
 *
 * Chaos (../run.ts) is the neighbour: its workers, load and requests; there faults are many and runs short.
 */
import { createHistogram } from 'node:perf_hooks';
import { abortable, KofnError, openScope, seededRng, systemClock, throwIfAborted } from '@kofn/core';
import { codedModel, connect, type Cluster, type CodedModel } from 'kofn';
import { loadDemoData } from 'kofn/measure';
import { Fleet } from '../fleet.js';
import { Load } from '../load.js';
import { leftSince, openResources, openSockets, valuesOf } from '../resources.js';
import { expectedOutputs } from '../run.js';
import { growthOf, type Growth, type Sample } from './judge.js';

export const KINDS = ['restart', 'kill', 'heal'] as const;
export type Kind = (typeof KINDS)[number];

const WORKERS = 6;
const HOLDERS = [0, 1, 2, 3, 4];
const DISTURBED = [2, 3, 4, 5];
const HEAL_AFTER_MS = 1_000;
/** Requests without the worker, and with it again. */
const REQUESTS = 20;
/** Of a worker that starts, is found again, and is given what it lacks, on a busy machine. */
const EVENT_MS = 60_000;
const MS_A_MINUTE = 60_000;
const SAMPLES = 400;
const MIN_SAMPLE_MS = 250;
/** Of the run, but no less than the one and no more than the other. */
const WARM_UP = 0.2;
const MIN_WARM_UP_MS = 20_000;
const MAX_WARM_UP_MS = 300_000;
const MICROSECONDS = 1_000;
const FAILURES = 10;

export interface SoakResult {
  readonly seed: number;
  readonly seconds: number;
  /** Stopped by its signal, before its time. */
  readonly isInterrupted: boolean;
  readonly requests: number;
  readonly lost: number;
  readonly wrong: number;
  readonly late: number;
  readonly done: Readonly<Record<Kind, number>>;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  readonly warmUpSeconds: number;
  /** Empty for a run that is over with its warm-up. */
  readonly growth: readonly Growth[];
  /** As chaos has it. */
  readonly left: readonly string[];
  /** The first, in words. */
  readonly failures: readonly string[];
  readonly holds: boolean;
}

export interface SoakOptions {
  readonly minutes: number;
  readonly seed: number;
  /** Requests at a time; default 4. */
  readonly inFlight?: number;
  /** Ends the run; its result is of what was until then. */
  readonly signal: AbortSignal;
  readonly onProgress?: (about: {
    ms: number;
    requests: number;
    lost: number;
    done: Readonly<Record<Kind, number>>;
  }) => void;
}

export async function runSoak(options: SoakOptions): Promise<SoakResult> {
  const expected = await expectedOutputs(await loadDemoData());
  const before = openResources();
  const result = await soak(options, expected);
  const left = [...result.left, ...(await leftSince(before, openResources))];
  const { lost, wrong, late, failures, growth } = result;
  const holds = lost + wrong + late + failures.length + left.length === 0 && growth.every(each => each.holds);
  return { ...result, left, holds };
}

async function soak(
  { minutes, seed, inFlight = 4, signal, onProgress }: SoakOptions,
  expected: Awaited<ReturnType<typeof expectedOutputs>>,
): Promise<Omit<SoakResult, 'holds'>> {
  const data = await loadDemoData();
  await using fleet = await Fleet.start(WORKERS);
  await using cluster = await connect({ workers: fleet.addresses, healAfterMs: HEAL_AFTER_MS });
  // No block is computed here: what is answered, four workers of five have answered.
  const model = await codedModel(data.modelPath, { cluster, workers: HOLDERS, onLoss: 'fail' });
  const sockets = openSockets(fleet.pids());
  const wholeMs = MS_A_MINUTE * minutes;
  const start = performance.now();
  const elapsedMs = () => performance.now() - start;
  const warmUpMs = Math.min(MAX_WARM_UP_MS, Math.max(MIN_WARM_UP_MS, WARM_UP * wholeMs));
  const series = new Series(Math.max(MIN_SAMPLE_MS, wholeMs / SAMPLES));
  const times = createHistogram();
  const done: Record<Kind, number> = { restart: 0, kill: 0, heal: 0 };
  const looks = new Set<() => void>();
  let situation = 'calm';
  const load: Load = new Load({
    ...{ model, expected, inputs: data.inputs, inFlight },
    situation: () => situation,
    onEnded: requests => {
      // Kept as a histogram: the times of a day of requests would be the growth that is looked for.
      for (const ms of load.times.splice(0)) times.record(Math.max(1, Math.round(MICROSECONDS * ms)));
      series.sample(elapsedMs(), fleet);
      onProgress?.({ ms: elapsedMs(), requests, lost: load.lost, done });
      for (const look of [...looks]) look();
    },
  });
  const counts = () => ({ lost: load.lost, wrong: load.wrong, late: load.late, failures: [...load.failures] });
  // A terminal's Ctrl-C goes to the workers, too: what ends after it says nothing.
  let counted: ReturnType<typeof counts> | undefined;
  const onAbort = () => {
    counted = counts();
    void load.stop();
  };
  signal.addEventListener('abort', onAbort, { once: true });
  const failures: string[] = [];
  const rng = seededRng(seed);
  try {
    for (let left: Kind[] = []; elapsedMs() < wholeMs;) {
      if (left.length === 0) left = [...KINDS];
      const kind = left.splice(rng.integer(left.length), 1)[0]!;
      const worker = DISTURBED[rng.integer(DISTURBED.length)]!;
      situation = `${kind} of worker ${worker}`;
      await disturb(kind, worker, { fleet, cluster, model, load, looks, signal });
      done[kind]++;
    }
  } catch (error) {
    if (!signal.aborted) failures.push(`${situation}: ${KofnError.from(error).message}`);
  } finally {
    signal.removeEventListener('abort', onAbort);
    await load.stop();
  }
  const { lost, wrong, late, failures: ofRequests } = counted ?? counts();
  const atPercent = (percent: number) => times.percentile(percent) / MICROSECONDS;
  return {
    ...{ seed, requests: load.ended, lost, wrong, late, done },
    seconds: Math.round(elapsedMs() / 1000),
    isInterrupted: signal.aborted,
    p50Ms: atPercent(50),
    p99Ms: atPercent(99),
    maxMs: atPercent(100),
    warmUpSeconds: warmUpMs / 1000,
    growth: growthOf(series.byProcess, warmUpMs),
    left: await leftSince(sockets, () => openSockets(fleet.pids())),
    failures: [...failures, ...ofRequests].slice(0, FAILURES),
  };
}

interface Parts {
  readonly fleet: Fleet;
  readonly cluster: Cluster;
  readonly model: CodedModel;
  readonly load: Load;
  /** Called whenever a request has ended. */
  readonly looks: Set<() => void>;
  readonly signal: AbortSignal;
}

/** From a fleet that is whole to one that is whole again. What has begun with a process ends; waits end with the signal. */
async function disturb(kind: Kind, worker: number, parts: Parts): Promise<void> {
  const { fleet, cluster, model, load, signal } = parts;
  throwIfAborted(signal);
  const until = (what: string, isDone: () => boolean) => untilChange(parts, what, isDone);
  const passed = (requests: number) => {
    const end = load.ended + requests;
    return until(`${requests} requests`, () => load.ended >= end);
  };
  const isReady = (index: number) => cluster.workers[index]!.state === 'ready';
  const isWhole = () => model.health.margin === 1;
  try {
    if (kind === 'restart') {
      const code = await fleet.stop(worker);
      if (code !== 0) throw new KofnError('INTERNAL', `a worker that was told to stop ended with ${code}`);
    } else await fleet.kill(worker);
    await until('loss of the worker', () => !isReady(worker));
    if (kind === 'heal') await until('healing', isWhole);
    await passed(REQUESTS);
  } finally {
    await fleet.startAgain(worker);
  }
  await until('return of the worker', () => cluster.workers.every(({ index }) => isReady(index)) && isWhole());
  await passed(REQUESTS);
}

/** Until `isDone`, which is looked at whenever a request has ended, or something of the fleet or of what stands on it has changed. */
async function untilChange(
  { cluster, looks, signal: parent }: Parts,
  what: string,
  isDone: () => boolean,
): Promise<void> {
  using scope = openScope(systemClock, { parent, deadlineMs: EVENT_MS, what });
  let look!: () => void;
  const done = new Promise<void>(resolve => {
    look = () => {
      if (isDone()) resolve();
    };
  });
  const stops = [cluster.onFleetChange(look), cluster.onEvent(look), () => looks.delete(look)];
  looks.add(look);
  look();
  await abortable(done, scope.signal).finally(() => stops.forEach(stop => stop()));
}

/** What processes hold over time. A worker that is started again goes on where it was. */
class Series {
  readonly byProcess = new Map<string, Sample[]>();
  readonly #everyMs: number;
  #sampledMs = -Infinity;

  constructor(everyMs: number) {
    this.#everyMs = everyMs;
  }

  sample(atMs: number, fleet: Fleet): void {
    if (atMs - this.#sampledMs < this.#everyMs) return;
    this.#sampledMs = atMs;
    for (const [name, pid] of fleet.pids()) {
      const values = pid === undefined ? undefined : valuesOf(pid);
      if (values === undefined) continue;
      const slot = name.split('.')[0]!;
      const list = this.byProcess.get(slot) ?? [];
      this.byProcess.set(slot, list);
      const timers = pid === process.pid ? { timers: openResources().get('Timeout') ?? 0 } : {};
      list.push({ atMs, ...values, ...timers });
    }
  }
}
