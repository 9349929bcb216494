/** The figures of a cell (result.ts) from what its repeats brought (run-repeat.ts). */
import type { KofnError } from '@kofn/core';
import { percentile, roundMs } from '../../answers/stats.js';
import type { Cell } from '../config/config.js';
import { deviceName, emulatedIn } from './emulated.js';
import type { CellResult, FaultResult, Ratios } from '../result/result.js';
import type { Phase, Repeat, RequestRecord } from './run-repeat.js';
import { answeredOf, estimateOf, latency, ratioOf, ratios } from '../result/statistics.js';
import type { Strategy } from './strategies.js';

export interface CellRun {
  readonly cell: Cell;
  readonly strategy: Strategy;
  readonly repeats: readonly Repeat[];
  /** Repeats that were to be. */
  readonly planned: number;
  readonly seed: number;
  readonly hosts: readonly string[];
}

/** Without the ratios to other cells: `withRatios` adds them. */
export function summarise({ cell, strategy, repeats, planned, seed, hosts }: CellRun): CellResult {
  const all = repeats.flatMap(({ requests }) => requests);
  const answered = all.filter(({ ms }) => ms !== null);
  const perRequest = (of: (repeat: Repeat) => number) =>
    all.length === 0 ? 0 : repeats.reduce((sum, repeat) => sum + of(repeat), 0) / all.length;
  const sum = (of: (repeat: Repeat) => number) => repeats.reduce((total, repeat) => total + of(repeat), 0);
  const samples = repeats.map(({ requests }, repeat) => ({
    repeat,
    atMs: requests.map(({ atMs }) => roundMs(atMs)!),
    ms: requests.map(({ ms }) => roundMs(ms)),
  }));
  const hit = inPhase(repeats, 'hit');
  const degraded = inPhase(repeats, 'degraded');
  const cpuMs = perRequest(({ usage }) => usage.cpuMs);
  const isStated = typeof cell.device === 'object' && 'gflops' in cell.device;
  const deviceMs = isStated ? perRequest(({ usage }) => usage.busyMs) : null;
  const faults = repeats.flatMap(faultResults);
  return {
    name: cell.name,
    strategy: cell.strategy,
    what: strategy.what,
    fault: cell.fault.name,
    link: hosts.length > 0 ? 'network' : cell.link.name,
    workload: cell.workload.name,
    device: deviceName(cell),
    equal: cell.equal,
    workers: strategy.n,
    k: strategy.k,
    r: strategy.r,
    load: { kind: cell.load.kind, everyMs: cell.load.kind === 'open' ? cell.load.everyMs : null },
    seed,
    repeats: repeats.length,
    emulated: emulatedIn(cell, strategy, hosts),
    complete: repeats.length === planned && repeats.every(({ isComplete }) => isComplete),
    requests: all.length,
    answered: answered.length,
    lost: all.length - answered.length,
    wrong: all.filter(({ isWrong }) => isWrong).length,
    recovered: { lost: sum(({ recovered }) => recovered.lost), late: sum(({ recovered }) => recovered.late) },
    computedHere: sum(({ computedHere }) => computedHere),
    resent: sum(({ resent }) => resent),
    latencyMs: latency(answeredOf({ samples })),
    phases: { healthy: phaseOf(inPhase(repeats, 'healthy')), hit: phaseOf(hit), degraded: phaseOf(degraded) },
    addedLatency: ratioOf(timesOf(hit), timesOf(degraded), 50),
    faults,
    faultToAnswerMs: toAnswer(faults),
    bytesPerRequest: {
      sent: Math.round(perRequest(({ traffic }) => traffic.sent)),
      received: Math.round(perRequest(({ traffic }) => traffic.received)),
    },
    cpuMsPerRequest: roundMs(cpuMs)!,
    deviceMsPerRequest: roundMs(deviceMs),
    busyMsPerRequest: roundMs(deviceMs ?? cpuMs)!,
    ratios: { uncoded: null, replication: null },
    failures: failuresOf(repeats.flatMap(({ failures }) => failures)),
    arrivals: cell.arrivals
      ? {
          worker: repeats.flatMap(({ arrivals }) => arrivals.map(({ worker }) => worker)),
          ms: repeats.flatMap(({ arrivals }) => arrivals.map(({ ms }) => roundMs(ms)!)),
        }
      : null,
    samples,
  };
}

/** Each result with its ratios to the uncoded and the replicated cell at equal cost, where the run has those. */
export function withRatios(runs: readonly { readonly cell: Cell; readonly result: CellResult }[]): CellResult[] {
  const costOf = ({ fault, link, workload, equal, workers, load, device, requests }: Cell) =>
    JSON.stringify([fault.name, link.name, workload.name, equal, workers, load, device, requests]);
  return runs.map(({ cell, result }) => {
    const to = (strategy: string): Ratios | null => {
      const baseline = runs.find(
        other => other.cell.strategy === strategy && costOf(other.cell) === costOf(cell),
      )?.result;
      if (baseline === undefined || baseline === result) return null;
      const busy = baseline.busyMsPerRequest > 0 ? roundMs(result.busyMsPerRequest / baseline.busyMsPerRequest) : null;
      return { cell: baseline.name, ...ratios(answeredOf(result), answeredOf(baseline)), busy };
    };
    return { ...result, ratios: { uncoded: to('uncoded'), replication: to('2mr') } };
  });
}

function inPhase(repeats: readonly Repeat[], phase: Phase): RequestRecord[][] {
  return repeats.map(({ requests }) => requests.filter(record => record.phase === phase));
}

function timesOf(repeats: readonly (readonly RequestRecord[])[]): number[][] {
  return repeats.map(records => records.flatMap(({ ms }) => (ms === null ? [] : [ms])));
}

function phaseOf(repeats: readonly (readonly RequestRecord[])[]): CellResult['phases']['healthy'] {
  const records = repeats.flat();
  const times = timesOf(repeats);
  return {
    requests: records.length,
    lost: records.filter(({ ms }) => ms === null).length,
    p50: estimateOf(times, 50),
    p99: estimateOf(times, 99),
  };
}

function faultResults({ faults, requests }: Repeat, repeat: number): FaultResult[] {
  const answers = requests.flatMap(({ atMs, ms }) => (ms === null ? [] : [atMs + ms])).sort((a, b) => a - b);
  return faults.map(({ event, atMs, hit }) => {
    const next = answers.find(at => at > atMs);
    return {
      repeat,
      request: event.request,
      kind: event.kind,
      workers: [...event.workers],
      atMs: roundMs(atMs)!,
      hit,
      nextAnswerMs: next === undefined ? null : roundMs(next - atMs),
    };
  });
}

function toAnswer(faults: readonly FaultResult[]): CellResult['faultToAnswerMs'] {
  if (faults.length === 0) return null;
  const answered = faults.flatMap(({ nextAnswerMs }) => (nextAnswerMs === null ? [] : [nextAnswerMs]));
  const at = (percent: number) => roundMs(percentile(answered, percent));
  return { p50: at(50), max: at(100), unanswered: faults.length - answered.length };
}

function failuresOf(errors: readonly KofnError[]): CellResult['failures'] {
  const codes = [...new Set(errors.map(({ code }) => code))];
  return codes.map(code => {
    const alike = errors.filter(error => error.code === code);
    return { code, count: alike.length, message: alike[0]!.message };
  });
}
