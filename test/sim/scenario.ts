/** What one seed is about, drawn before anything runs: the cluster, the model, the requests, the faults. */
import type { Float32Tensor } from '@kofn/core';
import type { CodeOptions } from '@kofn/master';
import { drawFaults, type ScheduledFault } from './faults.js';
import type { MachineLimits } from './machine.js';
import { drawModel, type DrawnModel } from './models.js';
import { between, pick, some, type Streams } from './streams.js';

export interface DrawnRequest {
  readonly atMs: number;
  readonly input: Float32Tensor;
  readonly deadlineMs: number;
  /** So long after its start its caller cancels it. */
  readonly cancelAfterMs: number | undefined;
}

export interface Scenario {
  /** Whether at most as many workers are afflicted as the code covers. */
  readonly kind: 'within' | 'beyond';
  readonly workers: number;
  readonly parity: number;
  readonly code: NonNullable<CodeOptions['code']>;
  readonly onLoss: 'local' | 'fail';
  readonly systematicGraceMs: number;
  readonly afflicted: readonly number[];
  readonly limits: readonly MachineLimits[];
  readonly model: DrawnModel;
  readonly requests: readonly DrawnRequest[];
  readonly updateAtMs: number | undefined;
  readonly faults: readonly ScheduledFault[];
  /** Whether the faults begin before the model is deployed. */
  readonly faultsFirst: boolean;
}

export const USUAL_DEADLINE_MS = 60_000;
const SESSION_BYTES = 2 * 2 ** 20;

export function drawScenario(streams: Streams): Scenario {
  const rng = streams('scenario');
  const kind = rng.integer(3) === 0 ? 'beyond' : 'within';
  const workers = 2 + rng.integer(5);
  const parity = 1 + rng.integer(Math.min(3, workers - 1));
  const code = pick(
    rng,
    parity === 1 ? (['sum', 'rotation', 'replication'] as const) : (['rotation', 'replication'] as const),
  );
  const numbers = Array.from({ length: workers }, (_, index) => index);
  const afflicted = some(rng, numbers, kind === 'within' ? parity : parity + 1 + rng.integer(workers - parity));
  const spanMs = 10 ** between(rng, 1, 3.5);
  const model = drawModel(streams('model'), workers);
  return {
    kind,
    workers,
    parity,
    code,
    onLoss: pick(rng, ['local', 'fail'] as const),
    systematicGraceMs: pick(rng, [0, 0, 3]),
    afflicted,
    limits: numbers.map(() => ({
      memoryBytes: (1 + rng.integer(4)) * (SESSION_BYTES + 2 ** 16),
      diskBytes: 2 ** 24,
      maxQueue: 64,
      macsPerMs: 10 ** between(rng, 1.5, 4),
    })),
    model,
    requests: drawRequests(streams, model, spanMs),
    updateAtMs: rng.integer(4) === 0 ? between(rng, 0, spanMs) : undefined,
    faults: drawFaults(streams('faults'), afflicted, spanMs),
    faultsFirst: kind === 'beyond' && rng.integer(3) === 0,
  };
}

function drawRequests(streams: Streams, model: DrawnModel, spanMs: number): DrawnRequest[] {
  const rng = streams('requests');
  return Array.from({ length: 3 + rng.integer(10) }, () => {
    const input = model.input(rng);
    if (rng.integer(15) === 0) input.data[rng.integer(input.data.length)] = pick(rng, [NaN, Infinity]);
    return {
      atMs: between(rng, 0, spanMs),
      input,
      deadlineMs: rng.integer(4) === 0 ? 10 ** between(rng, 0, 2.5) : USUAL_DEADLINE_MS,
      cancelAfterMs: rng.integer(8) === 0 ? 10 ** between(rng, -1, 2) : undefined,
    };
  });
}

/** In one line. */
export function describeScenario(scenario: Scenario): string {
  const { kind, workers, parity, code, onLoss, afflicted, model, requests, faults } = scenario;
  return (
    `${kind} r: ${workers} workers, parity ${parity} (${code}), onLoss ${onLoss}, ${model.what}, ` +
    `${requests.length} requests, ${faults.length} faults at workers ${afflicted.join(', ')}`
  );
}
