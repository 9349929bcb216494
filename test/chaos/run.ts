/**
 * Requests through a master and six real workers, one a spare, while one of them after another fails: paused, behind a link that is slow,
 * silent or broken, killed and started again, lost for good with another in its place, back without its disk and with no room on the new
 * one, or wrong in what it computes. Now and then the master's own event loop stands still. Everything is drawn from one seed. Checked:
 * every request is answered by its deadline with the uncoded model's answer, from workers alone; the master gives up no worker that is
 * sound, puts none aside that is honest, uses each again that comes back, and has the model whole again after each fault; nothing piles up,
 * and nothing is left.
 *
 * The parts: faults.ts (what goes wrong), disturb.ts (when), fleet.ts (to what; its links are kofn/measure's), load.ts (the requests),
 * resources.ts (what processes hold). All processes end with the run.
 */
import { seededRng, type Tensors } from '@kofn/core';
import { codedModel, connect } from 'kofn';
import { loadDemoData, percentile, Reference, roundMs, type DemoData } from 'kofn/measure';
import { Disturbance } from './disturb.js';
import { drawFaults, KINDS, type FaultKind } from './faults.js';
import { BLOCKS, Fleet, PARITY } from './fleet.js';
import { Load } from './load.js';
import { leftSince, openResources, openSockets, Resources, type Growth } from './resources.js';

const PICTURES = 40;
const SAMPLE_EVERY_MS = 250;
const FAILURES = 10;
/** Some faults are over before, some are not. */
const HEAL_AFTER_MS = 2_000;

export interface ChaosResult {
  readonly seed: number;
  readonly requests: number;
  readonly lost: number;
  readonly wrong: number;
  /** Ended after their deadline. */
  readonly late: number;
  readonly faults: Readonly<Partial<Record<FaultKind, number>>>;
  /** Times that the master gave a faulty worker up, and connected to it again. */
  readonly losses: number;
  /** Times that the master gave up a worker which nothing was wrong with. */
  readonly falseAlarms: number;
  /** Times that the master's event loop stood still. */
  readonly blocks: number;
  /** Workers that the master did not use again after their fault. */
  readonly unhealed: number;
  /** Blocks that were moved to another worker, or put again to one that had lost them. */
  readonly healed: number;
  /** Replies that an honest worker was blamed for. */
  readonly misjudged: number;
  /** How many workers the model could lose at the end: PARITY when it is whole. */
  readonly margin: number;
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  readonly maxMs: number | null;
  readonly seconds: number;
  readonly growth: readonly Growth[];
  /**
   * Sockets that a process has at the end of the load and had not at its beginning, and what this process has open after the
   * cluster and the workers are closed and had not before.
   */
  readonly left: readonly string[];
  /** The first failures, in words. */
  readonly failures: readonly string[];
  readonly holds: boolean;
}

export interface ChaosOptions {
  /** At least so many; more while a worker comes back. */
  readonly requests: number;
  readonly seed: number;
  /** Default: all. With fewer the run is too short to tell growth. */
  readonly kinds?: readonly FaultKind[];
  readonly onProgress?: (about: { faults: number; of: number; fault: string; requests: number; lost: number }) => void;
}

export async function runChaos(options: ChaosOptions): Promise<ChaosResult> {
  const start = performance.now();
  const data = await loadDemoData();
  const expected = await expectedOutputs(data);
  const before = openResources();
  const result = await disturbed(data, expected, options);
  const left = [...result.left, ...(await leftSince(before, openResources))];
  const { lost, wrong, late, unhealed, falseAlarms, misjudged, margin, growth } = result;
  return {
    ...result,
    seconds: Math.round((performance.now() - start) / 1000),
    left,
    holds:
      lost + wrong + late + unhealed + falseAlarms + misjudged + left.length === 0 &&
      margin === PARITY &&
      result.requests >= options.requests &&
      growth.every(({ flat }) => flat),
  };
}

async function disturbed(
  data: DemoData,
  expected: readonly Tensors[],
  { requests, seed, kinds = KINDS, onProgress }: ChaosOptions,
): Promise<Omit<ChaosResult, 'seconds' | 'holds'>> {
  await using fleet = await Fleet.start();
  await using cluster = await connect({ workers: fleet.addresses, healAfterMs: HEAL_AFTER_MS });
  const model = await codedModel(data.modelPath, {
    cluster,
    workers: Array.from({ length: BLOCKS }, (_, block) => block),
    parity: PARITY,
    layers: 'all',
    onLoss: 'fail', // no block is computed here: what is answered, four workers of five have answered
    verify: 'fingerprint',
  });
  const sockets = openSockets(fleet.pids());
  using disturbance = new Disturbance(cluster, model, fleet);
  const faults = drawFaults(seededRng(seed), requests, BLOCKS, kinds);
  const resources = new Resources();
  const load = new Load({
    ...{ model, expected, inputs: data.inputs },
    situation: () => disturbance.current,
    onEnded: ended => {
      resources.sample(SAMPLE_EVERY_MS, () => fleet.pids());
      const { begun, current: fault } = disturbance;
      onProgress?.({ faults: begun, of: faults.length, fault, requests: ended, lost: load.lost });
    },
  });
  try {
    await disturbance.run(faults, load);
    if (load.ended < requests) await load.passed(requests - load.ended, 1000 * requests);
  } finally {
    await load.stop();
  }
  const { times, lost, wrong, late, blocks, ended } = load;
  const { counts, losses, falseAlarms, unhealed, healed, misjudged, margin } = disturbance;
  return {
    ...{ seed, requests: ended, lost, wrong, late, faults: counts, losses, falseAlarms, blocks, unhealed },
    ...{ healed, misjudged, margin },
    p50Ms: roundMs(percentile(times, 50)),
    p99Ms: roundMs(percentile(times, 99)),
    maxMs: roundMs(percentile(times, 100)),
    // A quarter of some faults is one: a process that is gone in it takes its sockets along, and seems to grow when it is back.
    growth: kinds.length < KINDS.length ? [] : resources.growth(),
    left: await leftSince(sockets, () => openSockets(fleet.pids())),
    failures: [...load.failures, ...disturbance.failures].slice(0, FAILURES),
  };
}

export async function expectedOutputs({ modelPath, inputs }: DemoData): Promise<Tensors[]> {
  await using reference = await Reference.open(modelPath);
  const outputs: Tensors[] = [];
  for (let picture = 0; picture < PICTURES; picture++) outputs.push(await reference.run(inputs(picture)));
  return outputs;
}
