/** A drawn RunResult that looks like a real one: what the report and the comparison are tested on. The same options draw the same. */
import { seededRng, type Rng } from '@kofn/core';
import { RESULT_SCHEMA, type CellResult, type FaultResult, type RunResult } from '../../src/failure/result/result.js';
import { answeredOf, estimateOf, latency, ratioOf, ratios } from '../../src/failure/result/statistics.js';

export interface Drawn {
  readonly seed?: number;
  readonly requests?: number;
  readonly repeats?: number;
  readonly links?: readonly string[];
  readonly faults?: readonly string[];
  readonly strategies?: readonly string[];
  /** Latency of every request times this. */
  readonly slower?: number;
  /** Estimates and ratios cost most of the time; comparisons do without. */
  readonly bare?: boolean;
}

interface Shape {
  readonly what: string;
  readonly workers: number;
  readonly k: number;
  readonly r: number;
  /** Share of the latency's spread that it still has. */
  readonly spread: number;
  /** How a request fares whose worker is killed: milliseconds more, or lost. */
  readonly onKill: number | 'lost';
}

const SHAPES: Readonly<Record<string, Shape>> = {
  uncoded: { what: 'split in 4, uncoded', workers: 4, k: 4, r: 0, spread: 1, onKill: 'lost' },
  failover: { what: 'split in 4, uncoded, with failover', workers: 4, k: 4, r: 0, spread: 1, onKill: 240 },
  '2mr': { what: 'split in 2, each half on 2 workers', workers: 4, k: 2, r: 2, spread: 0.7, onKill: 4 },
  hedged: { what: 'split in 4, late blocks sent again', workers: 4, k: 4, r: 0, spread: 0.6, onKill: 45 },
  'cdc-r1': { what: 'coded, k = 3 and r = 1', workers: 4, k: 3, r: 1, spread: 0.5, onKill: 2 },
  'cdc-r2': { what: 'coded, k = 2 and r = 2', workers: 4, k: 2, r: 2, spread: 0.35, onKill: 1 },
  'cdc-2mr': { what: 'coded, k = 2 and r = 1, first block twice', workers: 4, k: 2, r: 1, spread: 0.4, onKill: 1 },
};
export const STRATEGIES = Object.keys(SHAPES);

export function drawRun(options: Drawn = {}): RunResult {
  const { seed = 1, links = ['loopback'], faults = ['none', 'kill mid-request'], strategies = STRATEGIES } = options;
  const rng = seededRng(seed);
  const cells = links.flatMap(link =>
    faults.flatMap(fault => {
      const group = strategies.map(strategy => drawCell(rng, { link, fault, strategy, options }));
      return options.bare === true ? group : group.map(cell => withRatios(cell, group));
    }),
  );
  return {
    schema: RESULT_SCHEMA,
    name: 'drawn',
    description: 'Requests one after the other on four workers; none of this was measured.',
    command: 'kofn bench failure drawn.yaml --seed 1',
    seed,
    startedAt: '2026-03-01T12:00:00.000Z',
    seconds: 754.2,
    complete: true,
    environment: {
      cpu: 'Cortex-A72',
      cores: 4,
      memoryBytes: 4e9,
      os: 'Linux 6.1.0 arm64',
      node: 'v20.19.0',
      kofn: '0.1.0',
      engine: 'native, 1 thread',
      hosts: [],
    },
    claims: [
      {
        what: 'p99 of cdc-r1 over failover, killed',
        estimate: { value: 0.31, low: 0.27, high: 0.36 },
        why: 'What coding is for.',
      },
      { what: 'p99.9 of cdc-r1 over 2mr', estimate: null, why: 'Coding does the same with fewer machines.' },
    ],
    failedCells: [],
    cells,
  };
}

function drawCell(
  rng: Rng,
  { link, fault, strategy, options }: { link: string; fault: string; strategy: string; options: Drawn },
): CellResult {
  const { requests = 600, repeats = 2, slower = 1, bare = false } = options;
  const shape = SHAPES[strategy] ?? SHAPES['uncoded']!;
  const kills = fault !== 'none';
  const faults: FaultResult[] = [];
  const samples: CellResult['samples'] = [];
  let lost = 0;
  for (let repeat = 0; repeat < repeats; repeat++) {
    const atMs: number[] = [];
    const ms: (number | null)[] = [];
    let now = 0;
    let stall = 0;
    for (let i = 0; i < requests / repeats; i++) {
      // Stalls last for some requests, so that what follows each other is alike.
      stall = rng.uniform() < 0.01 ? 3 + rng.integer(6) : Math.max(0, stall - 1);
      const spread = 0.12 * rng.normal() + (stall > 0 ? 0.9 * shape.spread * rng.uniform() : 0);
      let value: number | null =
        12 * slower * Math.exp(spread) + (link === 'wifi' ? 4 * -Math.log(1 - rng.uniform()) : 0);
      atMs.push(Math.round(now * 1000) / 1000);
      if (kills && i % 60 === 40) {
        value = shape.onKill === 'lost' ? null : value + shape.onKill * slower;
        const nextAnswerMs = value ?? 180;
        faults.push({
          repeat,
          request: i,
          kind: 'kill',
          workers: [rng.integer(4)],
          atMs: now + 3,
          hit: true,
          nextAnswerMs,
        });
      }
      ms.push(value === null ? null : Math.round(value * 1000) / 1000);
      if (value === null) lost++;
      now += value ?? 180;
    }
    samples.push({ repeat, atMs, ms });
  }
  const groups = answeredOf({ samples });
  const hit = [faults.flatMap(({ request, nextAnswerMs }) => (request < 0 ? [] : [nextAnswerMs!]))];
  const none = { p50: null, p90: null, p99: null, p999: null, max: null };
  const phase = { requests: 0, lost: 0, p50: null, p99: null };
  const answers = faults.map(({ nextAnswerMs }) => nextAnswerMs!).sort((a, b) => a - b);
  return {
    name: `${link} / ${fault} / ${strategy}`,
    strategy,
    what: shape.what,
    fault,
    link,
    workload: 'vgg11',
    device: '40 ms a layer, stated',
    equal: 'workers',
    workers: shape.workers,
    k: shape.k,
    r: shape.r,
    load: { kind: 'closed', everyMs: null },
    seed: 1,
    repeats,
    emulated: [
      'Each worker computes for as long as the stated device would.',
      ...(link === 'wifi' ? ['The link is a proxy with the delays of a stated distribution.'] : []),
    ],
    complete: true,
    requests,
    answered: requests - lost,
    lost,
    wrong: 0,
    recovered: { lost: shape.r > 0 ? faults.length : 0, late: shape.r * 7 },
    computedHere: 0,
    resent: strategy === 'hedged' ? faults.length * 2 : 0,
    latencyMs: bare ? none : latency(groups),
    phases: {
      healthy: { ...phase, requests: 40, p50: bare ? null : estimateOf(groups, 50) },
      hit: { ...phase, requests: faults.length, lost },
      degraded: phase,
    },
    addedLatency: bare ? null : ratioOf(hit, groups, 50),
    faults,
    faultToAnswerMs: kills
      ? { p50: answers[answers.length >> 1] ?? null, max: answers.at(-1) ?? null, unanswered: 0 }
      : null,
    bytesPerRequest: { sent: 61_000 + 9_000 * shape.r, received: 40_100 + 9_000 * shape.r },
    cpuMsPerRequest: 31.2 + 6 * shape.r,
    deviceMsPerRequest: 160 + 40 * shape.r,
    busyMsPerRequest: 160 + 40 * shape.r,
    ratios: { uncoded: null, replication: null },
    failures: lost > 0 ? [{ code: 'UNAVAILABLE', count: lost, message: 'worker 2: the connection broke' }] : [],
    arrivals: null,
    samples,
  };
}

function withRatios(cell: CellResult, group: readonly CellResult[]): CellResult {
  const over = (strategy: string) => {
    const baseline = group.find(each => each.strategy === strategy);
    if (baseline === undefined || baseline === cell) return null;
    const busy = cell.busyMsPerRequest / baseline.busyMsPerRequest;
    return { cell: baseline.name, busy, ...ratios(answeredOf(cell), answeredOf(baseline)) };
  };
  return { ...cell, ratios: { uncoded: over('uncoded'), replication: over('2mr') } };
}
