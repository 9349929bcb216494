/** One connection to a worker, from the first question to its end: what connection.ts makes again and again. */
import { openScope, type Clock, type Signal } from '@kofn/core';
import { WorkerClient, type Channel, type WorkerInventory } from '@kofn/wire';
import type { WorkerState } from './fleet.js';

/** Makes the channel to a worker: gRPC, or a simulator's. */
export type OpenChannel = (address: string, options: { maxMessageBytes: number; clock: Clock }) => Channel;

export interface LinkOptions {
  readonly clock: Clock;
  /** Longest wait for one attempt to connect. */
  readonly connectDeadlineMs: number;
  readonly maxInFlight: number;
  readonly maxMessageBytes: number;
  readonly openChannel: OpenChannel;
}

/** A link that stands. */
export interface Link {
  readonly channel: Channel;
  readonly client: WorkerClient;
  readonly inventory: WorkerInventory;
  /** What it said of itself when the link was made. */
  readonly state: WorkerState;
}

/** Of a worker that has not answered yet. */
export const NOTHING_SAID: WorkerInventory = {
  workerId: '',
  protocolVersion: 0,
  engine: '',
  engineVersion: '',
  memoryLimitBytes: 0,
  memoryUsedBytes: 0,
  sessionBytes: 0,
  diskLimitBytes: 0,
  diskUsedBytes: 0,
  cores: 0,
  shards: [],
  recent: { runs: 0, macs: 0, engineMs: 0 },
  events: [],
};

export function shardsOf({ inventory }: Link): Set<string> {
  return new Set(inventory.shards.map(shard => shard.name));
}

export function stateOf({ ready, live }: { ready: boolean; live: boolean }): WorkerState {
  if (ready) return { kind: 'ready' };
  return live ? { kind: 'suspect', reason: 'engine' } : { kind: 'draining' };
}

/** Throws UNAVAILABLE, PROTOCOL, DEADLINE_EXCEEDED, CANCELLED; nothing stays open then. */
export async function openLink(
  address: string,
  parent: Signal | undefined,
  { clock, connectDeadlineMs: deadlineMs, maxInFlight, maxMessageBytes, openChannel }: LinkOptions,
): Promise<Link> {
  using scope = openScope(clock, { parent, deadlineMs, what: `connection to worker ${address}` });
  const channel = openChannel(address, { maxMessageBytes, clock });
  try {
    await channel.ready({ signal: scope.signal, deadlineMs });
    const client = await WorkerClient.open(channel, { maxInFlight, signal: scope.signal });
    const inventory = await client.inventory({ signal: scope.signal });
    return { channel, client, inventory, state: stateOf(await client.health({ signal: scope.signal })) };
  } catch (error) {
    await channel[Symbol.asyncDispose]();
    throw error;
  }
}

export async function closeLink({ client, channel }: Link): Promise<void> {
  await client.close();
  await channel[Symbol.asyncDispose]();
}

/** What to ask oneself of an address that does not answer as it should. */
export function isItThere(address: string): string {
  return `Is \`kofn worker --listen ${address}\` running there?`;
}

/**
 * An answer waits behind what travels on the same link. Up to QUIET_BYTES that makes no difference; beyond, a link of
 * SLOWEST_BYTES_PER_MS (2 Mbit/s) still counts as alive.
 */
const QUIET_BYTES = 2 ** 19;
const SLOWEST_BYTES_PER_MS = 250;

/** Milliseconds that an answer may wait behind `bytesAhead`, on the slowest link that counts as alive. */
export function waitBehind(bytesAhead: number): number {
  return Math.max(0, bytesAhead - QUIET_BYTES) / SLOWEST_BYTES_PER_MS;
}
