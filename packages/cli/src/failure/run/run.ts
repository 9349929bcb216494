/**
 * A run of a config: its cells in turn on one fleet, and after each what is known so far. The map: cells and checks, the fleet, for
 * each repeat every cell (run-repeat.ts), its figures (summarise.ts), the result.
 *
 * Invariants
 * 1. Nothing starts before all cells are known to be possible (checks.ts).
 * 2. Whatever ends it, the result has every request that was measured, and no process, link, namespace or quota is left.
 * 3. Repeats of a cell are apart in time: every cell has had its first before one has its second, and every other round goes
 *    backwards, so that what changes on the machine meanwhile meets all of them alike.
 */
import { availableParallelism, cpus, release, totalmem, type as osType } from 'node:os';
import { KofnError, systemClock } from '@kofn/core';
import { createEngine } from '@kofn/engine';
import { checkCells } from './checks.js';
import type { Cell, Config } from '../config/config.js';
import type { Claim } from '../config/config-schema.js';
import type { BenchFleet, DeviceSetup } from '../fleet/fleet.js';
import { LocalFleet } from '../fleet/local-fleet.js';
import { RemoteFleet } from '../fleet/remote-fleet.js';
import { RESULT_SCHEMA, type CellResult, type RunResult } from '../result/result.js';
import { runRepeat, type Repeat } from './run-repeat.js';
import { answeredOf, ratios } from '../result/statistics.js';
import type { Strategy } from './strategies.js';
import { summarise, withRatios } from './summarise.js';
import { openWorkload, type OpenWorkload } from './workload.js';

export interface RunOptions {
  readonly config: Config;
  /** Of a real cluster. */
  readonly hosts?: readonly string[] | undefined;
  readonly command: string;
  readonly version: string;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: RunProgress) => void;
  /** A cell, or its next repeat, begins. */
  readonly onCell: (name: string) => void;
}

export interface RunProgress {
  readonly cell: string;
  /** Requests done and to do, over all cells. */
  readonly done: number;
  readonly total: number;
}

interface Planned {
  readonly cell: Cell;
  readonly strategy: Strategy;
  readonly repeats: Repeat[];
}

/**
 * Throws INVALID_ARGUMENT before it starts, later only what is no cell's fault: one that fails is said in the result, and the others
 * go on. An abort ends it early, with what there is.
 */
export async function runBenchmark(options: RunOptions): Promise<RunResult> {
  const { config, hosts, signal, onProgress } = options;
  const strategies = await checkCells(config.cells, hosts);
  const planned = config.cells.map((cell, i): Planned => ({ cell, strategy: strategies[i]!, repeats: [] }));
  const startedAt = new Date().toISOString();
  const start = systemClock.now();
  const total = config.repeats * planned.reduce((sum, { cell }) => sum + cell.requests, 0);
  let done = 0;
  const failedCells: RunResult['failedCells'] = [];
  const workloads = new Map<string, OpenWorkload>();
  try {
    await using fleet = await openFleet(planned, hosts, signal);
    for (let round = 0; round < config.repeats; round++) {
      for (const { cell, strategy, repeats } of round % 2 === 0 ? planned : [...planned].reverse()) {
        signal.throwIfAborted();
        const before = done;
        options.onCell(cell.name);
        const tell = (requests: number) => onProgress({ cell: cell.name, done: before + requests, total });
        tell(0);
        const workload =
          workloads.get(cell.workload.name) ?? (await openWorkload(cell.workload.value, config.seed, signal));
        workloads.set(cell.workload.name, workload);
        const repeat = await runRepeat({
          cell,
          strategy,
          device: deviceOf(cell, strategy),
          workload,
          fleet,
          // The same for every strategy, so that all meet the same faults.
          seed: config.seed * 1000 + round,
          signal,
          onRequest: tell,
        }).catch((cause: unknown) => {
          signal.throwIfAborted();
          const { code, message } = KofnError.from(cause);
          failedCells.push({ name: cell.name, code, message });
        });
        if (repeat !== undefined && repeat.requests.length > 0) repeats.push(repeat);
        done += cell.requests;
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    for (const workload of workloads.values()) await workload[Symbol.asyncDispose]();
  }
  const cells = withRatios(
    planned
      .filter(({ repeats }) => repeats.length > 0)
      .map(({ cell, strategy, repeats }) => ({
        cell,
        result: summarise({ cell, strategy, repeats, planned: config.repeats, seed: config.seed, hosts: hosts ?? [] }),
      })),
  );
  return {
    schema: RESULT_SCHEMA,
    name: config.name,
    description: config.description,
    command: options.command,
    seed: config.seed,
    startedAt,
    seconds: Math.round(systemClock.now() - start) / 1000,
    complete: cells.length === planned.length && cells.every(({ complete }) => complete),
    environment: await environment(options),
    claims: config.claims.map(claim => stated(claim, cells)),
    failedCells,
    cells,
  };
}

function openFleet(
  planned: readonly Planned[],
  hosts: readonly string[] | undefined,
  signal: AbortSignal,
): Promise<BenchFleet> {
  if (hosts !== undefined) return RemoteFleet.open(hosts);
  const count = Math.max(...planned.map(({ strategy }) => strategy.n));
  const namespaces = planned.some(({ cell }) => cell.link.value.rateBy === 'tbf');
  return LocalFleet.open({ count, namespaces, signal });
}

function deviceOf({ device }: Cell, { speed }: Strategy): DeviceSetup {
  if (device === 'native') return { kind: 'native' };
  if ('cpuQuota' in device) return { kind: 'quota', cpus: device.cpuQuota };
  return { kind: 'stated', ...device, gflops: device.gflops * speed };
}

function stated({ what, of, to, why }: Claim, cells: readonly CellResult[]): RunResult['claims'][number] {
  const [value, baseline] = [of, to].map(name => cells.find(cell => cell.name === name));
  const text = `${what} of "${of}" over that of "${to}"`;
  if (value === undefined || baseline === undefined) return { what: text, estimate: null, why };
  if (what !== 'busy') return { what: text, estimate: ratios(answeredOf(value), answeredOf(baseline))[what], why };
  const ratio = value.busyMsPerRequest / baseline.busyMsPerRequest;
  return { what: text, estimate: Number.isFinite(ratio) ? { value: ratio, low: ratio, high: ratio } : null, why };
}

async function environment({ version, hosts = [] }: RunOptions): Promise<RunResult['environment']> {
  await using engine = await createEngine('auto');
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    os: `${osType()} ${release()}`,
    node: process.version,
    kofn: version,
    engine: `${engine.name} ${engine.version}`,
    hosts: [...hosts],
  };
}
