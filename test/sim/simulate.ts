/**
 * One seed from beginning to end: a master and its workers, kofn's own code on both sides, on virtual time and a simulated
 * network, through the faults of the seed; then every checker.
 *
 * Invariants
 * 1. The outcome, its trace included, is a function of the seed (and the planted bug) alone.
 * 2. Everything that was begun is over when it returns, unless the outcome says that it hangs.
 */
import { isKofnError, KofnError, openScope, sleep, type ErrorCode, type Float32Tensor } from '@kofn/core';
import { codedModel, connect, type Cluster, type CodedModel } from '@kofn/master';
import type { Canary } from './canary.js';
import { CallLedger } from './checks/calls.js';
import { checkExact } from './checks/exact.js';
import { FleetCheck } from './checks/fleet.js';
import { checkHealed } from './checks/heal.js';
import { MemoryCheck } from './checks/memory.js';
import { checkGivenUp, checkMaster } from './checks/nothing-left.js';
import { checkDeadlines, checkNoneLost, checkTypedErrors } from './checks/outcomes.js';
import type { RequestRecord, Violation } from './checks/request.js';
import { applyFaults, healAll } from './faults.js';
import { checkJudged } from './lies.js';
import { Link } from './link.js';
import { MachineClock } from './machine-clock.js';
import { Machine, type MachineObserver } from './machine.js';
import { describeScenario, drawScenario, type DrawnRequest, type Phase, type Scenario } from './scenario.js';
import { SimChannel, type NetworkObserver } from './sim-channel.js';
import { SimEngine } from './sim-engine.js';
import { streamsOf, type Streams } from './streams.js';
import { Trace } from './trace.js';
import { VirtualClock } from './virtual-clock.js';

export interface Outcome {
  readonly seed: number;
  readonly kind: Scenario['kind'];
  readonly violations: readonly Violation[];
  /** SHA-256 of the trace. */
  readonly hash: string;
  readonly events: number;
  readonly requests: number;
  readonly trace: readonly string[];
}

/** Longer than any deadline, and than all that a scenario draws. */
const LIMIT_MS = 1000 * 3_600_000;
/** Of the cluster. */
const NAME = 'simulation';
const MASTER_MACS_PER_MS = 1000;
/** What a deployment through faults, or an update that finds a worker lost, may end with. */
const DEPLOY_ERRORS: readonly ErrorCode[] = ['UNAVAILABLE', 'RESOURCE_EXHAUSTED', 'STORAGE', 'DATA_LOSS'];

export async function simulate(seed: number, canary?: Canary): Promise<Outcome> {
  const undo = canary?.apply?.();
  try {
    return await new Simulation(seed, canary).run();
  } finally {
    undo?.();
  }
}

class Simulation {
  readonly #seed: number;
  readonly #streams: Streams;
  readonly #canary: Canary | undefined;
  readonly #scenario: Scenario;
  readonly #world = new VirtualClock();
  readonly #trace = new Trace(this.#world);
  readonly #calls = new CallLedger();
  readonly #memory = new MemoryCheck();
  readonly #violations: Violation[] = [];
  readonly #requests: RequestRecord[] = [];
  readonly #machines: readonly Machine[];
  readonly #fleet: FleetCheck;
  /** Those that are open, or have calls open. */
  #channels: SimChannel[] = [];
  readonly #clock = new MachineClock(this.#world);
  readonly #engine = new SimEngine({ clock: this.#clock, speed: () => MASTER_MACS_PER_MS });
  #begun = 0;
  #closedMs: number | undefined;
  /** What it is at, for the words about a hang. */
  #phase = 'the start';

  constructor(seed: number, canary: Canary | undefined) {
    const streams = streamsOf(seed);
    this.#streams = streams;
    this.#seed = seed;
    this.#canary = canary;
    this.#scenario = drawScenario(streams);
    const observer: MachineObserver = {
      onMemory: this.#memory.onMemory,
      onStart: this.#calls.onStart,
      onUnanswered: this.#calls.onUnanswered,
      onAway: machine => this.#fleet.onAway(machine),
      onStuck: machine => this.#fleet.onStuck(machine),
      onServer: server => canary?.worker?.(server),
    };
    this.#machines = this.#scenario.limits.map((limits, index) => {
      const link = new Link({ name: `worker ${index}`, clock: this.#world, rng: streams(`link ${index}`) });
      return new Machine({ index, link, limits, world: this.#world, trace: this.#trace, observer });
    });
    this.#fleet = new FleetCheck({
      clock: this.#world,
      silenceMs: this.#scenario.silenceMs,
      machines: this.#machines,
      sound: new Set(this.#soundMachines().map(({ index }) => index)),
    });
  }

  async run(): Promise<Outcome> {
    const onRejection = (error: unknown) => this.#violations.push(`a rejection was left unhandled: ${String(error)}`);
    process.on('unhandledRejection', onRejection);
    try {
      this.#trace.add('seed', `${this.#seed}: ${describeScenario(this.#scenario)}`);
      const ended = await this.#world.runUntil(this.#everything(), LIMIT_MS);
      if (ended === undefined) this.#violations.push(`it hangs in ${this.#phase}`);
    } catch (error) {
      this.#violations.push(`${this.#phase} failed: ${error instanceof Error ? (error.stack ?? '') : String(error)}`);
    } finally {
      process.off('unhandledRejection', onRejection);
    }
    this.#judge();
    return {
      seed: this.#seed,
      kind: this.#scenario.kind,
      violations: this.#violations,
      hash: this.#trace.hash(),
      events: this.#world.events,
      requests: this.#requests.length,
      trace: this.#trace.lines,
    };
  }

  async #everything(): Promise<void> {
    const { phases, faultsFirst } = this.#scenario;
    await Promise.all(this.#machines.map(machine => machine.start()));
    if (faultsFirst) this.#strike(phases[0]!);
    this.#phase = 'connecting';
    const cluster = await this.#attempt(() => this.#connect());
    if (cluster !== undefined) {
      this.#fleet.watch(cluster);
      this.#canary?.cluster?.(cluster);
      this.#phase = 'the deployment';
      const model = await this.#attempt(() => this.#deploy(cluster));
      if (model !== undefined) {
        this.#canary?.model?.(model);
        for (const phase of phases) {
          this.#phase = `phase ${phases.indexOf(phase)}`;
          await sleep(this.#world, phase.idleMs);
          this.#violations.push(...checkJudged(cluster, this.#liars));
          this.#fleet.checkReady(phase.idleMs);
          if (phase.idleMs > 0) this.#checkHealed(cluster, model, phase.idleMs);
          if (!faultsFirst) this.#strike(phase);
          await this.#use(model, phase, cluster);
          this.#violations.push(...this.#calls.checkQuiet());
          healAll(this.#machines);
        }
        await this.#settle(cluster, model);
      }
      this.#phase = 'closing the cluster';
      this.#violations.push(...checkJudged(cluster, this.#liars));
      const first = phases[phases.length - 1]!.close?.what ?? (this.#seed % 2 === 0 ? 'model' : 'cluster');
      if (first === 'model') await model?.close();
      if (first === 'model' && model !== undefined) this.#violations.push(...checkGivenUp(this.#soundMachines()));
      this.#fleet.stop();
      await cluster.close();
    }
    this.#violations.push(...checkMaster({ clock: this.#clock, engine: this.#engine, channels: this.#channels }));
    this.#phase = 'stopping the workers';
    healAll(this.#machines);
    for (const machine of this.#machines) {
      for (const left of await machine.stop()) this.#violations.push(`${machine.name} left something: ${left}`);
    }
  }

  /** Nothing happens until what there are spares for is whole again. */
  async #settle(cluster: Cluster, model: CodedModel): Promise<void> {
    const { spares, settleMs } = this.#scenario;
    if (spares === 0 || this.#closedMs !== undefined) return;
    this.#phase = 'healing after the last phase';
    await sleep(this.#world, settleMs);
    this.#checkHealed(cluster, model, settleMs);
  }

  #checkHealed(cluster: Cluster, model: CodedModel, idleMs: number): void {
    const faults = this.#scenario.phases.flatMap(phase => phase.faults);
    const rotten = new Set(faults.filter(({ fault }) => fault.kind === 'rot').map(({ worker }) => worker));
    const aside = cluster.connections.filter(({ trust }) => trust.distrust !== undefined);
    const distrusted = new Set(aside.map(({ index }) => index));
    this.#violations.push(
      ...checkHealed(model, { cluster: NAME, machines: this.#machines, rotten, distrusted, idleMs }),
    );
  }

  /** Those that no fault was drawn for. */
  #soundMachines(): Machine[] {
    const afflicted = new Set(this.#scenario.phases.flatMap(phase => phase.afflicted));
    return this.#machines.filter(({ index }) => !afflicted.has(index));
  }

  /** The workers for which lies were drawn. */
  get #liars(): ReadonlySet<number> {
    const faults = this.#scenario.phases.flatMap(phase => phase.faults);
    return new Set(faults.flatMap(({ worker, fault }) => (fault.kind === 'lie' ? [worker] : [])));
  }

  #strike({ faults }: Phase): void {
    applyFaults(faults, { machines: this.#machines, clock: this.#world, trace: this.#trace });
  }

  /** What only faults that began earlier may make fail. */
  async #attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!this.#scenario.faultsFirst || !isKofnError(error) || !DEPLOY_ERRORS.includes(error.code)) throw error;
      this.#trace.add('master', `${this.#phase} failed: ${error.code} ${error.message}`);
      return undefined;
    }
  }

  #connect(): Promise<Cluster> {
    const { silenceMs, healAfterMs } = this.#scenario;
    const clock = this.#canary?.masterClock?.(this.#clock) ?? this.#clock;
    const observer: NetworkObserver = {
      onFrame: (link, stream, direction, info, fate) => {
        this.#calls.onFrame(link, stream, direction, info, fate);
        this.#fleet.onFrame(link, stream, direction, info, fate);
        const { kind, id, detail } = info;
        const arrow = direction === 'out' ? '→' : '←';
        this.#trace.add(
          'master',
          `${arrow} ${link.name}: ${kind} ${id} ${detail}${fate === 'arrive' ? '' : ` (${fate})`}`,
        );
      },
      onStreamEnd: (link, stream) => {
        this.#calls.onStreamEnd(link, stream);
        this.#trace.add('master', `stream ${stream} to ${link.name} is over`);
      },
    };
    return connect(
      { workers: this.#machines.map(({ address }) => address), id: NAME, clock, silenceMs, healAfterMs },
      {
        rng: this.#streams('reconnects'),
        engine: this.#engine,
        openChannel: (address, { maxMessageBytes, clock: own }) => {
          const host = this.#machines.find(machine => machine.address === address)!;
          const channel = new SimChannel({ address, host, clock: own, maxMessageBytes, observer });
          this.#channels = this.#channels.filter(({ isClosed, openCalls }) => !isClosed || openCalls > 0);
          this.#fleet.onChannel(channel, this.#channels);
          this.#channels.push(channel);
          host.onLeave = why => channel.leave(why);
          host.onBreak = why => {
            this.#trace.add(host.name, `connection broken: ${why}`);
            for (const each of this.#channels) if (each.address === address) each.break(why);
          };
          return channel;
        },
      },
    );
  }

  async #deploy(cluster: Cluster): Promise<CodedModel> {
    const { parity, code, onLoss, systematicGraceMs, hedge, segments, verify, model } = this.#scenario;
    const workers = Array.from({ length: this.#scenario.workers }, (_, worker) => worker);
    const shared = { workers, parity, code, onLoss, systematicGraceMs, segments, verify };
    const options = { ...shared, ...(hedge === undefined ? {} : { hedge }) };
    const deployed = await codedModel(model.versions[0].files, { cluster, ...options });
    this.#trace.add(
      'master',
      `deployed ${deployed.plan.layers.map(({ name, decision }) => `${name} ${decision}`).join(', ')}`,
    );
    return deployed;
  }

  async #use(model: CodedModel, { requests, updateAtMs, afflicted, close }: Phase, cluster: Cluster): Promise<void> {
    const at = <T>(ms: number, work: () => Promise<T>): Promise<T> =>
      new Promise((resolve, reject) => this.#world.setTimer(() => void work().then(resolve, reject), ms));
    await Promise.all([
      ...requests.map(request => at(request.atMs, () => this.#request(model, request, afflicted))),
      ...(close === undefined ? [] : [at(close.atMs, () => this.#close(close.what, { model, cluster }))]),
      ...(updateAtMs === undefined ? [] : [at(updateAtMs, () => this.#update(model))]),
    ]);
  }

  #mayFail({ code }: KofnError): boolean {
    return DEPLOY_ERRORS.includes(code) || (code === 'CANCELLED' && this.#closedMs !== undefined);
  }

  async #close(what: 'model' | 'cluster', closing: { model: CodedModel; cluster: Cluster }): Promise<void> {
    this.#closedMs = this.#world.now();
    this.#trace.add('caller', 'closes it all');
    if (what === 'cluster') this.#fleet.stop();
    await closing[what].close();
    this.#trace.add('caller', 'it is closed');
  }

  /** To the other weights, or back. */
  async #update(model: CodedModel): Promise<void> {
    try {
      await model.update(this.#scenario.model.versions[model.version % 2]!.files);
      this.#trace.add('master', 'updated');
    } catch (error) {
      if (!isKofnError(error) || !this.#mayFail(error)) throw error;
      this.#trace.add('master', `the update failed: ${error.code} ${error.message}`);
    }
  }

  async #request(model: CodedModel, request: DrawnRequest, afflicted: readonly number[]): Promise<void> {
    const { input, deadlineMs, cancelAfterMs } = request;
    const number = this.#begun++;
    const { program } = this.#scenario.model.versions[(model.version - 1) % 2]!;
    const startMs = this.#world.now();
    using scope = openScope(this.#world);
    let cancelledMs: number | undefined;
    const cancel = () => {
      cancelledMs = this.#world.now();
      scope.abort(new KofnError('CANCELLED', 'the caller cancelled'));
    };
    const timer = cancelAfterMs === undefined ? undefined : this.#world.setTimer(cancel, cancelAfterMs);
    this.#trace.add('caller', `request ${number} begins`);
    const given = { x: { ...input, data: input.data.slice() } };
    const running = model.run(given, { deadlineMs, signal: scope.signal });
    const outcome = await running.then(
      ({ outputs, report }) => ({ output: outputs['y'] as Float32Tensor, report }),
      (error: unknown) => ({ error: asKofnError(error) }),
    );
    timer?.cancel();
    const endMs = this.#world.now();
    this.#trace.add(
      'caller',
      `request ${number} ${'error' in outcome ? describeError(outcome.error) : describeAnswer(outcome)}`,
    );
    this.#requests.push({
      number,
      input,
      afflicted,
      program,
      startMs,
      endMs,
      deadlineMs,
      cancelledMs,
      closedMs: this.#closedMs,
      outcome,
    });
  }

  #judge(): void {
    const { kind, onLoss } = this.#scenario;
    this.#violations.push(
      ...checkExact(this.#requests),
      ...checkDeadlines(this.#requests),
      ...(kind === 'within' ? checkNoneLost(this.#requests) : checkTypedErrors(this.#requests, onLoss)),
      ...this.#calls.violations,
      ...this.#memory.violations,
      ...this.#fleet.violations,
    );
    for (const violation of this.#violations) this.#trace.add('checker', violation);
  }
}

/** What is no KofnError is a fault by itself. */
function asKofnError(error: unknown): KofnError {
  if (isKofnError(error)) return error;
  return new KofnError('INTERNAL', `no KofnError: ${error instanceof Error ? (error.stack ?? '') : String(error)}`);
}

function describeError({ code, message }: KofnError): string {
  return `failed: ${code} ${message}`;
}

function describeAnswer({ output, report }: Extract<RequestRecord['outcome'], { output: Float32Tensor }>): string {
  const layers = report.layers.map(({ name, decodeSet, erasures, computedHere, hedged }) => {
    const lost = erasures.map(({ worker, code }) => `; worker ${worker} ${code}`).join('');
    const late = hedged.length > 0 ? `; hedged ${hedged.join(' ')}` : '';
    return `${name} from ${decodeSet.join(' ')}${lost}${late}${computedHere.length > 0 ? `; here ${computedHere.join(' ')}` : ''}`;
  });
  const sum = output.data.reduce((a, b) => a + b, 0);
  return `answered: sum ${sum} (${layers.join(' | ')})`;
}
