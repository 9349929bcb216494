/**
 * One seed from beginning to end: a master and its workers, kofn's own code on both sides, on virtual time and a simulated
 * network, through the faults of the seed; then every checker.
 *
 * Invariants
 * 1. The outcome, its trace included, is a function of the seed (and the planted bug) alone.
 * 2. Everything that was begun is over when it returns, unless the outcome says that it hangs.
 */
import { isKofnError, KofnError, openScope, sleep, type Float32Tensor } from '@kofn/core';
import type { Canary } from './canary.js';
import { CallLedger } from './checks/calls.js';
import { checkExact } from './checks/exact.js';
import { FleetCheck } from './checks/fleet.js';
import { checkHealed, checkKept } from './checks/heal.js';
import { checkAllGone, checkTakenOver, LEASES_OVER_MS, StandingCheck } from './checks/homes.js';
import { MemoryCheck } from './checks/memory.js';
import { checkGivenUp } from './checks/nothing-left.js';
import { checkDeadlines, checkNoneLost, checkTypedErrors, DEPLOY_ERRORS } from './checks/outcomes.js';
import type { RequestRecord, Violation } from './checks/request.js';
import { TrustCheck } from './checks/trust.js';
import { asKofnError, describeAnswer, describeError } from './describe.js';
import { applyFaults, healAll, type Fault, type ScheduledFault } from './faults.js';
import type { Lie } from './lies.js';
import { Link } from './link.js';
import { Machine, type MachineObserver } from './machine.js';
import { Master, NAME } from './master.js';
import type { Restart } from './restarts.js';
import { describeScenario, drawScenario, type DrawnRequest, type Phase, type Scenario } from './scenario.js';
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
  /** Masters that died and were followed by another. */
  readonly restarts: number;
  /** Blocks that were moved to another worker, or put again to one that had lost them. */
  readonly healed: number;
  /** Wrong replies that were not believed, by how they were wrong. */
  readonly caught: ReadonlyMap<Lie, number>;
  readonly trace: readonly string[];
}

/** Longer than any deadline, and than all that a scenario draws. */
const LIMIT_MS = 1000 * 3_600_000;
/** After a start of a master that failed. */
const START_AGAIN_MS = 2_000;
/** A worker that was released is given what it lost meanwhile. */
const RELEASED_MS = 5_000;

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
  readonly #faults: readonly ScheduledFault[];
  readonly #world = new VirtualClock();
  readonly #trace = new Trace(this.#world);
  readonly #calls = new CallLedger();
  readonly #memory = new MemoryCheck();
  readonly #violations: Violation[] = [];
  readonly #requests: RequestRecord[] = [];
  readonly #machines: readonly Machine[];
  readonly #fleet: FleetCheck;
  readonly #trust: TrustCheck;
  #master!: Master;
  /** Resolves when a master serves. */
  #serving: Promise<void> = Promise.resolve();
  #standing: StandingCheck | undefined;
  /** When the last master died. */
  #diedMs: number | undefined;
  #restarts = 0;
  #healed = 0;
  #begun = 0;
  /** Gone, from an update that found others away until all is whole again: nobody may hold their blocks. */
  #unplaced: Machine[] = [];
  /** Away when the version that stands was put, or did not take it: one that is put aside before it comes or is asked again has none. */
  #lacking: readonly Machine[] = [];
  #closedMs: number | undefined;
  /** What it is at, for the words about a hang. */
  #phase = 'the start';

  constructor(seed: number, canary: Canary | undefined) {
    const streams = streamsOf(seed);
    this.#streams = streams;
    this.#seed = seed;
    this.#canary = canary;
    this.#scenario = drawScenario(streams, canary?.fault);
    this.#faults = this.#scenario.phases.flatMap(({ faults, spareFaults }) => [...faults, ...spareFaults]);
    const observer: MachineObserver = {
      onMemory: this.#memory.onMemory,
      onStart: this.#calls.onStart,
      onUnanswered: this.#calls.onUnanswered,
      onAway: machine => this.#fleet.onAway(machine),
      onStuck: machine => this.#fleet.onStuck(machine),
      onPut: (machine, shard) => this.#standing?.onPut(machine, shard),
      onServer: server => canary?.worker?.(server),
    };
    this.#machines = this.#scenario.limits.map((limits, index) => {
      const link = new Link({ name: `worker ${index}`, clock: this.#world, rng: streams(`link ${index}`) });
      return new Machine({ index, link, limits, world: this.#world, trace: this.#trace, observer });
    });
    this.#trust = new TrustCheck(this.#faults);
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
      restarts: this.#restarts,
      healed: this.#healed,
      caught: this.#trust.caught,
      trace: this.#trace.lines,
    };
  }

  async #everything(): Promise<void> {
    const { phases, faultsFirst, workers, spares } = this.#scenario;
    await Promise.all(this.#machines.map(machine => machine.start()));
    if (faultsFirst) this.#strike(phases[0]!);
    this.#phase = 'connecting';
    this.#master = this.#newMaster(workers + spares);
    if (await this.#attempt(() => this.#begin(this.#master, 0))) {
      for (const phase of phases) {
        this.#phase = `phase ${phases.indexOf(phase)}`;
        await this.#rest(phase.idleMs);
        if (!faultsFirst) this.#strike(phase);
        await this.#use(phase);
        this.#violations.push(...this.#calls.checkQuiet());
        healAll(this.#machines);
        this.#strike({ faults: phase.spareFaults });
      }
      await this.#settle();
      this.#trust.checkHonest(this.#master.cluster);
      this.#phase = 'closing the model';
      const first = phases.at(-1)!.close?.what ?? (this.#seed % 2 === 0 ? 'model' : 'cluster');
      if (first === 'model') {
        await this.#master.model.close();
        const known = this.#soundMachines().filter(machine => this.#master.machines.includes(machine));
        this.#violations.push(...checkGivenUp(known, this.#owner()));
      }
    }
    this.#phase = 'closing the cluster';
    this.#trust.stop();
    await this.#master.close();
    const left = this.#master.left();
    this.#violations.push(...left);
    healAll(this.#machines);
    if (left.length === 0) {
      this.#phase = 'the end of the leases';
      await sleep(this.#world, LEASES_OVER_MS);
      this.#violations.push(...checkAllGone(this.#machines));
    }
    this.#phase = 'stopping the workers';
    for (const machine of this.#machines) {
      for (const left of await machine.stop()) this.#violations.push(`${machine.name} left something: ${left}`);
    }
  }

  /** Nothing happens for so long; then all is to be well again. */
  async #rest(ms: number): Promise<void> {
    await sleep(this.#world, ms);
    if (ms === 0) return;
    this.#violations.push(...checkKept(this.#master.model, this.#owner(), this.#aside()));
    if (this.#trust.judge(this.#master.cluster)) await sleep(this.#world, RELEASED_MS);
    this.#fleet.checkReady(ms);
    this.#checkHealed(ms);
    this.#unplaced = [];
    if (this.#diedMs === undefined || this.#world.now() < this.#diedMs + LEASES_OVER_MS) return;
    this.#violations.push(...checkTakenOver(this.#soundMachines(), this.#owner()));
  }

  /** Nothing happens until what there are spares for is whole again. */
  async #settle(): Promise<void> {
    if (this.#scenario.spares === 0 || this.#closedMs !== undefined) return;
    this.#phase = 'healing after the last phase';
    await this.#rest(this.#scenario.settleMs);
  }

  #checkHealed(idleMs: number): void {
    const { model, machines, aside } = this.#master;
    const rotten = new Set(this.#faults.filter(({ fault }) => fault.kind === 'rot').map(({ worker }) => worker));
    const distrusted = new Set(aside.map(({ index }) => index));
    this.#violations.push(...checkHealed(model, { cluster: NAME, machines, rotten, distrusted, idleMs }));
  }

  /** Workers that serve and are put aside for wrong answers, but for those that may have lost what they held. */
  #aside(): Machine[] {
    const isLoss = ({ kind, ...how }: Fault) => kind === 'rot' || ('keepDisk' in how && !how.keepDisk);
    const losers = new Set(this.#faults.flatMap(({ worker, fault }) => (isLoss(fault) ? [worker] : [])));
    const keeps = (machine: Machine) =>
      machine.serves && !losers.has(machine.index) && !this.#lacking.includes(machine);
    return this.#master.aside.filter(keeps);
  }

  /** Those that no fault was drawn for. */
  #soundMachines(): Machine[] {
    const afflicted = new Set(this.#scenario.phases.flatMap(phase => phase.afflicted));
    for (const { worker } of this.#faults) afflicted.add(worker);
    return this.#machines.filter(({ index }) => !afflicted.has(index));
  }

  #owner(): { cluster: string; model: string; version: number } {
    const { name: model, version } = this.#master.model;
    return { cluster: NAME, model, version };
  }

  #strike({ faults }: Pick<Phase, 'faults'>): void {
    applyFaults(faults, { machines: this.#machines, clock: this.#world, trace: this.#trace });
  }

  /** What only faults may make fail; whether it did not. */
  async #attempt(work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      if (!this.#scenario.faultsFirst && this.#restarts === 0) throw error;
      if (!isKofnError(error) || !DEPLOY_ERRORS.includes(error.code)) throw error;
      this.#trace.add('master', `${this.#phase} failed: ${error.code} ${error.message}`);
      return false;
    }
  }

  #newMaster(machines: number): Master {
    return new Master({
      scenario: this.#scenario,
      world: this.#world,
      rng: this.#streams(`reconnects${this.#restarts === 0 ? '' : ` ${this.#restarts}`}`),
      trace: this.#trace,
      canary: this.#canary,
      machines: this.#machines.slice(0, machines),
      calls: this.#calls,
      fleet: this.#fleet,
    });
  }

  /** Connects and deploys the model with one of its two weights. */
  async #begin(master: Master, weights: number): Promise<void> {
    const cluster = await master.connect();
    this.#trust.watch(cluster);
    cluster.onEvent(({ kind }) => (this.#healed += kind === 'moved' || kind === 'restored' ? 1 : 0));
    const model = await master.deploy(weights);
    if (!this.#scenario.hasTwin || this.#restarts > 0) return;
    const twin = await master.deployTwin(weights);
    this.#trace.add('master', `deployed ${twin.name} of ${model.name}, and closes it`);
    await twin.close();
  }

  /** The master dies, and another begins in its place. */
  async #restart(phase: Phase, restart: Restart): Promise<void> {
    this.#trace.add('master', 'dies');
    this.#master.die();
    this.#trust.stop();
    this.#diedMs = this.#world.now();
    this.#restarts++;
    await (this.#serving = this.#beginAgain(phase, restart));
  }

  async #beginAgain({ afflicted }: Phase, { downMs, machines }: Restart): Promise<void> {
    const { weights, model } = this.#master;
    await sleep(this.#world, downMs);
    const sound = this.#machines.slice(0, machines).filter(({ index }) => !afflicted.includes(index));
    for (;;) {
      for (const machine of this.#machines) if (machine.isGone) await machine.replace();
      this.#master = this.#newMaster(machines);
      this.#trace.add('master', `begins again with ${machines} workers`);
      this.#standing = new StandingCheck(sound, { cluster: NAME, model: model.name });
      const hasBegun = await this.#attempt(() => this.#begin(this.#master, weights));
      const standing = this.#standing;
      this.#standing = undefined;
      if (hasBegun) return void this.#violations.push(...standing.check(this.#master.model));
      this.#trust.stop();
      await this.#master.close();
      this.#violations.push(...this.#master.left());
      await sleep(this.#world, START_AGAIN_MS);
    }
  }

  async #use(phase: Phase): Promise<void> {
    const { requests, updateAtMs, restart, close } = phase;
    const at = <T>(ms: number, work: () => Promise<T>): Promise<T> =>
      new Promise((resolve, reject) => this.#world.setTimer(() => void work().then(resolve, reject), ms));
    await Promise.all([
      ...requests.map(request => at(request.atMs, () => this.#request(request, phase))),
      ...(close === undefined ? [] : [at(close.atMs, () => this.#close(close.what))]),
      ...(updateAtMs === undefined ? [] : [at(updateAtMs, () => this.#update())]),
      ...(restart === undefined ? [] : [at(restart.atMs, () => this.#restart(phase, restart))]),
    ]);
  }

  async #close(what: 'model' | 'cluster'): Promise<void> {
    this.#closedMs = this.#world.now();
    this.#trace.add('caller', 'closes it all');
    if (what === 'cluster') this.#fleet.stop();
    await this.#master[what].close();
    this.#trace.add('caller', 'it is closed');
  }

  /** To the other weights, or back. */
  async #update(): Promise<void> {
    await this.#serving;
    try {
      const { away } = this.#master;
      this.#trace.add('master', (await this.#master.update()) ?? 'died while it updated');
      this.#trust.onUpdate();
      this.#lacking = [...away, ...this.#master.refusing];
      // Where several were away, a spare may hold what is another's, and not what was moved there from one that is gone.
      if (away.length > 1) this.#unplaced = away.filter(({ isGone }) => isGone);
    } catch (error) {
      const isClosed = isKofnError(error, 'CANCELLED') && this.#closedMs !== undefined;
      if (!isKofnError(error) || !(isClosed || DEPLOY_ERRORS.includes(error.code))) throw error;
      this.#trace.add('master', `the update failed: ${error.code} ${error.message}`);
      const isOurs = !isClosed && this.#scenario.kind === 'within';
      if (isOurs) this.#violations.push(`an update failed within r: ${error.code}: ${error.message}`);
    }
  }

  async #request(request: DrawnRequest, { afflicted: drawn, faults }: Phase): Promise<void> {
    await this.#serving;
    const { input, deadlineMs, cancelAfterMs } = request;
    const number = this.#begun++;
    const { model, program, death } = this.#master;
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
    const running = model.run(given, { deadlineMs, signal: scope.signal }).then(
      ({ outputs, report }) => ({ output: outputs['y'] as Float32Tensor, report }),
      (error: unknown) => ({ error: asKofnError(error) }),
    );
    const outcome = await Promise.race([running, death]);
    timer?.cancel();
    if (outcome === undefined) return this.#trace.add('caller', `request ${number} is gone with its master`);
    const endMs = this.#world.now();
    const words = 'error' in outcome ? describeError(outcome.error) : describeAnswer(outcome);
    this.#trace.add('caller', `request ${number} ${words}`);
    if ('report' in outcome) this.#trust.onAnswer(outcome.report, faults);
    const afflicted = [...drawn, ...this.#unplaced.map(({ index }) => index)];
    const about = { number, input, afflicted, program, startMs, endMs, deadlineMs, cancelledMs };
    this.#requests.push({ ...about, closedMs: this.#closedMs, outcome });
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
      ...this.#trust.violations,
    );
    for (const violation of this.#violations) this.#trace.add('checker', violation);
  }
}
