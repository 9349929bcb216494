/**
 * A new plan for the fleet as it is now, beside the one that stands: `CodedModel.replan` has it answer from one request to the next,
 * `replanStanding` changes what an earlier program left on workers. Beside it: design.ts (the plan), survey.ts (its shards), capacity.ts
 * (whether there is room).
 *
 * Invariants
 * 1. Nothing is sent before it is known that each worker of the new plan has room for both.
 * 2. The old plan's claims stay until the new one stands; when it fails, the new one's are given up.
 */
import { KofnError } from '@kofn/core';
import type { Owner } from '@kofn/wire';
import { needsOf, requireRoom } from './capacity.js';
import { giveUp } from './claims.js';
import type { Cluster } from '../fleet/cluster.js';
import type { Connection } from '../fleet/connection.js';
import { deploy, type Deployment } from './deployment.js';
import { designOf, type Design, type DeployOptions, type DeploySource } from '../planning/design.js';
import { knownHomes, type KnownHomes } from '../blocks/homes.js';
import { resolveWorkers, type ModelOptions } from '../contract/options.js';
import type { Plan, WorkerNeed, Replanned } from '../contract/plan.js';
import type { ModelSource } from '../planning/prepare.js';
import { survey } from './survey.js';

/** What stands on workers under one name, as their inventories have it. */
export interface StandingModel {
  /** `id` of the cluster that deployed it. */
  readonly cluster: string;
  readonly model: string;
  /** The latest. */
  readonly version: number;
  readonly workers: readonly number[];
  readonly shards: number;
  readonly bytes: number;
}

/** The models that the shards of a cluster's workers are claimed for, by whichever program, as the workers said when they connected. */
export function standingOn({ connections }: Cluster): StandingModel[] {
  const standing = new Map<string, StandingModel>();
  for (const { index, inventory } of connections) {
    for (const { bytes, owners } of inventory.shards) {
      const latest = new Map<string, Owner>(); // a shard that several versions claim counts once
      for (const owner of owners) {
        const key = JSON.stringify([owner.cluster, owner.model]);
        if ((latest.get(key)?.version ?? -1) < owner.version) latest.set(key, owner);
      }
      for (const [key, { cluster, model, version }] of latest) {
        const before = standing.get(key) ?? { cluster, model, version, workers: [], shards: 0, bytes: 0 };
        standing.set(key, {
          ...before,
          version: Math.max(version, before.version),
          workers: [...new Set([...before.workers, index])],
          shards: before.shards + 1,
          bytes: before.bytes + bytes,
        });
      }
    }
  }
  return [...standing.values()];
}

/**
 * Puts the plan for the workers that are ready in the place of a model that an earlier program left on them, for the next program of
 * the same cluster `id`: claims the new plan's shards as the next version, and then gives up all versions before. With `keepOld` those
 * stay until their leases end: for while another master still answers by them, which would lose its shards else. Throws as
 * `CodedModel.replan`.
 */
export async function replanStanding(
  source: ModelSource,
  options: ModelOptions & {
    readonly cluster: Cluster;
    readonly standing: StandingModel;
    readonly keepOld?: boolean;
    readonly dryRun?: boolean;
  },
): Promise<Replanned> {
  const { cluster, standing, keepOld = false, dryRun = false } = options;
  const { connections, clock } = cluster;
  const owner: Owner = { cluster: standing.cluster, model: standing.model, version: standing.version + 1 };
  const workers = workersFor(connections, options.workers, undefined);
  const known = within(knownHomes(connections, owner), workers);
  const isStanding = (other: Owner) => isModel(owner)(other) && other.version < owner.version;
  const about = { ...options, workers, known };
  const before = { workers: standing.workers, plan: undefined };
  if (dryRun) {
    const dry = await dryRunOf(source, owner, about, isStanding);
    return replannedOf({ model: standing.model, version: standing.version, before, workers, ...dry });
  }
  let needs: WorkerNeed[] = [];
  let deployment: Deployment;
  try {
    const beforePut = async (design: Design) => void (needs = await roomFor(design, about, isStanding));
    deployment = await deploy(source, owner, { ...about, beforePut });
  } catch (error) {
    await giveUp(connections, clock, owner);
    throw error;
  }
  const { plan } = deployment;
  await deployment.retire();
  if (!keepOld) {
    const claims = connections.flatMap(({ inventory }) => inventory.shards.flatMap(({ owners }) => owners));
    const versions = new Set(claims.filter(isStanding).map(({ version }) => version));
    for (const version of versions) await giveUp(connections, clock, { ...owner, version });
  }
  return replannedOf({ model: owner.model, version: owner.version, before, workers, plan, needs });
}

/** @internal What the plan needs of its workers, once it is sure that they have it. Throws RESOURCE_EXHAUSTED, UNAVAILABLE. */
export async function roomFor(
  design: Design,
  { cluster: { clock }, signal }: DeployOptions,
  isStanding: (owner: Owner) => boolean,
): Promise<WorkerNeed[]> {
  const about = { clock, signal, isStanding };
  const needs = await needsOf(await survey(design, about), design.holders, about);
  requireRoom(needs);
  return needs;
}

/** @internal As a deployment, up to where it would put the first shard. */
export async function dryRunOf(
  source: DeploySource,
  owner: Owner,
  options: DeployOptions,
  isStanding: (owner: Owner) => boolean,
): Promise<{ plan: Plan; needs: WorkerNeed[] }> {
  const design = await designOf(source, owner, options);
  try {
    return { plan: design.planning.plan, needs: await roomFor(design, options, isStanding) };
  } finally {
    await design.prepared.close();
  }
}

/**
 * @internal The numbers of the workers to plan for: those `given`, which must be ready, else those of `own` that are, else all that are.
 * Throws INVALID_ARGUMENT, UNAVAILABLE.
 */
export function workersFor(
  connections: readonly Connection[],
  given: readonly number[] | undefined,
  own: readonly number[] | undefined,
): readonly number[] {
  if (given !== undefined) {
    const workers = resolveWorkers({ workers: given }, connections.length);
    const away = workers.map(worker => connections[worker]!).filter(({ takesCalls }) => !takesCalls);
    if (away.length === 0) return workers;
    const why = away.map(({ whyAway }) => whyAway).join('; ');
    throw new KofnError('UNAVAILABLE', `workers: ${why}. A plan is made for workers that are ready: leave it out`);
  }
  const ready = connections.filter(({ takesCalls }) => takesCalls).map(({ index }) => index);
  const workers = own === undefined ? ready : own.filter(worker => ready.includes(worker));
  if (workers.length > 0) return workers;
  const who = own === undefined ? 'the cluster' : 'the workers that the model stands on';
  throw new KofnError(
    'UNAVAILABLE',
    `none of ${who} is ready, so there is nothing to plan for; start some, or add others`,
  );
}

/** @internal What stands on `workers`: a plan leaves the others, also where they hold what it needs. */
export function within(homes: KnownHomes, workers: readonly number[]): KnownHomes {
  return new Map([...homes].map(([name, at]) => [name, at.filter(worker => workers.includes(worker))]));
}

function isModel({ cluster, model }: Owner): (other: Owner) => boolean {
  return other => other.cluster === cluster && other.model === model;
}

/** @internal */
export function isOwner(owner: Owner): (other: Owner) => boolean {
  return other => isModel(owner)(other) && other.version === owner.version;
}

/** @internal */
export function replannedOf(parts: Omit<Replanned, 'missingBytes'>): Replanned {
  return { ...parts, missingBytes: parts.needs.reduce((sum, { missing }) => sum + missing.bytes, 0) };
}

/** @internal */
export function wordsOf({ model, version, before, workers, plan }: Replanned): string {
  const old = before.plan === undefined ? '' : codeOf(before.plan);
  const what = `a plan for ${workers.length} workers${codeOf(plan)} in place of one for ${before.workers.length}${old}`;
  return `model "${model}" stands by ${what}, as version ${version}`;
}

function codeOf({ layers }: Plan): string {
  const coded = layers.find(layer => layer.coded !== undefined)?.coded;
  return coded === undefined ? ' (nothing coded)' : ` (${coded.code}, k = ${coded.k}, r = ${coded.r})`;
}
