/**
 * One version of a model as it stands on a cluster: its plan, its steps with their sessions, and the shards it has put.
 * coded-model.ts runs requests on it and swaps one for the next.
 *
 * Invariants
 * 1. A deployment that fails half-way leaves no session and no temporary file behind. Shards already put stay, so that a
 *    repeat sends the rest.
 * 2. `retire` waits for the requests that run, dispose ends them; after either nothing of the deployment is left here.
 */
import { abortable, KofnError, openScope, throwIfAborted, type Scope, type Tensors } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import { constantValue, modelFiles, wholeModel, type OnnxModel } from '@kofn/graph';
import type { Owner } from '@kofn/wire';
import { atWorkers, giveUp } from './claims.js';
import type { Cluster } from '../fleet/cluster.js';
import type { Connection } from '../fleet/connection.js';
import { designOf, type Design, type DeployOptions, type DeploySource } from '../planning/design.js';
import { Healer } from './heal.js';
import { healthOf, holdingsOf, requireDecodable, workersOf, type Holding, type PutOutcome } from './holding.js';
import type { KnownHomes } from '../blocks/homes.js';
import { checkInputs } from '../contract/inputs.js';
import { openLocally } from '../blocks/local-session.js';
import { fileOrder, measuredMsPerMac, type Plan } from '../contract/plan.js';
import { codedGroup, placeLayers, placeSegment, type PlaceOptions } from './placement.js';
import type { Planning } from '../planning/planner.js';
import type { PreparedModel } from '../planning/prepare.js';
import { LocalBlocks, Resends } from '../blocks/recover.js';
import { refusalsOf, refusalWords } from '../blocks/refusals.js';
import { ReplicatedSegment, type ExpectedOutput } from '../request/replicated-segment.js';
import type { LayerReport } from '../contract/report.js';
import { runSteps, type DeployedStep, type StepsResult } from '../request/run.js';
import { ShardMaker } from '../blocks/shard-maker.js';
import { localSpans } from '../contract/spans.js';
import { Verifier } from './verifier.js';
import type { RequestContext } from '../blocks/worker-call.js';
import type { ModelHealth } from '../contract/health.js';

export class Deployment {
  readonly owner: Owner;
  readonly model: OnnxModel;
  readonly plan: Plan;
  readonly #placed: readonly Connection[];
  readonly #cluster: Cluster;
  readonly #prepared: PreparedModel;
  readonly #steps: readonly DeployedStep[];
  readonly #holdings: readonly Holding[];
  readonly #healer: Healer;
  /** Places of the layers in the file. */
  readonly #order: ReadonlyMap<string, number>;
  /** The requests that run: what ends each, and its end. */
  readonly #running = new Map<Scope, Promise<unknown>>();
  readonly #verifier: Verifier;
  #whole: Promise<Session> | undefined;
  #disposal: Promise<void> | undefined;

  /** @internal Use {@link deploy}. */
  constructor(
    owner: Owner,
    parts: {
      cluster: Cluster;
      holders: readonly Connection[];
      prepared: PreparedModel;
      plan: Plan;
      types: Planning['types'];
      steps: readonly DeployedStep[];
      verifier: Verifier;
      away: ReadonlySet<Connection>;
    },
  ) {
    this.owner = owner;
    this.model = withTypes(parts.prepared.model, parts.types);
    this.plan = parts.plan;
    this.#placed = parts.holders;
    this.#cluster = parts.cluster;
    this.#prepared = parts.prepared;
    this.#steps = parts.steps;
    this.#verifier = parts.verifier;
    this.#order = fileOrder(parts.plan);
    this.#holdings = holdingsOf(parts.steps);
    const renew = (connection: Connection) => this.renew([connection]);
    const left = this.#inVain();
    this.#healer = new Healer(parts.cluster, { owner, holdings: this.#holdings, left, renew });
    void this.renew([...parts.away]); // nothing was claimed at those, and some may have come meanwhile
  }

  /** The workers that may hold shards of it, those included that were given some to help out, or have been lost since. */
  get holders(): readonly Connection[] {
    const { connections } = this.#cluster;
    const now = this.#holdings.flatMap(holding => [...workersOf(holding)].map(worker => connections[worker]!));
    const given = this.#holdings.flatMap(({ resends }) => [...resends.given]);
    return [...new Set([...this.#placed, ...now, ...given, ...this.#healer.leftAt])];
  }

  get health(): ModelHealth {
    return healthOf(this.#holdings, this.#cluster.connections);
  }

  /** Where its shards stand, by name. */
  get homes(): KnownHomes {
    const homes = new Map<string, readonly number[]>();
    for (const { name, workers } of this.#holdings.flatMap(({ blocks }) => blocks)) {
      homes.set(name, [...new Set([...(homes.get(name) ?? []), ...workers])]);
    }
    return homes;
  }

  /** The numbers of the workers that its blocks and segments stand on now, in the order of the blocks. */
  get standsOn(): readonly number[] {
    return [...new Set(this.#holdings.flatMap(holding => [...workersOf(holding)]))];
  }

  /** The version before this one has left the workers. */
  roomMade(): void {
    this.#healer.tryAgain();
  }

  /** A worker is new in the cluster. */
  welcome(connection: Connection): void {
    this.#healer.welcome(connection);
  }

  /** Its model for another deployment. */
  share(engine: Engine): PreparedModel {
    return this.#prepared.share(engine);
  }

  /** One request. Throws INVALID_ARGUMENT, DTYPE_MISMATCH, SHAPE_MISMATCH (inputs), else as run.ts. */
  async run(inputs: Tensors, context: RequestContext): Promise<StepsResult> {
    const { model } = this;
    const fed = model.overridable.filter(({ name }) => inputs[name] !== undefined);
    checkInputs([...model.inputs, ...fed], inputs);
    const names = model.outputs.map(output => output.name);
    const scope = openScope(context.clock, { parent: context.signal });
    const { signal } = scope;
    const running =
      fed.length > 0
        ? abortable(this.#runWhole(inputs, names), signal)
        : runSteps(this.#steps, inputs, names, { ...context, signal });
    const ended = running
      .catch(() => undefined)
      .finally(() => {
        this.#verifier.investigate(context.suspicions);
        this.#running.delete(scope);
        scope[Symbol.dispose]();
      });
    this.#running.set(scope, ended);
    const result = await running;
    const position = ({ name }: LayerReport) => this.#order.get(name)!;
    return { ...result, layers: result.layers.sort((a, b) => position(a) - position(b)) };
  }

  /** Claims the shards on `at` for another lease. A worker that cannot be reached keeps them until its lease ends. */
  async renew(at = this.holders): Promise<void> {
    await atWorkers(at, this.#cluster.clock, async (connection, signal) => {
      const { shards } = connection;
      const all = this.#holdings.flatMap(({ blocks }) => blocks.map(({ name }) => name));
      const names = [...new Set(all)].filter(name => shards.has(name) && !this.#healer.isLeft(connection, name));
      if (names.length === 0) return;
      const missing = await connection.ask(client => client.claim(names, this.owner, { signal }), { signal });
      connection.lacks(...missing);
    });
  }

  /** Drops every claim of this version; the bytes go where nobody else claims them. */
  giveUp(): Promise<void> {
    return giveUp(this.holders, this.#cluster.clock, this.owner);
  }

  /** Waits for the requests that run, then frees all that the deployment has here. */
  async retire(): Promise<void> {
    await this.#healer[Symbol.asyncDispose]();
    await Promise.all(this.#running.values());
    await this[Symbol.asyncDispose]();
  }

  /** Ends the requests that run with CANCELLED, then frees all. */
  [Symbol.asyncDispose](): Promise<void> {
    return (this.#disposal ??= this.#dispose());
  }

  async #dispose(): Promise<void> {
    await this.#healer[Symbol.asyncDispose]();
    const ending = [...this.#running.values()];
    for (const scope of this.#running.keys()) scope.abort(new KofnError('CANCELLED', 'the model was closed meanwhile'));
    await Promise.all(ending);
    await this.#verifier[Symbol.asyncDispose]();
    const whole = await this.#whole?.catch(() => undefined);
    await whole?.[Symbol.asyncDispose]();
    await disposeSteps(this.#steps);
    await this.#prepared.close();
  }

  /** What an earlier master of the same name has put where it does not stand now, or that is of another plan. */
  #inVain(): Map<Connection, Set<string>> {
    const { owner, homes } = this;
    const left = new Map<Connection, Set<string>>();
    for (const connection of this.#cluster.connections) {
      const isOurs = (claim: Owner) => JSON.stringify(claim) === JSON.stringify(owner);
      for (const { name, owners } of connection.inventory.shards) {
        const stands = homes.get(name);
        if (stands?.includes(connection.index) === true || !connection.shards.has(name)) continue;
        if (owners.some(isOurs)) left.set(connection, (left.get(connection) ?? new Set()).add(name));
      }
    }
    return left;
  }

  /** With other weights than those that are coded: here, and nothing of it on workers. */
  async #runWhole(inputs: Tensors, names: readonly string[]): Promise<StepsResult> {
    const { model } = this;
    const { clock } = this.#cluster;
    const start = clock.now();
    const overridable = model.overridable.map(({ name }) => name);
    const { engine, engineThreads } = this.#cluster;
    this.#whole ??= openLocally(engine, wholeModel(model, overridable), engineThreads);
    const session = await this.#whole;
    const initial = overridable.filter(name => inputs[name] === undefined);
    const constants = initial.map(name => [name, constantValue(model, model.constants.get(name)!)] as const);
    const outputs = await session.run({ ...inputs, ...Object.fromEntries(constants) });
    const wanted = Object.fromEntries(names.map(name => [name, outputs[name]!]));
    return { outputs: wanted, layers: [], segments: [], spans: localSpans(clock.now() - start) };
  }
}

/**
 * Plans, opens the segments and puts the shards. Throws what is wrong with the options (INVALID_ARGUMENT), the file
 * (NOT_FOUND, INVALID_MODEL, DATA_LOSS), a layer name (NOT_FOUND, UNSUPPORTED), or a worker (UNAVAILABLE,
 * RESOURCE_EXHAUSTED, STORAGE, DATA_LOSS). Workers that are away when it begins are no reason to fail while the others, or `onLoss`, can
 * answer, nor are those that do not take their part while the others can: it is put when they come, or healed.
 */
export async function deploy(
  source: DeploySource,
  owner: Owner,
  options: DeployOptions & {
    /** Sees the design before anything of it is put; what it throws ends the deployment. */
    readonly beforePut?: (design: Design) => Promise<void>;
    /** The margin that is left where a worker does not take its part, or the deployment fails. Default 0. */
    readonly leastMargin?: number;
  },
): Promise<Deployment> {
  const { cluster } = options;
  const design = await designOf(source, owner, options);
  const { prepared, planning, holders } = design;
  const verifier = new Verifier(design.verify, cluster);
  const steps: DeployedStep[] = [];
  try {
    await options.beforePut?.(design);
    const { connections, away } = design.context;
    const { leastMargin = 0, onLoss } = options;
    const outcome: PutOutcome = { connections, away, needsAway: onLoss === 'fail', leastMargin };
    for await (const step of openSteps(design, { ...options, owner, verifier })) {
      steps.push(step);
      for (const holding of holdingsOf([step])) requireDecodable(holding, outcome);
    }
    const refusals = refusalsOf(holdingsOf(steps), connections);
    const plan = { ...planning.plan, refusals };
    const deployment = new Deployment(owner, {
      cluster,
      holders,
      prepared,
      plan,
      types: planning.types,
      steps,
      verifier,
      away,
    });
    for (const text of plan.notes) cluster.tell({ kind: 'noted', message: `${owner.model}: ${text}` });
    for (const refusal of refusals) {
      const message = `${refusalWords(refusal)}; model "${owner.model}" goes on without it, and it is tried again`;
      cluster.tell({ kind: 'failed', worker: refusal.worker, message });
    }
    return deployment;
  } catch (error) {
    await disposeSteps(steps);
    await prepared.close();
    throw error;
  }
}

/** Opens the segments and puts the shards; gives each step once it stands. */
async function* openSteps(
  { prepared: { model }, planning, holders, code, hedge, context }: Design,
  { cluster, owner, verifier, onProgress, signal }: DeployOptions & { owner: Owner; verifier: Verifier },
): AsyncGenerator<DeployedStep> {
  const { engine, engineThreads, clock } = cluster;
  const { plan, coded, cut, types } = planning;
  const segments = new Map(plan.segments.map(segment => [segment.name, segment]));
  let sentBytes = 0;
  let totalBytes = 0;
  let layerNumber = 0;
  const placing = (layer: string): PlaceOptions => {
    const before = { sentBytes, totalBytes };
    const onBytes = (sent: number, total: number) => {
      sentBytes = before.sentBytes + sent;
      totalBytes = before.totalBytes + total;
      onProgress?.({ layer, layerNumber, layerCount: coded.length, sentBytes, totalBytes });
    };
    return { clock, signal, owner, onBytes };
  };
  for (const step of cut.steps) {
    throwIfAborted(signal);
    if (step.kind === 'segment') {
      const { inputs, outputs } = step;
      const openHere = () => openLocally(engine, step.image(), engineThreads);
      const { decision, workers } = segments.get(step.name)!;
      if (decision === 'local') {
        yield { kind: 'segment', inputs, outputs, session: await openHere() };
        continue;
      }
      const places = workers.map(worker => holders[worker]!);
      const { shard, at, refused } = await placeSegment(step, { ...context, places }, placing(step.name));
      const files = () => Promise.resolve({ name: shard, ...modelFiles(step.image()) });
      const resends = new Resends(clock, owner, refused, files);
      const expected = expectedOf(model, outputs, types);
      const about = { name: step.name, shard, workers: at, resends, outputs: expected, openHere };
      yield { kind: 'replicated', inputs, outputs, segment: new ReplicatedSegment(about) };
      continue;
    }
    const { members, codables, encode } = codedGroup(step, planning, code);
    const options = placing(members.map(({ node }) => node).join(', '));
    const localMsPerMac = measuredMsPerMac(plan, members);
    const { refused, ...placed } = await placeLayers(encode(), code, context, { ...options, hedge, localMsPerMac });
    layerNumber += members.length;
    const maker = new ShardMaker(clock, codables, placed.layers);
    const local = new LocalBlocks(engine, engineThreads, block => maker.files(block));
    const resends = new Resends(clock, owner, refused, async (block, signal) => {
      return { name: placed.shards[block]!.name, ...(await maker.stream(block, signal)) };
    });
    const outputs = members.map(({ output }) => output);
    const checks = verifier.of(encode);
    yield { kind: 'coded', input: step.input, outputs, group: { ...placed, ...checks, local, resends } };
  }
}

/** The model with the types of outputs that its file leaves out, as a run of it has shown them. */
function withTypes(model: OnnxModel, types: Planning['types']): OnnxModel {
  const outputs = model.outputs.map(output => ({ ...output, dtype: types[output.name]?.dtype ?? output.dtype }));
  return { ...model, outputs };
}

/** What the file says of `outputs`, or the run of the model that the plan was made with: there sizes may change. */
function expectedOf(model: OnnxModel, outputs: readonly string[], types: Planning['types']): ExpectedOutput[] {
  return outputs.map(name => {
    const { dtype, rank } = types[name]!;
    const declared = model.outputs.find(output => output.name === name)?.shape ?? [];
    const shape = Array.from({ length: rank }, (_, axis) => (declared.length === rank ? declared[axis]! : '?'));
    return { name, dtype, shape };
  });
}

async function disposeSteps(steps: readonly DeployedStep[]): Promise<void> {
  for (const step of steps) {
    if (step.kind === 'segment') {
      await step.session[Symbol.asyncDispose]();
    } else if (step.kind === 'replicated') {
      await step.segment[Symbol.asyncDispose]();
    } else {
      await step.group.resends[Symbol.asyncDispose]();
      await step.group.local[Symbol.asyncDispose]();
    }
  }
}
