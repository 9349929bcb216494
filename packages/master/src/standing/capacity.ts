/**
 * Whether workers have room for a plan beside the one that stands: of disk for both, and of memory to have the shards of both open at
 * once, for until the last request of the old plan has its answer both are in use. Asked before anything is sent; a worker holds to its
 * limits itself, too.
 */
import { KofnError, openScope, type Clock, type Signal } from '@kofn/core';
import type { Owner, WorkerInventory } from '@kofn/wire';
import type { Connection } from '../fleet/connection.js';
import type { PlannedShard } from './survey.js';
import type { WorkerNeed } from '../contract/plan.js';

/** A worker that says nothing for so long is not asked any longer. */
const ASK_DEADLINE_MS = 10_000;

/**
 * What `shards` need of each of `workers`, which are asked what they have. `isStanding` tells the owners of the plan that stands. Throws
 * UNAVAILABLE and DEADLINE_EXCEEDED, naming the worker, and the signal's reason.
 */
export async function needsOf(
  shards: readonly PlannedShard[],
  workers: readonly Connection[],
  about: { isStanding: (owner: Owner) => boolean; clock: Clock; signal?: Signal | undefined },
): Promise<WorkerNeed[]> {
  const { clock, signal: parent, isStanding } = about;
  using scope = openScope(clock, { parent, deadlineMs: ASK_DEADLINE_MS, what: 'question what the workers hold' });
  const { signal } = scope;
  return await Promise.all(
    workers.map(async connection => {
      const inventory = await inventoryOf(connection, signal);
      const planned = new Map(shards.filter(({ worker }) => worker === connection).map(shard => [shard.name, shard]));
      return needOf(connection, inventory, planned, isStanding);
    }),
  );
}

async function inventoryOf(connection: Connection, signal: Signal): Promise<WorkerInventory> {
  try {
    return await connection.ask(client => client.inventory({ signal }), { signal });
  } catch (error) {
    const cause = KofnError.from(error);
    const who = `worker ${connection.index} (${connection.address}) did not say what it holds`;
    throw new KofnError(cause.code, `${who}: ${cause.message}`, { cause });
  }
}

/** Throws RESOURCE_EXHAUSTED naming each worker that has not the room, what both plans need there and what it has. */
export function requireRoom(needs: readonly WorkerNeed[]): void {
  const short = needs.flatMap(need => {
    const { worker, address, standing, missing, diskBytes, diskLimitBytes, both, memoryBytes, memoryLimitBytes } = need;
    const who = `worker ${worker} (${address})`;
    return [
      ...(diskBytes > diskLimitBytes && missing.bytes > 0
        ? [`${who} would keep ${diskBytes} bytes on disk and may keep ${diskLimitBytes} (--max-disk)`]
        : []),
      ...(memoryBytes > memoryLimitBytes && both.shards > standing.shards
        ? [`${who} would need ${memoryBytes} bytes of memory and may use ${memoryLimitBytes} (--max-memory)`]
        : []),
    ];
  });
  if (short.length === 0) return;
  throw new KofnError(
    'RESOURCE_EXHAUSTED',
    `the old plan and the new one do not fit beside each other: ${short.join('; ')}. Raise the limit, plan without that worker ` +
      `(workers), or close the model and deploy it anew, which needs room for one plan alone`,
  );
}

function needOf(
  { index, address }: Connection,
  inventory: WorkerInventory,
  planned: ReadonlyMap<string, { readonly bytes: number }>,
  isStanding: (owner: Owner) => boolean,
): WorkerNeed {
  const { diskUsedBytes, diskLimitBytes, memoryLimitBytes, sessionBytes } = inventory;
  const held = new Set(inventory.shards.map(({ name }) => name));
  const standing = new Map(
    inventory.shards.filter(({ owners }) => owners.some(isStanding)).map(shard => [shard.name, shard]),
  );
  const missing = total([...planned].filter(([name]) => !held.has(name)).map(([, shard]) => shard));
  const both = total(new Map([...standing, ...planned]).values());
  return {
    worker: index,
    address,
    standing: total(standing.values()),
    planned: total(planned.values()),
    missing,
    both,
    diskBytes: diskUsedBytes + missing.bytes,
    diskLimitBytes,
    memoryBytes: both.bytes + both.shards * sessionBytes,
    memoryLimitBytes,
  };
}

function total(shards: Iterable<{ readonly bytes: number }>): { shards: number; bytes: number } {
  const sizes = [...shards].map(({ bytes }) => bytes);
  return { shards: sizes.length, bytes: sizes.reduce((sum, bytes) => sum + bytes, 0) };
}
