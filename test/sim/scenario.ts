/**
 * What one seed is about, drawn before anything runs: the cluster, the model, and phases of requests and faults.
 *
 * Invariant: of kind 'within', at any moment at most as many workers are afflicted as the code (without parity: the hedge) covers. What a fault did may
 * last (a process that is gone, a damaged disk), so that worker stays among the afflicted; all else is over when the next
 * phase begins, connected again included.
 */
import type { Float32Tensor, Rng } from '@kofn/core';
import type { CodeOptions, ModelOptions, OnLoss } from '@kofn/master';
import { drawFaults, drawSpareFaults, isDeadly, isLasting, type Fault, type ScheduledFault } from './faults.js';
import { drawLies } from './lies.js';
import type { MachineLimits } from './machine.js';
import { drawModel, type DrawnModel } from './models.js';
import { drawRestarts, type Restart } from './restarts.js';
import { between, pick, some, type Streams } from './streams.js';

export interface DrawnRequest {
  readonly atMs: number;
  readonly input: Float32Tensor;
  readonly deadlineMs: number;
  /** So long after its start its caller cancels it. */
  readonly cancelAfterMs: number | undefined;
}

export interface Phase {
  /** How long nothing happens before it. */
  readonly idleMs: number;
  readonly afflicted: readonly number[];
  readonly requests: readonly DrawnRequest[];
  readonly updateAtMs: number | undefined;
  readonly faults: readonly ScheduledFault[];
  /** What befalls spares when it is over. */
  readonly spareFaults: readonly ScheduledFault[];
  /** The master dies, and another begins in its place. */
  readonly restart: Restart | undefined;
  /** Before the requests are all over the caller closes this; only in the last phase. */
  readonly close: { readonly atMs: number; readonly what: 'model' | 'cluster' } | undefined;
}

export interface Scenario {
  /** Whether at most as many workers are afflicted as the code covers. */
  readonly kind: 'within' | 'beyond';
  readonly workers: number;
  /** Machines of the cluster beside those that the model is given. */
  readonly spares: number;
  /** Whether the same model is deployed a second time, under another name, and closed again. */
  readonly hasTwin: boolean;
  readonly healAfterMs: number;
  /** With spares: how long after the last phase all is to be whole again. */
  readonly settleMs: number;
  readonly parity: number;
  readonly code: NonNullable<CodeOptions['code']>;
  readonly onLoss: OnLoss;
  readonly systematicGraceMs: number;
  readonly hedge: CodeOptions['hedge'];
  readonly segments: NonNullable<ModelOptions['segments']>;
  readonly verify: NonNullable<CodeOptions['verify']>;
  readonly limits: readonly MachineLimits[];
  readonly model: DrawnModel;
  readonly phases: readonly Phase[];
  /** As the master is told; longer where days pass, so that fewer questions do. */
  readonly silenceMs: number;
  /** Whether the faults begin before the model is deployed. */
  readonly faultsFirst: boolean;
}

/** The part of a millisecond by which a hedge's timer is told from others: of a canary. */
export const HEDGE_MARK = 0.125;
export const USUAL_DEADLINE_MS = 60_000;
const SESSION_BYTES = 2 * 2 ** 20;
/** Longer than a worker is left alone for, or connected to again in. */
const IDLE_MS = 90_000;
/** Longer than the slowest run that a slow machine leaves behind. */
const SLOW_IDLE_MS = 20 * 60_000;
/**
 * Longer than a lease: shards are still there only if the master renewed its claims. Only while no process is gone for good:
 * connecting to that would be most of what happens.
 */
const LONG_IDLE_MS = 30 * 3_600_000;

/** What a seed is about; `other` takes the place of each fault that it draws. */
export function drawScenario(streams: Streams, other: (drawn: Fault) => Fault = drawn => drawn): Scenario {
  return withFaults(drawAll(streams), other);
}

function drawAll(streams: Streams): Scenario {
  const rng = streams('scenario');
  const kind = rng.integer(3) === 0 ? 'beyond' : 'within';
  const workers = 2 + rng.integer(5);
  const drawnParity = 1 + rng.integer(Math.min(3, workers - 1));
  const drawnCode = pick(
    rng,
    drawnParity === 1 ? (['sum', 'rotation', 'replication'] as const) : (['rotation', 'replication'] as const),
  );
  const { spares, healAfterMs } = drawSpares(streams('more machines'));
  const { hedge, segments, isUncoded } = drawHelp(streams('help'));
  const [parity, code] = isUncoded ? ([0, 'uncoded'] as const) : [drawnParity, drawnCode];
  const covered = isUncoded ? 1 : parity; // each block has two holders
  const numbers = Array.from({ length: workers }, (_, index) => index);
  const model = drawModel(streams('model'), workers);
  const drawn =
    kind === 'within'
      ? drawPhases(streams, model, { workers: numbers, covered, spares })
      : [
          drawPhase(streams, model, {
            before: [],
            number: 0,
            isLast: true,
            afflicted: some(rng, numbers, covered + 1 + rng.integer(workers - covered)),
          }),
        ];
  const settleMs = shortIdle(drawn);
  const silenceMs = drawSilence(rng, Math.max(spares > 0 ? settleMs : 0, ...drawn.map(phase => phase.idleMs)));
  const quiet = drawn.map(phase => ({ ...phase, idleMs: longEnough(phase.idleMs, silenceMs) }));
  const { verify, phases: lying } = drawLies(streams, quiet, segments);
  const machineRng = streams('machines of spares');
  const limitsFrom = (own: Rng) => ({
    memoryBytes: (1 + own.integer(4)) * (SESSION_BYTES + 2 ** 16),
    diskBytes: 2 ** 24,
    maxQueue: 64,
    macsPerMs: 10 ** between(own, 1.5, 4),
  });
  const onLoss = pick(rng, ['local', 'resend', 'fail'] as const);
  const systematicGraceMs = pick(rng, [0, 0, 3]);
  const limits = numbers.map(() => limitsFrom(rng));
  const faultsFirst = kind === 'beyond' && rng.integer(3) === 0;
  const restarting = faultsFirst ? lying : drawRestarts(streams('restarts'), lying, { workers, spares });
  const phases = restarting.map((phase, number) => ({
    ...phase,
    spareFaults: drawSpareFaults(
      streams(`spares ${number}`),
      Array.from({ length: spares }, (_, spare) => workers + spare),
    ),
  }));
  const machines = Math.max(workers + spares, ...phases.map(({ restart }) => restart?.machines ?? 0));
  while (limits.length < machines) limits.push(limitsFrom(machineRng));
  return {
    kind,
    workers,
    spares,
    hasTwin: !faultsFirst && streams('twin').integer(6) === 0,
    healAfterMs,
    settleMs: longEnough(settleMs, silenceMs),
    parity,
    code,
    onLoss,
    systematicGraceMs,
    hedge,
    segments,
    verify,
    limits,
    model,
    phases,
    silenceMs,
    faultsFirst,
  };
}

/** Who is asked beside a layer's own workers and the master. From a stream of its own: other seeds are what they were without it. */
function drawHelp(rng: Rng): Pick<Scenario, 'hedge' | 'segments'> & { readonly isUncoded: boolean } {
  const afterMs = Math.floor(10 ** between(rng, 0, 2.5)) + HEDGE_MARK;
  const hedge = rng.integer(5) < 3 ? undefined : pick(rng, ['p95', afterMs, afterMs] as const);
  // A hedge after a fixed time covers one worker without any parity; p95 would first have to learn the times.
  const isUncoded = typeof hedge === 'number' && rng.integer(2) === 0;
  return { hedge, isUncoded, segments: pick(rng, ['local', 'local', 'replicated'] as const) };
}

/** Most clusters have none: then a worker that is gone for good is an erasure for good. */
function drawSpares(rng: Rng): Pick<Scenario, 'spares' | 'healAfterMs'> {
  return { spares: pick(rng, [0, 0, 0, 1, 1, 2]), healAfterMs: pick(rng, [0, 2_000, 10_000, 10_000]) };
}

/**
 * One to three phases, each with as many afflicted workers as the code covers. What a worker lost is put on a spare by the next phase,
 * as far as there are spares, so that others may be afflicted then.
 */
function drawPhases(
  streams: Streams,
  model: DrawnModel,
  { workers, covered, spares }: { workers: readonly number[]; covered: number; spares: number },
): Phase[] {
  const rng = streams('phases');
  const phases: Phase[] = [];
  const lasting = new Set<number>();
  const gone = new Set<number>();
  let sparesLeft = spares;
  for (let count = 1 + rng.integer(3); phases.length < count;) {
    const others = workers.filter(worker => !lasting.has(worker) && !gone.has(worker));
    const phase = drawPhase(streams, model, {
      before: phases,
      number: phases.length,
      isLast: phases.length === count - 1,
      afflicted: [...lasting, ...some(rng, others, covered - lasting.size)],
    });
    const died = new Set<number>();
    for (const { worker, fault } of phase.faults) {
      if (isDeadly(fault) && !gone.has(worker)) died.add(worker);
      if (isLasting(fault) && (spares === 0 || fault.kind === 'rot')) lasting.add(worker);
    }
    for (const worker of died) {
      gone.add(worker);
      if (died.size > sparesLeft) lasting.add(worker); // which of them finds a place is not promised
    }
    sparesLeft = Math.max(0, sparesLeft - died.size);
    phases.push(phase);
  }
  return phases;
}

function drawPhase(
  streams: Streams,
  model: DrawnModel,
  {
    before,
    number,
    isLast,
    afflicted,
  }: { before: readonly Phase[]; number: number; isLast: boolean; afflicted: readonly number[] },
): Phase {
  const rng = streams(`phase ${number}`);
  const spanMs = 10 ** between(rng, 1, 3.5);
  return {
    idleMs: drawIdle(rng, before),
    afflicted,
    requests: drawRequests(rng, model, spanMs),
    updateAtMs: rng.integer(4) === 0 ? between(rng, 0, spanMs) : undefined,
    faults: drawFaults(rng, afflicted, spanMs),
    spareFaults: [],
    restart: undefined,
    close:
      isLast && rng.integer(5) === 0
        ? { atMs: between(rng, 0, spanMs), what: pick(rng, ['model', 'cluster'] as const) }
        : undefined,
  };
}

function drawIdle(rng: Rng, before: readonly Phase[]): number {
  if (before.length === 0) return 0;
  const isLong = rng.integer(6) === 0 && !before.some(phase => phase.faults.some(({ fault }) => isDeadly(fault)));
  if (isLong) return LONG_IDLE_MS;
  return shortIdle(before);
}

/** As long as what the last phase leaves behind may take. */
function shortIdle(phases: readonly Phase[]): number {
  return phases.at(-1)!.faults.some(({ fault }) => fault.kind === 'slow') ? SLOW_IDLE_MS : IDLE_MS;
}

/** Most of what happens in a seed is questions to workers that nothing happens to. */
function drawSilence(rng: Rng, longestIdleMs: number): number {
  const usual = pick(rng, [1_000, 2_000, 2_000]);
  if (longestIdleMs === LONG_IDLE_MS) return 2 * 3_600_000;
  return longestIdleMs === SLOW_IDLE_MS ? 60_000 : usual;
}

/** What is found out by asking takes longer where the master seldom asks. */
function longEnough(idleMs: number, silenceMs: number): number {
  return idleMs === 0 ? 0 : Math.max(idleMs, IDLE_MS + 2 * silenceMs);
}

function drawRequests(rng: Rng, model: DrawnModel, spanMs: number): DrawnRequest[] {
  return Array.from({ length: 2 + rng.integer(8) }, () => {
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

/** `scenario` with other faults at the same workers and times. */
function withFaults(scenario: Scenario, other: (drawn: Fault) => Fault): Scenario {
  const changed = (faults: readonly ScheduledFault[]) => faults.map(each => ({ ...each, fault: other(each.fault) }));
  return { ...scenario, phases: scenario.phases.map(phase => ({ ...phase, faults: changed(phase.faults) })) };
}

/** In one line. */
export function describeScenario(scenario: Scenario): string {
  const { kind, workers, parity, code, onLoss, hedge, segments, verify, model, phases, spares, healAfterMs } = scenario;
  const spare = spares === 0 ? '' : `, ${spares} spares after ${healAfterMs} ms`;
  const check = verify === 'none' ? '' : `, verify ${verify}`;
  const help = `${hedge === undefined ? '' : `, hedge ${hedge}`}${segments === 'local' ? '' : `, segments ${segments}`}${check}`;
  const about = phases.map(
    ({ requests, faults, afflicted, restart }) =>
      `${requests.length} requests and ${faults.length} faults at workers ${afflicted.join(' ')}` +
      (restart === undefined ? '' : `, a master that dies`),
  );
  return `${kind} r: ${workers} workers${spare}, parity ${parity} (${code}), onLoss ${onLoss}${help}, ${model.what}; ${about.join('; ')}`;
}
