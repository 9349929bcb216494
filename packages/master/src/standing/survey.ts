/** What a plan puts where, before anything of it is put: the shards of all its layers, by their names, with their sizes. */
import { inTurns, sleep, throwIfAborted, type Clock, type Signal } from '@kofn/core';
import { modelFiles, type ModelFiles } from '@kofn/graph';
import { shardName } from '@kofn/wire';
import type { Connection } from '../fleet/connection.js';
import type { Design } from '../planning/design.js';
import { Homes } from '../blocks/homes.js';
import { codedGroup } from './placement.js';
import { shardFiles } from '../blocks/shard-maker.js';

export interface PlannedShard {
  readonly worker: Connection;
  readonly name: string;
  readonly bytes: number;
}

/**
 * Encodes every block once for its name alone, and keeps none: a name is a hash. Requests go on between two blocks. Throws what a weight
 * that cannot be read throws, and the signal's reason.
 */
export async function survey(
  { planning, holders, code, hedge, context }: Design,
  { clock, signal }: { clock: Clock; signal?: Signal | undefined },
): Promise<PlannedShard[]> {
  const segments = new Map(planning.plan.segments.map(segment => [segment.name, segment]));
  const shards: PlannedShard[] = [];
  for (const step of planning.cut.steps) {
    if (step.kind === 'segment') {
      const places = segments.get(step.name)!.workers.map(worker => holders[worker]!);
      if (places.length === 0) continue;
      const shard = sized(modelFiles(step.image()));
      const homes = new Homes({ ...context, places }, places.length);
      places.forEach((_, copy) => shards.push({ worker: homes.own(copy, shard.name), ...shard }));
      continue;
    }
    const layers = codedGroup(step, planning, code).encode();
    const homes = new Homes(context, code.n);
    for (let block = 0; block < code.n; block++) {
      const shard = sized(await inTurns(clock, shardFiles(layers, block), signal));
      shards.push({ worker: homes.own(block, shard.name), ...shard });
      if (hedge !== undefined && block < code.k) shards.push({ worker: homes.other(block, shard.name), ...shard });
      await sleep(clock, 0, signal);
    }
  }
  throwIfAborted(signal);
  return shards;
}

function sized({ model, weights }: ModelFiles): { name: string; bytes: number } {
  return { name: shardName(model, weights), bytes: model.byteLength + weights.byteLength };
}
