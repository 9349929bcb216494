/**
 * When a fault comes, to whom and for how long: drawn from a seed before the first request, so that the same seed gives the same
 * faults at the same requests whatever the machine, the strategy or the speed. inject.ts carries it out.
 */
import { seededRng, type Rng } from '@kofn/core';
import { OF_MESSAGES, type Fault } from '../config/config-schema.js';

export interface FaultEvent {
  readonly kind: Exclude<Fault['kind'], 'none'>;
  /** Number of the measured request that it comes with. */
  readonly request: number;
  /** Undone before this request; Infinity: never. */
  readonly until: number;
  /** Of those that hold the model. */
  readonly workers: readonly number[];
  /** While the workers hold the request, not before it. */
  readonly midRequest: boolean;
  /** How long the station is silent: a stall, a loss, a pause on a real cluster. */
  readonly ms: number;
  /** Slow: how many times as long a run takes. */
  readonly factor: number;
  readonly seed: number;
}

export interface FaultContext {
  readonly requests: number;
  /** Workers that hold the model. */
  readonly workers: number;
  readonly seed: number;
}

export function planFaults(fault: Fault, context: FaultContext): FaultEvent[] {
  if (fault.kind === 'none') return [];
  const rng = seededRng(context.seed);
  return fault.rate === undefined ? timed(fault, context, rng) : drawn(fault, fault.rate, context, rng);
}

/** At `first`, and then `every` so many requests. */
function timed(fault: Fault, { requests, workers }: FaultContext, rng: Rng): FaultEvent[] {
  const { first = Math.floor(requests / 4), every = requests, times } = fault;
  const ofMessages = OF_MESSAGES.includes(fault.kind);
  // A worker that was restarted is back by itself; that it is used again is waited for after a quarter of the requests.
  const once = fault.kind === 'restart' ? Math.ceil(requests / 4) : Infinity;
  const halfWay = times === 1 ? once : Math.max(1, Math.floor(every / 2));
  const lasts = ofMessages ? 1 : fault.lasts === 'forever' ? Infinity : (fault.lasts ?? halfWay);
  const events: FaultEvent[] = [];
  for (let request = first; request < requests && events.length < times; request += every) {
    events.push(eventOf(fault, { request, until: request + lasts, workers: some(fault.workers, workers, rng) }, rng));
  }
  return events;
}

/** Each request and worker by itself. As many draws whatever comes of them, so that one does not shift the others. */
function drawn(fault: Fault, rate: number, { requests, workers }: FaultContext, rng: Rng): FaultEvent[] {
  const events: FaultEvent[] = [];
  for (let request = 0; request < requests; request++) {
    for (let worker = 0; worker < workers; worker++) {
      const isMet = rng.uniform() < rate;
      const event = eventOf(fault, { request, until: request + 1, workers: [worker] }, rng);
      if (isMet) events.push(event);
    }
  }
  return events;
}

function eventOf(
  { kind, when, minMs, maxMs, rtoMs, pauseMs, factor }: Fault,
  at: Pick<FaultEvent, 'request' | 'until' | 'workers'>,
  rng: Rng,
): FaultEvent {
  const stallMs = minMs + rng.uniform() * (maxMs - minMs);
  return {
    ...at,
    kind: kind as FaultEvent['kind'],
    midRequest: when === 'mid-request' && (kind === 'kill' || kind === 'pause'),
    ms: { stalls: stallMs, loss: rtoMs, pause: pauseMs }[kind as string] ?? 0,
    factor,
    seed: rng.integer(2 ** 32),
  };
}

/** `count` different ones of `workers`, ascending. */
function some(count: number, workers: number, rng: Rng): number[] {
  const left = Array.from({ length: workers }, (_, worker) => worker);
  const taken = Array.from({ length: Math.min(count, workers) }, () => left.splice(rng.integer(left.length), 1)[0]!);
  return taken.sort((a, b) => a - b);
}
