/** One connection to a worker, from the first question to its end: what connection.ts makes again and again. */
import { KofnError, openScope, sleep, type Clock, type Rng, type Signal } from '@kofn/core';
import { WorkerClient, type Channel, type WorkerInventory } from '@kofn/wire';
import type { WorkerState } from './worker-state.js';
import { sameProcess, type ListedWorker, type Processes } from './processes.js';

/** Makes the channel to a worker: gRPC, or a simulator's. */
export type OpenChannel = (address: string, options: { maxMessageBytes: number; clock: Clock }) => Channel;

export interface LinkOptions {
  readonly clock: Clock;
  /** Longest wait for one attempt to connect. */
  readonly connectDeadlineMs: number;
  readonly maxInFlight: number;
  readonly maxMessageBytes: number;
  readonly openChannel: OpenChannel;
  readonly processes: Processes;
}

/** A link that stands. */
export interface Link {
  readonly channel: Channel;
  readonly client: WorkerClient;
  readonly inventory: WorkerInventory;
  /** What it said of itself when the link was made. */
  readonly state: WorkerState;
  readonly processes: Processes;
}

/** Waits between attempts to connect double from the first to the last, each drawn from the upper half of its range. */
const FIRST_BACKOFF_MS = 100;
const LAST_BACKOFF_MS = 5_000;

/** Of a worker that has not answered yet. */
export const NOTHING_SAID: WorkerInventory = {
  workerId: '',
  processId: '',
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

/**
 * Links to `worker`; returns as whom the process is known already that answers there, if it is, and leaves no link to it then. Throws
 * UNAVAILABLE, PROTOCOL, DEADLINE_EXCEEDED, CANCELLED; nothing stays open then either.
 */
export async function openLink(
  worker: ListedWorker,
  parent: Signal | undefined,
  { clock, connectDeadlineMs: deadlineMs, maxInFlight, maxMessageBytes, openChannel, processes }: LinkOptions,
): Promise<Link | ListedWorker> {
  const { address } = worker;
  using scope = openScope(clock, { parent, deadlineMs, what: `connection to worker ${address}` });
  const channel = openChannel(address, { maxMessageBytes, clock });
  try {
    await channel.ready({ signal: scope.signal, deadlineMs });
    const client = await WorkerClient.open(channel, { maxInFlight, signal: scope.signal });
    const inventory = await client.inventory({ signal: scope.signal });
    const state = stateOf(await client.health({ signal: scope.signal }));
    const known = processes.enter(inventory.processId, worker);
    if (known === undefined) return { channel, client, inventory, state, processes };
    await client.close();
    await channel[Symbol.asyncDispose]();
    return known;
  } catch (error) {
    await channel[Symbol.asyncDispose]();
    throw error;
  }
}

export async function closeLink({ client, channel, processes, inventory }: Link): Promise<void> {
  processes.leave(inventory.processId);
  await client.close();
  await channel[Symbol.asyncDispose]();
}

export function isLink(opened: Link | ListedWorker): opened is Link {
  return 'channel' in opened;
}

/** Tries until a link stands, and says each time with what outcome. Throws the reason of `signal`. */
export async function relink(
  worker: ListedWorker,
  signal: Signal,
  options: LinkOptions & { readonly rng: Rng },
  enter: (state: WorkerState) => void,
): Promise<Link> {
  const { clock, rng } = options;
  for (let attempt = 1, rangeMs = FIRST_BACKOFF_MS; ; attempt++, rangeMs = Math.min(2 * rangeMs, LAST_BACKOFF_MS)) {
    await sleep(clock, rangeMs * (0.5 + 0.5 * rng.uniform()), signal);
    enter({ kind: 'connecting', attempt });
    try {
      const opened = await openLink(worker, signal, options);
      if (isLink(opened)) return opened;
      enter({ kind: 'duplicate', reason: sameProcess(opened) });
    } catch (error) {
      if (!signal.aborted) enter({ kind: 'dead', reason: KofnError.from(error).message });
    }
  }
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
