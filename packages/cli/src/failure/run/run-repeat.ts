/**
 * One deployment of one cell: its model on the fleet, its requests one after another or each at its time, its faults at theirs.
 * run.ts calls it for every cell in turn; summarise.ts makes figures of what it brings. This is the map of a measurement.
 *
 * Invariants
 * 1. Shards are put before the link takes its shape and before the clock runs: a deployment is not what is measured.
 * 2. A fault comes between requests, before the one that it is planned for is sent (or is armed for it); a fault that is undone has
 *    healed before the next request, so that who is lost at a request is what the plan says and not how fast a process starts.
 *    Time spent so is no part of a latency: in open loop all later requests are due that much later.
 * 3. In open loop latency counts from when a request was due, so that a stall counts for all that were due meanwhile.
 * 4. When `signal` aborts, what was measured is returned, and nothing of the cell is left on the fleet.
 */
import { KofnError, openScope, sleep, systemClock, throwIfAborted, type Tensors } from '@kofn/core';
import { connect, type Cluster, type RunReport } from '@kofn/master';
import { compareOutputs, isWrong, type ToleranceOf } from '../../answers/compare.js';
import { untilFleet } from '../../workers/until-fleet.js';
import type { Cell } from '../config/config.js';
import { planFaults, type FaultEvent } from '../fleet/fault-plan.js';
import type { BenchFleet, DeviceSetup, Traffic, Usage } from '../fleet/fleet.js';
import { serve, type ServedModel } from './served-model.js';
import type { Strategy } from './strategies.js';
import type { OpenWorkload } from './workload.js';

/** Backoff of a connection that is lost, and a process that starts on a busy machine. */
const HEAL_MS = 60_000;
const SILENCE_MS = 2_000;

export type Phase = 'healthy' | 'hit' | 'degraded';

export interface RequestRecord {
  /** From the first request's: when it was due. */
  readonly atMs: number;
  readonly phase: Phase;
  /** null: lost. */
  readonly ms: number | null;
  readonly isWrong: boolean;
}

export interface FaultRecord {
  readonly event: FaultEvent;
  readonly atMs: number;
  readonly hit: boolean | null;
}

/** One reply of one layer. */
export interface ArrivalRecord {
  readonly worker: number;
  readonly ms: number;
}

export interface Repeat {
  /** In order of their numbers; fewer than planned when it was interrupted. */
  readonly requests: readonly RequestRecord[];
  readonly faults: readonly FaultRecord[];
  /** Empty unless the cell keeps them. */
  readonly arrivals: readonly ArrivalRecord[];
  readonly recovered: { lost: number; late: number };
  readonly computedHere: number;
  readonly resent: number;
  readonly failures: readonly KofnError[];
  readonly traffic: Traffic;
  /** Of workers and master. */
  readonly usage: Usage;
  readonly isComplete: boolean;
}

export interface RepeatContext {
  readonly cell: Cell;
  readonly strategy: Strategy;
  readonly device: DeviceSetup;
  readonly workload: OpenWorkload;
  readonly fleet: BenchFleet;
  readonly seed: number;
  readonly signal: AbortSignal;
  readonly onRequest: (done: number) => void;
}

export async function runRepeat(context: RepeatContext): Promise<Repeat> {
  const { cell, strategy, device, workload, fleet, seed, signal } = context;
  await fleet.prepare(strategy.n, device, seed);
  await using cluster = await connect({
    workers: fleet.addresses.slice(0, strategy.n),
    minWorkers: strategy.n,
    hooks: fleet.hooks,
    silenceMs: strategy.isFailover ? cell.failover.detectMs : SILENCE_MS,
    maxInFlight: Math.min(65_536, Math.max(64, cell.requests)),
    signal,
  });
  await using model = await serve(cluster, { strategy, cell, workload, signal });
  await fleet.shape(cell.link.value, seed);
  const measurement = new Measurement(context, cluster, model);
  await measurement.run();
  return measurement.repeat();
}

class Measurement {
  readonly #context: RepeatContext;
  readonly #cluster: Cluster;
  readonly #model: ServedModel;
  readonly #plan: readonly FaultEvent[];
  readonly #requests: RequestRecord[] = [];
  readonly #faults: FaultRecord[] = [];
  readonly #arrivals: ArrivalRecord[] = [];
  /** Faults that are on. */
  readonly #active = new Set<FaultEvent>();
  readonly #recovered = { lost: 0, late: 0 };
  #computedHere = 0;
  #resent = 0;
  readonly #failures: KofnError[] = [];
  #tensorBytes: Traffic = { sent: 0, received: 0 };
  #traffic: Traffic = { sent: 0, received: 0 };
  #usage: Usage = { cpuMs: 0, busyMs: 0 };
  #start = 0;
  #isComplete = false;

  constructor(context: RepeatContext, cluster: Cluster, model: ServedModel) {
    this.#context = context;
    this.#cluster = cluster;
    this.#model = model;
    const { cell, strategy, seed } = context;
    this.#plan = planFaults(cell.fault.value, { requests: cell.requests, workers: strategy.n, seed });
  }

  /** Throws what is no request's fault; an abort ends it, and what was measured until then stays. */
  async run(): Promise<void> {
    const { cell, fleet, signal, workload } = this.#context;
    const untilAbort = (error: unknown) => {
      if (!signal.aborted) throw error;
    };
    for (let i = 0; i < cell.warmUp; i++) await this.#ask(workload.inputs(i)).catch(() => throwIfAborted(signal));
    const before = { usage: await fleet.usage(), traffic: await fleet.traffic(), cpu: process.cpuUsage() };
    this.#start = systemClock.now();
    const requests = cell.load.kind === 'closed' ? this.#closedLoop() : this.#openLoop(cell.load.everyMs);
    await requests.then(() => (this.#isComplete = true), untilAbort);
    const cpu = process.cpuUsage(before.cpu);
    // Who was killed for good is started again for the next cell.
    for (const event of this.#active) if (event.kind !== 'kill') await fleet.end(event);
    const [usage, traffic] = [await fleet.usage(), await fleet.traffic()];
    this.#usage = {
      cpuMs: usage.cpuMs - before.usage.cpuMs + (cpu.user + cpu.system) / 1000,
      busyMs: usage.busyMs - before.usage.busyMs,
    };
    this.#traffic =
      traffic === null || before.traffic === null
        ? this.#tensorBytes
        : { sent: traffic.sent - before.traffic.sent, received: traffic.received - before.traffic.received };
  }

  repeat(): Repeat {
    const requests = [...this.#requests]; // in open loop answers come in any order, and the last may be missing
    const answered = requests.findIndex(record => record === undefined);
    return {
      requests: answered < 0 ? requests : requests.slice(0, answered),
      faults: this.#faults,
      arrivals: this.#arrivals,
      recovered: this.#recovered,
      computedHere: this.#computedHere,
      resent: this.#resent,
      failures: this.#failures,
      traffic: this.#traffic,
      usage: this.#usage,
      isComplete: this.#isComplete,
    };
  }

  async #closedLoop(): Promise<void> {
    for (let request = 0; request < this.#context.cell.requests; request++) {
      const begun = await this.#disturb(request);
      await this.#measure(request, systemClock.now());
      await this.#settle(begun);
    }
  }

  async #openLoop(everyMs: number): Promise<void> {
    const { cell, signal } = this.#context;
    const underWay: Promise<void>[] = [];
    let shiftMs = 0;
    try {
      for (let request = 0; request < cell.requests; request++) {
        const dueAt = () => this.#start + request * everyMs + shiftMs;
        await sleep(systemClock, Math.max(0, dueAt() - systemClock.now()), signal);
        let begun: readonly FaultEvent[] = [];
        if (this.#isDisturbedAt(request)) {
          const since = systemClock.now();
          begun = await this.#disturb(request);
          shiftMs += systemClock.now() - since;
        }
        const answered = this.#measure(request, dueAt()).then(() => this.#settle(begun));
        answered.catch(() => undefined); // thrown below
        underWay.push(answered);
      }
    } finally {
      await Promise.allSettled(underWay);
    }
    await Promise.all(underWay);
  }

  /** Asks request `request`, which was due at `dueAt`, and writes down what becomes of it. Throws only the signal's reason. */
  async #measure(request: number, dueAt: number): Promise<void> {
    const { workload, signal, onRequest } = this.#context;
    const phase = this.#phaseAt(request);
    let ms: number | null = null;
    let isWrong = false;
    try {
      const { outputs, report } = await this.#ask(workload.inputs(request));
      ms = systemClock.now() - dueAt;
      this.#add(report);
      isWrong = isOff(outputs, workload.expected(request), workload.toleranceOf);
    } catch (error) {
      throwIfAborted(signal);
      this.#failures.push(KofnError.from(error));
    }
    this.#requests[request] = { atMs: dueAt - this.#start, phase, ms, isWrong };
    onRequest(request + 1);
  }

  #ask(inputs: Tensors) {
    const { cell, signal } = this.#context;
    return this.#model.run(inputs, { deadlineMs: cell.deadlineMs, signal });
  }

  #add({ layers }: RunReport): void {
    let { sent, received } = this.#tensorBytes;
    for (const layer of layers) {
      this.#recovered.lost += layer.recovered.lost.length;
      this.#recovered.late += layer.recovered.late.length;
      this.#computedHere += layer.computedHere.length;
      this.#resent += layer.resent.length + layer.hedged.length;
      sent += layer.bytesSent;
      received += layer.bytesReceived;
      if (this.#context.cell.arrivals) this.#arrivals.push(...layer.arrivals.map(({ worker, ms }) => ({ worker, ms })));
    }
    this.#tensorBytes = { sent, received };
  }

  #isDisturbedAt(request: number): boolean {
    return (
      this.#plan.some(event => event.request === request) || [...this.#active].some(({ until }) => until <= request)
    );
  }

  #phaseAt(request: number): Phase {
    if ([...this.#active].some(event => event.request === request)) return 'hit';
    return this.#active.size > 0 ? 'degraded' : 'healthy';
  }

  /** Undoes what ends before `request`, and brings about what comes with it, which it returns. */
  async #disturb(request: number): Promise<FaultEvent[]> {
    for (const event of [...this.#active]) if (event.until <= request) await this.#undo(event);
    const begun = this.#plan.filter(event => event.request === request);
    for (const event of begun) {
      this.#active.add(event);
      await this.#context.fleet.begin(event);
    }
    return begun;
  }

  /** After the request that `events` came with. */
  async #settle(events: readonly FaultEvent[]): Promise<void> {
    for (const event of events) {
      const hit = await this.#context.fleet.settle(event);
      this.#faults.push({ event, atMs: this.#requests[event.request]!.atMs, hit });
    }
  }

  async #undo(event: FaultEvent): Promise<void> {
    const { fleet, signal } = this.#context;
    this.#active.delete(event);
    await fleet.end(event);
    using scope = openScope(systemClock, {
      parent: signal,
      deadlineMs: HEAL_MS,
      what: `return of worker ${event.workers.join(', ')}`,
    });
    await untilFleet(
      this.#cluster,
      workers => event.workers.every(worker => workers[worker]?.state === 'ready'),
      scope.signal,
    );
  }
}

function isOff(outputs: Tensors, expected: Tensors, toleranceOf: ToleranceOf): boolean {
  try {
    return isWrong(compareOutputs(outputs, expected, toleranceOf));
  } catch {
    return true; // other names or types
  }
}
