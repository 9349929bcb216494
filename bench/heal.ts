/**
 * heal: what requests feel while a lost worker's blocks are made anew and put to a spare. A fully connected layer of
 * 4096 x 4096 on five workers (k = 4, r = 1) and a spare; 50 requests a second, open loop (harness/open-loop.ts). A round kills one of the
 * five, each in its turn, the one with the parity too, and looks at the requests that were due from then until the margin is whole again;
 * its baseline is a round in which nothing is healed, over as many requests after the same death.
 *
 * Every worker has a link of its own, 100 Mbit/s and 0.2 ms each way (an emulation in one process of its own), and its runs take a stated
 * time (worker/src/faults/emulated-device.ts: each input is computed once, then answered from memory and waited out), so that the cores of this
 * machine, which six workers, the links and the master share, are idle for the most part, if nobody else uses them.
 *
 * Not measured: a link that all workers share (there an upload takes its part from the requests), a model whose file is not in the page cache,
 * other models on the cluster.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { abortable, openScope, systemClock } from '@kofn/core';
import { codedModel, connect, startLocalWorkers, type Cluster, type CodedModel, type LocalWorkers } from 'kofn';
import { FaultControl, Links, untilFleet } from 'kofn/measure';
import { figure, type Bench } from './bench.js';
import { writeDenseNetwork } from './harness/dense-network.js';
import { OpenLoop } from './harness/open-loop.js';
import { randomTensors } from './harness/random.js';
import { groupedInterval } from './statistics.js';

const HOLDERS = [0, 1, 2, 3, 4];
const SPARE = 5;
const WIDTHS = [4096, 4096];
const PER_SECOND = 50;
/** Of a run: a worker is busy for one in 20 ms. */
const DEVICE_MS = 4;
/** Gflop/s: the time of a run is then DEVICE_MS, whatever it computes. */
const NO_LIMIT = 1e6;
const LINK = { delayMs: 0.2, megabitsPerSecond: 100 };
/** Each worker is lost four times. */
const ROUNDS = 20;
/** One after another, then at the rate. */
const COLD = 30;
const WARM_UP = 100;
/** Longest wait for a whole margin. */
const HEALED_MS = 60_000;
const P99 = 99;
/** Whoever is late is measured, not refused. */
const MAX_IN_FLIGHT = 4096;
/** A worker that dies is known by its link; none is to be lost because the machine is busy. */
const SILENCE_MS = 30_000;

interface Round {
  /** Of the requests that were due from the death until all is whole, or as many. */
  readonly latencies: readonly number[];
  readonly wholeMs: number;
  /** Bytes of the shards that the spare holds then, and of those that the lost worker held. */
  readonly movedBytes: number;
  readonly lostBytes: number;
}

export const heal: Bench = {
  name: 'heal',
  what: `requests at ${PER_SECOND}/s while what a lost worker held is put to a spare, links of 100 Mbit/s`,
  baseline: 'the same loss, not healed; what the link and the lost shards come to',
  async run({ progress }) {
    const folder = await mkdtemp(path.join(tmpdir(), 'kofn-bench-'));
    try {
      const file = writeDenseNetwork(folder, WIDTHS);
      const extraArgs = ['--allow-faults'];
      await using workers = await startLocalWorkers(SPARE + 1, { dataDir: path.join(folder, 'disks'), extraArgs });
      await using links = await Links.open(workers.addresses.map(address => Number(address.split(':')[1])));
      for (const address of workers.addresses) await slow(address);
      const machines = { file, workers, links };
      const healed: Round[] = [];
      const left: Round[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const lost = HOLDERS[round % HOLDERS.length]!;
        const heals = async () => void healed.push(await oneRound(machines, lost, undefined));
        // As many requests as the last round that healed took: alike but for the machine's own noise.
        const leaves = async () => void left.push(await oneRound(machines, lost, healed.at(-1)!.latencies.length));
        for (const work of round % 2 === 0 ? [heals, leaves] : [leaves, heals]) await work();
        progress(round + 1, ROUNDS);
      }
      return figures(healed, left);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
};

function figures(healed: readonly Round[], left: readonly Round[]) {
  const [value, baseline] = [healed, left].map(rounds => rounds.map(({ latencies }) => latencies));
  const samples = { value: value!.flat(), baseline: baseline!.flat() };
  const latency = figure({ name: 'p99 of requests', unit: 'ms', target: { atMost: 1.5 }, percent: P99 }, samples);
  const megabytes = (bytes: number) => bytes / 1e6;
  const linkMs = (bytes: number) => (8 * bytes) / (1000 * LINK.megabitsPerSecond);
  return [
    { ...latency, spread: { ...latency.spread, ratio95: groupedInterval(value!, baseline!, P99) } },
    figure(
      { name: 'until the margin is whole', unit: 'ms', target: { atMost: 1.5 } },
      {
        value: healed.map(({ wholeMs }) => wholeMs),
        baseline: healed.map(({ lostBytes }) => linkMs(lostBytes)),
      },
    ),
    figure(
      { name: 'moved', unit: 'MB', target: { atMost: 1 } },
      {
        value: healed.map(({ movedBytes }) => megabytes(movedBytes)),
        baseline: healed.map(({ lostBytes }) => megabytes(lostBytes)),
      },
    ),
  ];
}

interface Machines {
  readonly file: string;
  readonly workers: LocalWorkers;
  readonly links: Links;
}

/** Deploys, loads, kills worker `lost`, and starts it again; heals when no number of `requests` is given to look at instead. */
async function oneRound(
  { file, workers, links }: Machines,
  lost: number,
  requests: number | undefined,
): Promise<Round> {
  await links.shape('all', {});
  await using cluster = await connect({
    workers: links.addresses,
    healAfterMs: requests === undefined ? 0 : Infinity,
    silenceMs: SILENCE_MS,
    maxInFlight: MAX_IN_FLIGHT,
  });
  await using model = await codedModel(file, { cluster, workers: HOLDERS, layers: 'all', onLoss: 'fail' });
  await links.shape('all', LINK);
  const lostBytes = await heldBytes(cluster, model, lost);
  const inputs = { x: randomTensors(1)([1, WIDTHS[0]!]) };
  for (let request = 0; request < COLD; request++) await model.run(inputs); // sessions open, and answers are in memory
  const load = new OpenLoop(() => model.run(inputs), PER_SECOND);
  try {
    await load.more(WARM_UP);
    const start = systemClock.now();
    await workers.kill(lost);
    if (requests === undefined) await untilWhole(cluster, model, lost);
    else await load.more(requests);
    const end = systemClock.now();
    await load.stop();
    const after = load.ended.filter(({ dueAt }) => dueAt >= start);
    const meant = requests === undefined ? after.filter(({ dueAt }) => dueAt < end) : after.slice(0, requests);
    return {
      latencies: meant.map(({ ms }) => ms),
      wholeMs: end - start,
      movedBytes: requests === undefined ? await heldBytes(cluster, model, SPARE) : 0,
      lostBytes,
    };
  } finally {
    await load.stop().catch(() => undefined); // said above
    if (workers.pidOf(lost) === undefined) {
      await workers.start(lost);
      await slow(workers.addresses[lost]!);
    }
  }
}

/** Bytes of the model's shards that `worker` has. */
async function heldBytes(cluster: Cluster, model: CodedModel, worker: number): Promise<number> {
  const names = new Set(model.health.layers.flatMap(({ shards }) => shards));
  const { shards } = await cluster.connections[worker]!.ask(client => client.inventory());
  return shards.reduce((sum, { name, bytes }) => sum + (names.has(name) ? bytes : 0), 0);
}

async function untilWhole(cluster: Cluster, model: CodedModel, lost: number): Promise<void> {
  using scope = openScope(systemClock, { deadlineMs: HEALED_MS, what: 'healing' });
  await untilFleet(cluster, fleet => fleet[lost]!.state !== 'ready', scope.signal);
  let stop: () => void = () => undefined;
  const whole = new Promise<void>(resolve => {
    const look = () => {
      if (model.health.margin! > 0) resolve();
    };
    stop = cluster.onEvent(look);
    look();
  });
  await abortable(whole, scope.signal).finally(stop);
}

async function slow(address: string): Promise<void> {
  await using control = await FaultControl.connect(address);
  await control.set({ device: { gflops: NO_LIMIT, overheadMs: DEVICE_MS, replay: true } });
}
