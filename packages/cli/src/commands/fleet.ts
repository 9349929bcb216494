/**
 * `kofn fleet`: what each of some workers says of itself, on one screen. It asks and changes nothing, and needs no master: what stands
 * where is in the workers' own inventories.
 */
import { KofnError, openScope, systemClock } from '@kofn/core';
import { connectChannel, WorkerClient, type Owner, type WorkerInventory } from '@kofn/wire';
import { EXIT_FAILED, EXIT_OK } from '../exit.js';
import { formatBytes, formatMs, plural, table } from '../render.js';

export interface FleetArguments {
  readonly workers: readonly string[];
  readonly deadline: number;
  readonly json?: boolean;
}

/** Questions whose median is the round trip. */
const ROUNDS = 5;
const MAX_MESSAGE_BYTES = 2 ** 28;

interface OwnedShards {
  readonly cluster: string;
  readonly model: string;
  readonly version: number;
  readonly shards: number;
  readonly bytes: number;
}

interface WorkerObject {
  readonly worker: number;
  readonly address: string;
  /** `unreachable` when it did not answer in time, for the reason given. */
  readonly state: 'ready' | 'engine stuck' | 'draining' | 'unreachable';
  readonly reason: string;
  readonly roundTripMs: number | null;
  readonly engine: string | null;
  readonly cores: number | null;
  readonly memoryLimitBytes: number | null;
  readonly diskUsedBytes: number | null;
  readonly diskLimitBytes: number | null;
  readonly shards: number | null;
  readonly shardBytes: number | null;
  readonly owners: readonly OwnedShards[];
}

/** Returns the exit code. Throws INVALID_ARGUMENT (an address). */
export async function fleet({ workers, deadline, json }: FleetArguments, signal: AbortSignal): Promise<number> {
  const wrong = workers.find(address => !/^\S+:\d+$/.test(address));
  if (wrong !== undefined) throw new KofnError('INVALID_ARGUMENT', `--workers: "${wrong}" is not host:port`);
  const seen = await Promise.all(workers.map((address, worker) => look(worker, address, deadline, signal)));
  process.stdout.write(json === true ? `${JSON.stringify({ workers: seen })}\n` : text(seen));
  return seen.every(({ state }) => state !== 'unreachable') ? EXIT_OK : EXIT_FAILED;
}

/** Throws the signal's reason alone. */
async function look(worker: number, address: string, deadlineMs: number, parent: AbortSignal): Promise<WorkerObject> {
  using scope = openScope(systemClock, { parent, deadlineMs, what: 'the question' });
  const { signal } = scope;
  const channel = connectChannel(address, { maxMessageBytes: MAX_MESSAGE_BYTES, clock: systemClock });
  try {
    await channel.ready({ signal, deadlineMs });
    const client = await WorkerClient.open(channel, { signal });
    const inventory = await client.inventory({ signal });
    const { ready, live } = await client.health({ signal });
    const roundTripMs = await roundTrip(() => client.live({ signal }));
    await client.close();
    const bytes = inventory.shards.reduce((sum, shard) => sum + shard.bytes, 0);
    return {
      worker,
      address,
      state: ready ? 'ready' : live ? 'engine stuck' : 'draining',
      reason: '',
      roundTripMs,
      engine: `${inventory.engine} ${inventory.engineVersion}`.trim(),
      cores: inventory.cores,
      memoryLimitBytes: inventory.memoryLimitBytes,
      diskUsedBytes: inventory.diskUsedBytes,
      diskLimitBytes: inventory.diskLimitBytes,
      shards: inventory.shards.length,
      shardBytes: bytes,
      owners: ownersIn(inventory),
    };
  } catch (error) {
    if (parent.aborted) throw error;
    return unreachable(worker, address, KofnError.from(error, 'UNAVAILABLE').message);
  } finally {
    await channel[Symbol.asyncDispose]();
  }
}

function unreachable(worker: number, address: string, reason: string): WorkerObject {
  const nothing = { roundTripMs: null, engine: null, cores: null, memoryLimitBytes: null, diskUsedBytes: null };
  const none = { diskLimitBytes: null, shards: null, shardBytes: null, owners: [] };
  return { worker, address, state: 'unreachable', reason, ...nothing, ...none };
}

async function roundTrip(ask: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = systemClock.now();
    await ask();
    times.push(systemClock.now() - start);
  }
  return times.sort((a, b) => a - b)[Math.floor(ROUNDS / 2)]!;
}

/** A shard that two owners claim counts for both. */
function ownersIn({ shards }: WorkerInventory): OwnedShards[] {
  const owned = new Map<string, OwnedShards>();
  const keyOf = ({ cluster, model, version }: Owner) => JSON.stringify([cluster, model, version]);
  for (const { bytes, owners } of shards) {
    for (const owner of owners) {
      const { cluster, model, version } = owner;
      const before = owned.get(keyOf(owner)) ?? { cluster, model, version, shards: 0, bytes: 0 };
      owned.set(keyOf(owner), { ...before, shards: before.shards + 1, bytes: before.bytes + bytes });
    }
  }
  return [...owned.values()];
}

function text(workers: readonly WorkerObject[]): string {
  const of = (used: number | null, limit: number | null) =>
    used === null ? '-' : `${formatBytes(used)} of ${formatBytes(limit ?? undefined)}`;
  const rows = workers.map(each => [
    String(each.worker),
    each.address,
    each.state,
    formatMs(each.roundTripMs),
    each.engine ?? '-',
    each.cores === null ? '-' : String(each.cores),
    each.memoryLimitBytes === null ? '-' : formatBytes(each.memoryLimitBytes),
    of(each.diskUsedBytes, each.diskLimitBytes),
    each.shards === null ? '-' : String(each.shards),
  ]);
  const head = ['worker', 'address', 'state', 'round trip ms', 'engine', 'cores', 'memory limit', 'disk', 'shards'];
  const answered = workers.filter(({ state }) => state !== 'unreachable').length;
  return [
    table(head, rows),
    ...modelTable(workers),
    ...workers
      .filter(({ state }) => state === 'unreachable')
      .map(({ worker, address, reason }) => `worker ${worker} (${address}) does not answer: ${reason}`),
    `${answered} of ${plural(workers.length, 'worker')} answered.`,
    '',
  ].join('\n');
}

/** One row for each version of each model; none when nobody claims anything. */
function modelTable(workers: readonly WorkerObject[]): string[] {
  const rows = new Map<string, { owner: Owner; shards: number; bytes: number; at: number[] }>();
  for (const { worker, owners } of workers) {
    for (const { shards, bytes, ...owner } of owners) {
      const key = JSON.stringify(owner);
      const before = rows.get(key) ?? { owner, shards: 0, bytes: 0, at: [] };
      rows.set(key, {
        owner,
        shards: before.shards + shards,
        bytes: before.bytes + bytes,
        at: [...before.at, worker],
      });
    }
  }
  if (rows.size === 0) return ['Nobody claims a shard on them.'];
  const cells = [...rows.values()].map(({ owner, shards, bytes, at }) => [
    owner.model,
    String(owner.version),
    owner.cluster,
    String(shards),
    formatBytes(bytes),
    at.join(' '),
  ]);
  return [table(['model', 'version', 'owner', 'shards', 'bytes', 'on workers'], cells)];
}
