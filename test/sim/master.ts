/**
 * One master process: a cluster and a model of kofn's own code, on a clock, an engine and channels of its own, from its start until
 * it is closed or dies. simulate.ts begins one after another.
 *
 * Invariants
 * 1. Nothing of one that has died happens any more: its timers are gone, what comes for it is lost, and its calls are over for whoever
 *    it called.
 * 2. One that was closed has left nothing (`left`).
 */
import type { Clock, Rng } from '@kofn/core';
import { codedModel, connect, type Cluster, type CodedModel } from '@kofn/master';
import type { Canary } from './canary.js';
import type { CallLedger } from './checks/calls.js';
import type { FleetCheck } from './checks/fleet.js';
import { checkMaster } from './checks/nothing-left.js';
import type { Violation } from './checks/request.js';
import type { Program } from './evaluate.js';
import { MachineClock } from './machine-clock.js';
import type { Machine } from './machine.js';
import type { Scenario } from './scenario.js';
import { SimChannel, type NetworkObserver } from './sim-channel.js';
import { SimEngine } from './sim-engine.js';
import type { Trace } from './trace.js';

/** Of the cluster, for every master of a seed. */
export const NAME = 'simulation';
const MACS_PER_MS = 1000;

export interface MasterParts {
  readonly scenario: Scenario;
  readonly world: Clock;
  /** For the jitter of reconnects. */
  readonly rng: Rng;
  readonly trace: Trace;
  readonly canary: Canary | undefined;
  /** The workers that it is told of. */
  readonly machines: readonly Machine[];
  readonly calls: CallLedger;
  readonly fleet: FleetCheck;
}

export class Master {
  readonly machines: readonly Machine[];
  /** Resolves when it dies. */
  readonly death: Promise<undefined>;
  readonly #parts: MasterParts;
  readonly #clock: MachineClock;
  readonly #engine: SimEngine;
  /** Those that are open, or have calls open. */
  #channels: SimChannel[] = [];
  #cluster: Cluster | undefined;
  #model: CodedModel | undefined;
  /** Of the two of the scenario, the weights of its model's first version. */
  #first = 0;
  #onDeath!: () => void;

  constructor(parts: MasterParts) {
    this.#parts = parts;
    this.machines = parts.machines;
    this.#clock = new MachineClock(parts.world);
    this.#engine = new SimEngine({ clock: this.#clock, speed: () => MACS_PER_MS });
    this.death = new Promise(resolve => (this.#onDeath = () => resolve(undefined)));
  }

  get cluster(): Cluster {
    return this.#cluster!;
  }

  get model(): CodedModel {
    return this.#model!;
  }

  /** Of the workers that it was told of, those that it takes for lost. */
  get away(): Machine[] {
    return this.machines.filter((_, worker) => this.cluster.workers[worker]!.state !== 'ready');
  }

  /** Those that did not take their part of the version that stands when that was put. */
  get refusing(): Machine[] {
    return this.model.plan.refusals.map(({ worker }) => this.machines[worker]!);
  }

  /** Those that it has put aside for wrong answers. */
  get aside(): Machine[] {
    return this.machines.filter((_, worker) => this.cluster.connections[worker]!.trust.distrust !== undefined);
  }

  /** Which of the scenario's two weights its model answers with. */
  get weights(): number {
    return (this.#first + this.model.version - 1) % 2;
  }

  /** The uncoded model of the version that answers now. */
  get program(): Program {
    return this.#parts.scenario.model.versions[this.weights]!.program;
  }

  /** Throws as `connect` of kofn does. */
  async connect(): Promise<Cluster> {
    const { scenario, rng, canary, machines, fleet } = this.#parts;
    const { silenceMs, healAfterMs } = scenario;
    const clock = canary?.masterClock?.(this.#clock) ?? this.#clock;
    const workers = machines.map(({ address }) => address);
    const parts = { rng, engine: this.#engine, openChannel: this.#openChannel };
    this.#cluster = await connect({ workers, id: NAME, clock, silenceMs, healAfterMs }, parts);
    fleet.watch(this.#cluster);
    canary?.cluster?.(this.#cluster);
    return this.#cluster;
  }

  /** With one of the scenario's two weights. Throws as `codedModel` of kofn does. */
  async deploy(weights: number): Promise<CodedModel> {
    const { trace, canary } = this.#parts;
    this.#first = weights;
    this.#model = await this.deployTwin(weights);
    const layers = this.#model.plan.layers.map(({ name, decision }) => `${name} ${decision}`);
    trace.add('master', `deployed ${layers.join(', ')}`);
    canary?.model?.(this.#model);
    return this.#model;
  }

  /** The same model as another, whose claims are on the same shards. */
  deployTwin(weights: number): Promise<CodedModel> {
    const {
      workers: count,
      parity,
      code,
      onLoss,
      systematicGraceMs,
      hedge,
      segments,
      verify,
      model,
    } = this.#parts.scenario;
    const workers = Array.from({ length: count }, (_, worker) => worker);
    const shared = { workers, parity, code, onLoss, systematicGraceMs, segments, verify };
    const options = { ...shared, ...(hedge === undefined ? {} : { hedge }) };
    return codedModel(model.versions[weights]!.files, { cluster: this.cluster, ...options });
  }

  /** To the other weights. Undefined when it died meanwhile. Throws as kofn does. */
  async update(): Promise<'updated' | undefined> {
    const next = this.#parts.scenario.model.versions[1 - this.weights]!;
    return Promise.race([this.model.update(next.files).then(() => 'updated' as const), this.death]);
  }

  /** At once, whatever it was at. */
  die(): void {
    this.#clock.die();
    this.#parts.fleet.stop();
    for (const channel of this.#channels) channel.die();
    this.#parts.calls.forget();
    this.#onDeath();
  }

  /** Ends the cluster in order. */
  async close(): Promise<void> {
    this.#parts.fleet.stop();
    await this.#cluster?.close();
  }

  /** What it has not ended, in words. */
  left(): Violation[] {
    return checkMaster({ clock: this.#clock, engine: this.#engine, channels: this.#channels });
  }

  readonly #openChannel = (address: string, { maxMessageBytes, clock }: { maxMessageBytes: number; clock: Clock }) => {
    const { machines, fleet, trace } = this.#parts;
    const host = machines.find(machine => machine.address === address)!;
    const channel = new SimChannel({ address, host, clock, maxMessageBytes, observer: this.#observer });
    this.#channels = this.#channels.filter(({ isClosed, openCalls }) => !isClosed || openCalls > 0);
    fleet.onChannel(channel, this.#channels);
    this.#channels.push(channel);
    host.onLeave = why => channel.leave(why);
    host.onBreak = why => {
      trace.add(host.name, `connection broken: ${why}`);
      for (const each of this.#channels) if (each.address === address) each.break(why);
    };
    return channel;
  };

  get #observer(): NetworkObserver {
    const { calls, fleet, trace } = this.#parts;
    return {
      onFrame: (link, stream, direction, info, fate) => {
        calls.onFrame(link, stream, direction, info, fate);
        fleet.onFrame(link, stream, direction, info, fate);
        const { kind, id, detail } = info;
        const arrow = direction === 'out' ? '→' : '←';
        trace.add('master', `${arrow} ${link.name}: ${kind} ${id} ${detail}${fate === 'arrive' ? '' : ` (${fate})`}`);
      },
      onStreamEnd: (link, stream) => {
        calls.onStreamEnd(link, stream);
        trace.add('master', `stream ${stream} to ${link.name} is over`);
      },
    };
  }
}
