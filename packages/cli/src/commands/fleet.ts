/**
 * `kofn fleet`: what each of some workers says of itself, on one screen. It asks and changes nothing, and needs no master: what stands
 * where, how fast it ran and what happened is in the workers' own inventories. The link to each is measured by a few small questions
 * and uploads of a fraction of a megabyte.
 */
import { float32, isKofnError, KofnError, openScope, systemClock, type Signal } from '@kofn/core';
import { connectChannel, EncodedInputs, WorkerClient } from '@kofn/wire';
import type { FleetObject, WorkerObject } from '../fleet/fleet-object.js';
import { EXIT_FAILED, EXIT_OK } from '../terminal/exit.js';
import { standingModels, type Holder } from '../fleet/fleet-models.js';
import { fleetScreen } from '../fleet/fleet-screen.js';

export interface FleetArguments {
  readonly workers: readonly string[];
  readonly deadline: number;
  readonly json?: boolean;
}

/** Questions whose median is the round trip. */
const ROUNDS = 5;
/** Uploads whose median, less the round trip, is the rate of the link: 128 KiB each. */
const UPLOADS = 3;
const UPLOAD_FLOATS = 2 ** 15;
const MAX_MESSAGE_BYTES = 2 ** 28;

/** One worker, and what only those that answered have. */
interface Seen {
  readonly worker: WorkerObject;
  readonly processId?: string;
  readonly holder?: Holder;
  readonly events: FleetObject['events'];
}

/** Returns the exit code. */
export async function fleet({ workers, deadline, json }: FleetArguments, signal: AbortSignal): Promise<number> {
  const seen = onceEach(await Promise.all(workers.map((address, worker) => look(worker, address, deadline, signal))));
  const about: FleetObject = {
    workers: seen.map(each => each.worker),
    models: standingModels(seen.flatMap(({ holder }) => holder ?? [])),
    events: seen.flatMap(({ events }) => events).sort((a, b) => b.ageMs - a.ageMs),
  };
  process.stdout.write(json === true ? `${JSON.stringify(about)}\n` : fleetScreen(about));
  const isThere = ({ state }: WorkerObject) => state !== 'unreachable' && state !== 'duplicate';
  return about.workers.every(isThere) ? EXIT_OK : EXIT_FAILED;
}

/** Two addresses may lead to one worker: what it holds counts once. */
function onceEach(seen: readonly Seen[]): Seen[] {
  return seen.map((each, index) => {
    const first = seen.slice(0, index).find(({ processId }) => processId && processId === each.processId);
    if (first === undefined) return each;
    const { worker, address } = first.worker;
    const reason = `it is worker ${worker} (${address}) under another name`;
    return { worker: without(each.worker, 'duplicate', reason), events: [] };
  });
}

/** Throws the signal's reason alone. */
async function look(worker: number, address: string, deadlineMs: number, parent: AbortSignal): Promise<Seen> {
  using scope = openScope(systemClock, { parent, deadlineMs, what: 'the question' });
  const { signal } = scope;
  const channel = connectChannel(address, { maxMessageBytes: MAX_MESSAGE_BYTES, clock: systemClock });
  try {
    await channel.ready({ signal, deadlineMs });
    const client = await WorkerClient.open(channel, { signal });
    const inventory = await client.inventory({ signal });
    const { ready, live } = await client.health({ signal });
    const roundTripMs = await medianMs(ROUNDS, () => client.live({ signal }));
    const bytesPerSecond = await uploadRate(client, roundTripMs, signal);
    await client.close();
    const { shards, recent, events } = inventory;
    const owners = standingModels([{ worker, isReady: ready, shards }]);
    return {
      worker: {
        worker,
        address,
        state: ready ? 'ready' : live ? 'engine stuck' : 'draining',
        reason: '',
        roundTripMs,
        bytesPerSecond,
        macsPerSecond: recent.engineMs === 0 ? null : (1000 * recent.macs) / recent.engineMs,
        recentRuns: recent.runs,
        engine: `${inventory.engine} ${inventory.engineVersion}`.trim(),
        cores: inventory.cores,
        memoryUsedBytes: inventory.memoryUsedBytes,
        memoryLimitBytes: inventory.memoryLimitBytes,
        diskUsedBytes: inventory.diskUsedBytes,
        diskLimitBytes: inventory.diskLimitBytes,
        shards: shards.length,
        shardBytes: shards.reduce((sum, shard) => sum + shard.bytes, 0),
        owners: owners.map(({ workers: _, layers: _layers, margin: _margin, ...owned }) => owned),
      },
      processId: inventory.processId,
      holder: { worker, isReady: ready, shards },
      events: events.map(event => ({ worker, ...event })),
    };
  } catch (error) {
    if (parent.aborted) throw error;
    const reason = KofnError.from(error, 'UNAVAILABLE').message;
    return { worker: without({ worker, address }, 'unreachable', reason), events: [] };
  } finally {
    await channel[Symbol.asyncDispose]();
  }
}

/** One of which nothing is told but its state. */
function without(
  { worker, address }: Pick<WorkerObject, 'worker' | 'address'>,
  state: 'unreachable' | 'duplicate',
  reason: string,
): WorkerObject {
  const link = { roundTripMs: null, bytesPerSecond: null, macsPerSecond: null, recentRuns: null };
  const nothing = { engine: null, cores: null, memoryUsedBytes: null, memoryLimitBytes: null, diskUsedBytes: null };
  const none = { diskLimitBytes: null, shards: null, shardBytes: null, owners: [] };
  return { worker, address, state, reason, ...link, ...nothing, ...none };
}

/** Of the link to it; null when an upload takes less than twice as long as a question, which tells nothing. */
async function uploadRate(client: WorkerClient, roundTripMs: number, signal: Signal): Promise<number | null> {
  const inputs = new EncodedInputs({ x: float32([UPLOAD_FLOATS], new Float32Array(UPLOAD_FLOATS)) });
  const uploadMs = await medianMs(UPLOADS, async () => {
    try {
      // A shard that nobody has: refused once the request is read whole.
      await client.infer({ model: 'kofn-rate-probe', inputs }, { signal });
    } catch (error) {
      if (!isKofnError(error, 'NOT_FOUND')) throw error;
    }
  });
  return uploadMs < 2 * roundTripMs ? null : (4 * UPLOAD_FLOATS * 1000) / (uploadMs - roundTripMs);
}

async function medianMs(rounds: number, ask: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const start = systemClock.now();
    await ask();
    times.push(systemClock.now() - start);
  }
  return times.sort((a, b) => a - b)[Math.floor(rounds / 2)]!;
}
