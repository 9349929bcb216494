/** One pass of the demonstration over the pictures, with five workers of its own, one of which is killed on the way. */
import { systemClock, type Tensors } from '@kofn/core';
import type { CodeName } from '@kofn/encoder';
import type { Fleet, OnLoss } from '@kofn/master';
import { compareOutputs } from '../answers/compare.js';
import { argmax, type DemoData } from './demo-data.js';
import type { KillOutcome } from '../workers/kill-plan.js';
import { openProgress } from '../terminal/progress.js';
import { formatMs } from '../terminal/render.js';
import { runRequests } from '../answers/requests.js';
import { Workers } from '../workers/session.js';
import { jsonNumber, Tally } from '../answers/tally.js';

export const DEMO_WORKERS = 5;
export const KILLED_WORKER = 2;

/** What one pass tells, as it stands in the JSON object. Latencies are those of answered requests. */
export interface DemoFigures {
  readonly k: number;
  readonly r: number;
  readonly code: CodeName;
  readonly requests: number;
  readonly lost: number;
  /** Answers with a logit that is off by more than is allowed (compare.ts): at most 1e-4 of the largest. */
  readonly wrong: number;
  /** Right classes among all requests: a lost request is not right. */
  readonly accuracy: number;
  readonly recovered: { readonly lost: number; readonly late: number };
  readonly maxRelError: number | string | null;
  readonly p50Ms: BeforeAfter;
  readonly p99Ms: BeforeAfter;
  /** The request that the killed worker held; null when it was lost. */
  readonly killedRequestMs: number | null;
  readonly kill: Pick<KillOutcome, 'worker' | 'request' | 'hit'>;
  /** From the first request to the last. */
  readonly seconds: number;
  /** Why the first lost request was lost. */
  readonly firstFailure: string | null;
}

/** Without the killed request itself; null when there are none. */
export interface BeforeAfter {
  readonly before: number | null;
  readonly after: number | null;
}

export interface PassOptions {
  readonly label: string;
  readonly parity: 0 | 1;
  readonly onLoss: OnLoss;
  readonly requests: number;
  readonly data: DemoData;
  /** Logits of the uncoded model, by picture. */
  readonly expected: readonly Tensors[];
  readonly signal: AbortSignal;
}

export async function demoPass(options: PassOptions): Promise<DemoFigures> {
  const { label, parity, onLoss, requests, data, expected, signal } = options;
  const killAt = Math.floor(requests / 3);
  const kill = { worker: KILLED_WORKER, request: killAt };
  await using workers = await Workers.open({ local: DEMO_WORKERS, engine: 'auto', threads: 1 }, [kill], signal);
  await using model = await workers.deploy(data.modelPath, { parity, onLoss, layers: 'all', signal });
  const tally = new Tally(requests);
  let right = 0;
  const start = systemClock.now();
  {
    const shown = () => ({
      p50: formatMs(tally.recentP50Ms()),
      lost: String(tally.failures.length),
      workers: lamps(workers.cluster.workers),
    });
    const format = ` ${label} {bar} {value}/{total} | p50 {p50} ms | lost {lost} | workers {workers}`;
    using progress = openProgress(format, requests, shown());
    for await (const outcome of runRequests(model, {
      count: requests,
      inputs: data.inputs,
      signal,
      kills: workers.kills,
    })) {
      const { request } = outcome;
      if ('error' in outcome) tally.failed(request, outcome.error);
      else {
        const { outputs, report } = outcome.result;
        tally.answered(report, request);
        tally.compare(compareOutputs(outputs, expected[request]!));
        if (argmax(outputs['logits']!) === data.label(request)) right++;
      }
      progress.update(request + 1, shown);
    }
  }
  const [{ hit } = { hit: false }] = workers.kills.outcomes;
  const coded = model.plan.layers.find(layer => layer.coded !== undefined)!.coded!;
  const split = (percent: number): BeforeAfter => ({
    before: tally.ms(percent, request => request < killAt),
    after: tally.ms(percent, request => request > killAt),
  });
  return {
    k: coded.k,
    r: coded.r,
    code: coded.code,
    requests,
    lost: tally.lost,
    wrong: tally.wrong,
    accuracy: right / requests,
    recovered: tally.recovered,
    maxRelError: jsonNumber(tally.maxRelError),
    p50Ms: split(50),
    p99Ms: split(99),
    killedRequestMs: tally.msOf(killAt),
    kill: { ...kill, hit },
    seconds: Math.round(systemClock.now() - start) / 1000,
    firstFailure: tally.failures[0]?.message ?? null,
  };
}

/** A lamp for each worker: lit while it is connected. */
function lamps(fleet: Fleet): string {
  return fleet.map(({ state }) => (state === 'ready' ? '●' : '○')).join('');
}
