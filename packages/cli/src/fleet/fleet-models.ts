/** What models stand on some workers, by what the workers hold and were told of it: of each layer how many blocks may still be lost. */
import { createCode, type Code, type CodeName } from '@kofn/encoder';
import type { Owner, ShardBlock, WorkerInventory } from '@kofn/wire';

/** A worker that answered. */
export interface Holder {
  readonly worker: number;
  readonly isReady: boolean;
  readonly shards: WorkerInventory['shards'];
}

export interface StandingLayer {
  readonly layer: string;
  readonly code: string;
  readonly k: number;
  readonly r: number;
  /** Its blocks on workers that are ready, ascending. */
  readonly blocks: readonly number[];
  /** How many of these may still be lost, whichever they are; below 0 workers alone cannot answer. */
  readonly margin: number;
}

export interface StandingModel extends Owner {
  /** A shard that is there twice counts twice, and a worker that is not ready, too. */
  readonly shards: number;
  readonly bytes: number;
  readonly workers: readonly number[];
  /** Those that its master has told of. */
  readonly layers: readonly StandingLayer[];
  /** The smallest of its layers'; null when none is known. */
  readonly margin: number | null;
}

/** One for each version of each model, in the order in which they are met. */
export function standingModels(holders: readonly Holder[]): StandingModel[] {
  const models = new Map<string, Gathered>();
  for (const { worker, isReady, shards } of holders) {
    for (const { bytes, owners, uses } of shards) {
      for (const owner of owners) {
        const model = gatheredOf(models, owner);
        model.shards++;
        model.bytes += bytes;
        model.workers.add(worker);
      }
      for (const { owner, block } of uses) addBlock(gatheredOf(models, owner), block, isReady);
    }
  }
  return [...models.values()].map(({ owner, shards, bytes, workers, groups }) => {
    const layers = [...groups.values()].flatMap(layersOf);
    const margin = layers.length === 0 ? null : Math.min(...layers.map(layer => layer.margin));
    return { ...owner, shards, bytes, workers: [...workers], layers, margin };
  });
}

interface Gathered {
  readonly owner: Owner;
  shards: number;
  bytes: number;
  readonly workers: Set<number>;
  readonly groups: Map<string, Group>;
}

/** Layers that share their shards. */
interface Group {
  readonly about: Omit<ShardBlock, 'block'>;
  readonly ready: Set<number>;
}

function gatheredOf(models: Map<string, Gathered>, { cluster, model, version }: Owner): Gathered {
  const key = JSON.stringify([cluster, model, version]);
  const known = models.get(key);
  if (known !== undefined) return known;
  const owner = { cluster, model, version };
  const gathered = { owner, shards: 0, bytes: 0, workers: new Set<number>(), groups: new Map<string, Group>() };
  models.set(key, gathered);
  return gathered;
}

function addBlock({ groups }: Gathered, { block, ...about }: ShardBlock, isReady: boolean): void {
  const key = JSON.stringify([about.layers, about.code, about.k, about.r]);
  const group = groups.get(key) ?? { about, ready: new Set<number>() };
  groups.set(key, group);
  if (isReady) group.ready.add(block);
}

function layersOf({ about: { layers, code, k, r }, ready }: Group): StandingLayer[] {
  const blocks = [...ready].sort((a, b) => a - b);
  const margin = marginOf(code, k, r, ready);
  return layers.map(layer => ({ layer, code, k, r, blocks, margin }));
}

function marginOf(code: string, k: number, r: number, ready: ReadonlySet<number>): number {
  const margins = quorumsOf(code, k, r).map(
    ({ members, count }) => members.filter(member => ready.has(member)).length - count,
  );
  return Math.min(...margins);
}

/** A code that this kofn does not know is taken for one that any k blocks decode: whoever claims a shard may say anything. */
function quorumsOf(code: string, k: number, r: number): Code['quorums'] {
  try {
    return createCode(code as CodeName, { k, r }).quorums;
  } catch {
    return [{ members: Array.from({ length: k + r }, (_, block) => block), count: k }];
  }
}
