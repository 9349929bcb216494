/**
 * A deployment before anything of it is opened or put: what stands where, as it is planned. deployment.ts puts it, `planModel` only
 * tells of it.
 */
import { KofnError, systemClock, throwIfAborted } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import type { Owner } from '@kofn/wire';
import type { Cluster } from '../fleet/cluster.js';
import type { Connection } from '../fleet/connection.js';
import { awayOf, blockOrder, knownHomes, presentOf, type KnownHomes, type PlacingContext } from '../blocks/homes.js';
import { measureSpeeds } from './measure.js';
import {
  requireRange,
  resolveCode,
  resolveHedge,
  resolveSegments,
  resolveVerify,
  resolveWorkers,
  type ModelOptions,
  type ResolvedCode,
  type ResolvedVerify,
  type HedgeAfter,
} from '../contract/options.js';
import { ASSUMED_SPEEDS, type Plan, type Speeds } from '../contract/plan.js';
import { planLayers, type Planning } from './planner.js';
import { prepareModel, type ModelSource, type PreparedModel } from './prepare.js';

/** A model, or one that a deployment has already, made ready for another by its engine. */
export type DeploySource = ModelSource | ((engine: Engine) => PreparedModel);

export type DeployOptions = ModelOptions & { readonly cluster: Cluster; readonly known?: KnownHomes };

/** What stands where, as it is planned. */
export interface Design {
  readonly prepared: PreparedModel;
  readonly planning: Planning;
  readonly holders: readonly Connection[];
  readonly code: ResolvedCode;
  readonly hedge: HedgeAfter | undefined;
  readonly verify: ResolvedVerify;
  readonly context: PlacingContext;
}

/** Plans a deployment; whoever has the design closes `prepared`. Throws as `deploy` does. */
export async function designOf(source: DeploySource, owner: Owner, options: DeployOptions): Promise<Design> {
  const { cluster, layers = 'all', sampleInputs, signal } = options;
  const { connections, engineThreads: threads, clock } = cluster;
  cluster.assertOpen();
  const holders = holdersOf(cluster, options);
  const code = resolveCode(options, holders.length);
  const hedge = resolveHedge(options, holders.length);
  const segments = resolveSegments(options, holders.length);
  const verify = resolveVerify(options, code);
  if (options.systematicGraceMs !== undefined) requireRange('systematicGraceMs', options.systematicGraceMs, 0, 60_000);
  const present = presentOf(connections, holders);
  const engine = await cluster.planningEngine();
  const workers = blockOrder(holders);
  let speeds: Speeds | undefined;
  return planned(source, engine, async prepared => {
    speeds ??= layers === 'auto' ? await measureSpeeds(cluster, present, code, signal) : ASSUMED_SPEEDS;
    throwIfAborted(signal);
    const about = { code, hedge, segments, workers, choice: layers, sampleInputs, speeds };
    const planning = await planLayers(prepared, { engine, threads, clock, ...about });
    await prepared.settle();
    const known = options.known ?? knownHomes(connections, owner);
    const places = workers.map(worker => holders[worker]!);
    const context = { connections, places, known, away: awayOf(connections) };
    return { prepared, planning, holders, code, hedge, verify, context };
  });
}

/** `plan` of the model in the first form that it takes. What fails is closed. */
async function planned<T>(
  source: DeploySource,
  engine: Engine,
  plan: (prepared: PreparedModel) => Promise<T>,
): Promise<T> {
  if (typeof source !== 'function') return prepareModel(source, engine, plan);
  const prepared = source(engine);
  try {
    return await plan(prepared);
  } catch (error) {
    await prepared.close();
    throw error;
  }
}

/**
 * The plan without a deployment. With a cluster every figure is measured on it; without, `workerCount` workers at
 * {@link ASSUMED_SPEEDS}. Throws as `codedModel` does.
 */
export async function planModel(
  source: ModelSource,
  options: ModelOptions & ({ cluster: Cluster } | { cluster?: undefined; workerCount: number }),
): Promise<Plan> {
  const { cluster, layers = 'auto', sampleInputs, signal } = options;
  const holders = cluster === undefined ? undefined : holdersOf(cluster, options);
  const count = cluster === undefined ? resolveWorkers(options, options.workerCount).length : holders!.length;
  const code = resolveCode(options, count);
  const hedge = resolveHedge(options, count);
  const segments = resolveSegments(options, count);
  resolveVerify(options, code);
  await using own = cluster === undefined ? await createEngine('auto') : undefined;
  const engine = own ?? cluster!.engine;
  const { engineThreads: threads = 1, clock = systemClock } = cluster ?? {};
  const workers = holders === undefined ? [...Array(count).keys()] : blockOrder(holders);
  let speeds: Speeds | undefined;
  return await planned(source, engine, async prepared => {
    speeds ??=
      cluster === undefined
        ? ASSUMED_SPEEDS
        : await measureSpeeds(cluster, presentOf(cluster.connections, holders!), code, signal);
    const about = { code, hedge, segments, workers, choice: layers, sampleInputs, speeds };
    const { plan } = await planLayers(prepared, { engine, threads, clock, ...about });
    await prepared.close();
    return plan;
  });
}

/** The workers that hold a model with these options. Throws INVALID_ARGUMENT. */
function holdersOf({ connections }: Cluster, options: ModelOptions): readonly Connection[] {
  const holders = resolveWorkers(options, connections.length).map(worker => connections[worker]!);
  const isRemoved = ({ state }: Connection) => state.kind === 'removed';
  if (options.workers === undefined) return holders.filter(holder => !isRemoved(holder));
  const removed = holders.find(isRemoved);
  if (removed === undefined) return holders;
  throw new KofnError('INVALID_ARGUMENT', `workers: ${removed.whyAway}; add it again, which gives it another number`);
}
