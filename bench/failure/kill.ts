/**
 * What it costs a request that a worker dies holding it: its latency against that of a request which knew the worker was gone.
 *   npm run bench:kill [-- --kills N] [-- --json] [-- --check]
 * models/fashion-cnn.onnx, every layer coded k = 4, r = 1, on five local workers. A round is one kill and one baseline on the
 * same processes, connections and shards, so that rounds interleave the two:
 *   kill      warm-up with all five; then worker I is stopped just before the request's frame goes to it and killed once the
 *             frame is written (KillPlan). It counts when the report shows no arrival from I.
 *   baseline  the master has seen the loss and worker I has exited; warm-up with the four; then one request on the same picture.
 *             Deployed for five, four alive, the fifth block an erasure from the start.
 * A new process then takes the place of worker I. I goes round all five, so one kill in five hits the parity block.
 * Every request runs alone. Not measured: a network, a machine for each worker. Here all share the cores, so a kill's
 * latency also has the system's work on the process that dies, and the stop that the hook waits for (column "hooks").
 * --check exits 1 when a target is missed.
 *
 * Invariants
 * 1. Bounded: MAX_KILLS rounds at most, none begins after BUDGET_MS, every wait has a deadline.
 * 2. Only processes that `startLocalWorkers` started are signalled.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { openScope, seededRng, systemClock, throwIfAborted, type Tensors } from '@kofn/core';
import { codedModel, connect, startLocalWorkers, type Cluster, type DispatchHooks, type LocalWorkers } from 'kofn';
import {
  compareOutputs,
  KillPlan,
  loadDemoData,
  openProgress,
  percentile,
  Reference,
  roundMs,
  WRONG_ABOVE,
} from 'kofn/measure';

const WORKERS = 5;
const KILLS = 100;
const MAX_KILLS = 1000;
/** Enough that a new deployment answers as fast as an old one: with 12 the baseline, which runs later, looked faster than it is. */
const WARM_UP = 40;
const RATIO_TARGET = 1.1;
const BUDGET_MS = 300_000;
const DEADLINE_MS = 20_000;
const RESAMPLES = 2000;

interface Round {
  readonly worker: number;
  readonly hit: boolean;
  readonly killMs: number;
  readonly baselineMs: number;
  /** The last request of the warm-up, with all five. */
  readonly healthyMs: number;
  /** Of `killMs`, what the hooks took: the stop, the wait for it, the kill. */
  readonly hooksMs: number;
  /** Whether both answers are the uncoded model's. */
  readonly exact: boolean;
}

const { values: flags } = parseArgs({
  options: { kills: { type: 'string' }, json: { type: 'boolean' }, check: { type: 'boolean' } },
});
const kills = Number(flags.kills ?? KILLS);
if (!Number.isInteger(kills) || kills < 1 || kills > MAX_KILLS) {
  console.error(`--kills ${flags.kills}: must be a whole number from 1 to ${MAX_KILLS}`);
  process.exit(2);
}

const data = await loadDemoData();
const rounds = await measure();
report();

async function measure(): Promise<Round[]> {
  const done: Round[] = [];
  const expected = await expectedOutputs();
  // Kept until the end: removing a dead worker's folder would block this process, the master, in the request it measures.
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-bench-'));
  const startOne = (slot: number) => startLocalWorkers(1, { dataDir: path.join(folder, String(slot)) });
  const fleet = await Promise.all(Array.from({ length: WORKERS }, (_, slot) => startOne(slot)));
  try {
    using progress = openProgress(' kills {bar} {value}/{total} | {eta} s left', kills);
    const start = systemClock.now();
    for (let round = 0; round < kills && systemClock.now() - start < BUDGET_MS; round++) {
      const worker = round % WORKERS;
      done.push(await killOnce(fleet, worker, picture => expected[picture]!, round));
      await fleet[worker]!.close();
      if (round + 1 < kills) fleet[worker] = await startOne(worker);
      progress.update(round + 1);
    }
  } finally {
    await Promise.all(fleet.map(workers => workers.close()));
    rmSync(folder, { recursive: true });
  }
  return done;
}

async function killOnce(
  fleet: readonly LocalWorkers[],
  worker: number,
  expected: (picture: number) => Tensors,
  round: number,
): Promise<Round> {
  const pidOf = (index: number) => fleet[index]!.pidOf(0);
  const kill = { worker, request: WARM_UP };
  const plan = new KillPlan([kill], pidOf, systemClock);
  const { hooks, spentMs } = timed(plan.hooks);
  await using cluster = await connect({
    id: 'bench-kill', // the same owner each time: survivors keep their shards
    workers: fleet.map(({ addresses }) => addresses[0]!),
    hooks,
  });
  // Not closed, which would take its shards from the survivors: the cluster's close alone leaves them.
  const model = await codedModel(data.modelPath, { cluster, parity: 1, layers: 'all', onLoss: 'fail' });
  const picture = round % data.count;
  const ask = (of: number) => model.run(data.inputs(of), { deadlineMs: DEADLINE_MS });
  const warmUp = async () => {
    let ms = 0;
    for (let i = 0; i < WARM_UP; i++) ms = (await ask((picture + i) % data.count)).report.ms;
    return ms;
  };
  const isExact = (outputs: Tensors) =>
    Object.values(compareOutputs(outputs, expected(picture))).every(({ maxRelError }) => maxRelError <= WRONG_ABOVE);

  const healthyMs = await warmUp();
  const before = spentMs();
  const killed = await ask(picture);
  const hooksMs = spentMs() - before;
  plan.requestEnded(kill.request, killed.report);
  await fleet[worker]!.kill(0);
  await untilLost(cluster, worker);
  await warmUp();
  const baseline = await ask(picture);
  return {
    worker,
    hit: plan.outcomes[0]!.hit,
    killMs: killed.report.ms,
    baselineMs: baseline.report.ms,
    healthyMs,
    hooksMs,
    exact: isExact(killed.outputs) && isExact(baseline.outputs),
  };
}

function timed(hooks: DispatchHooks): { hooks: DispatchHooks; spentMs: () => number } {
  let spent = 0;
  const time = (work: () => void) => {
    const start = systemClock.now();
    work();
    spent += systemClock.now() - start;
  };
  return {
    hooks: {
      beforeSend: call => time(() => hooks.beforeSend?.(call)),
      afterWrite: call => time(() => hooks.afterWrite?.(call)),
    },
    spentMs: () => spent,
  };
}

async function untilLost(cluster: Cluster, worker: number): Promise<void> {
  using scope = openScope(systemClock, { deadlineMs: DEADLINE_MS, what: `loss of worker ${worker}` });
  while (cluster.workers[worker]!.state !== 'lost') {
    throwIfAborted(scope.signal);
    await new Promise(resolve => setImmediate(resolve));
  }
}

/** What ONNX Runtime gives for the pictures of all rounds. */
async function expectedOutputs(): Promise<Tensors[]> {
  await using reference = await Reference.open(data.modelPath);
  const outputs: Tensors[] = [];
  for (let picture = 0; picture < Math.min(kills, data.count); picture++) {
    outputs.push(await reference.run(data.inputs(picture)));
  }
  return outputs;
}

function report(): void {
  const hits = rounds.filter(({ hit }) => hit);
  const kill = hits.map(({ killMs }) => killMs);
  const baseline = hits.map(({ baselineMs }) => baselineMs);
  const value = percentile(kill, 50);
  const base = percentile(baseline, 50);
  const ratio = value === null || base === null ? null : value / base;
  const exact = rounds.filter(round => round.exact).length;
  const complete = rounds.length === kills && hits.length === kills;
  const holds = ratio !== null && ratio <= RATIO_TARGET && exact === kills && complete;
  const figures = {
    name: 'kill',
    value: roundMs(value),
    baseline: roundMs(base),
    ratio: roundMs(ratio),
    target: RATIO_TARGET,
    holds,
    spread: { value: quartiles(kill), baseline: quartiles(baseline), ratio95: ratioInterval(kill, baseline) },
    kills: rounds.length,
    hits: hits.length,
    exact,
    healthyMs: roundMs(
      percentile(
        hits.map(({ healthyMs }) => healthyMs),
        50,
      ),
    ),
    hooksMs: roundMs(
      percentile(
        hits.map(({ hooksMs }) => hooksMs),
        50,
      ),
    ),
  };
  if (flags.json) console.log(JSON.stringify(figures));
  else {
    const range = (of: readonly (number | null)[]) => of.map(ms => ms?.toFixed(2) ?? '–').join(' … ');
    const { spread } = figures;
    console.log('| request | median, ms | middle half, ms |\n|---|---|---|');
    console.log(`| its worker is killed | ${range([value])} | ${range(spread.value)} |`);
    console.log(`| worker absent (baseline) | ${range([base])} | ${range(spread.baseline)} |`);
    console.log(`| all five alive | ${range([figures.healthyMs])} | |`);
    console.log(`| hooks, of the first | ${range([figures.hooksMs])} | |`);
    console.log(
      `\nratio ${range([ratio])} (95 % ${range(spread.ratio95)}; target ≤ ${RATIO_TARGET.toFixed(2)}), ` +
        `${hits.length} of ${rounds.length} kills hit, ${exact} exact: ${holds ? '✓' : '✗'}`,
    );
  }
  if (flags.check && !holds) process.exitCode = 1;
}

function quartiles(values: readonly number[]): (number | null)[] {
  return [25, 75].map(percent => roundMs(percentile(values, percent)));
}

/** Of the ratio of medians, by resampling rounds (bootstrap, percentile method). */
function ratioInterval(kill: readonly number[], baseline: readonly number[]): (number | null)[] {
  if (kill.length === 0) return [null, null];
  const rng = seededRng(1);
  const ratios = Array.from({ length: RESAMPLES }, () => {
    const drawn = kill.map(() => rng.integer(kill.length));
    return (
      percentile(
        drawn.map(i => kill[i]!),
        50,
      )! /
      percentile(
        drawn.map(i => baseline[i]!),
        50,
      )!
    );
  });
  return [2.5, 97.5].map(percent => roundMs(percentile(ratios, percent)));
}
