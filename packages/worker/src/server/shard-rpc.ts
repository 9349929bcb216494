/**
 * kofn.v1.ShardStore: what a worker holds and for whom, taking more, letting go.
 *
 * Invariant: a request is decoded only when it is small, the data of Put aside, and acts only when all of it is valid.
 */
import { KofnError, throwIfAborted, type Signal } from '@kofn/core';
import {
  checkBlock,
  checkOwner,
  codecs,
  METHODS,
  PROTOCOL_VERSION,
  type CallContext,
  type Codec,
  type Owner,
  type ServiceHandlers,
  type ShardBlock,
} from '@kofn/wire';
import type { StoredBlob } from '../store/blob-store.js';
import { SESSION_BYTES, type Executor } from '../inference/executor.js';
import type { Journal } from './journal.js';
import type { Logger } from '../process/logs.js';
import type { ShardStore } from '../store/shard-store.js';
import type { WorkMeter } from '../inference/work-meter.js';

/** The limits that shard_store.proto states; so many names fit into so many bytes. */
const MAX_REQUEST_BYTES = 2 ** 20;
const MAX_NAMES = 10_000;

export interface WorkerIdentity {
  readonly workerId: string;
  readonly processId: string;
  readonly engine: string;
  readonly engineVersion: string;
  readonly cores: number;
}

export function shardStoreHandlers(
  parts: { store: ShardStore; executor: Executor; meter: WorkMeter; journal: Journal; logger: Logger | undefined },
  identity: WorkerIdentity,
): Pick<ServiceHandlers, 'unary' | 'clientStream'> {
  const { store, executor, meter, journal, logger } = parts;
  return {
    unary: new Map([
      [
        METHODS.inventory,
        async () => {
          const { runs, macs, engineMs } = meter.recent;
          const message = {
            worker_id: identity.workerId,
            process_id: identity.processId,
            protocol_version: PROTOCOL_VERSION,
            engine: identity.engine,
            engine_version: identity.engineVersion,
            memory_limit_bytes: executor.memoryLimitBytes,
            memory_used_bytes: executor.usedBytes,
            session_bytes: SESSION_BYTES,
            disk_limit_bytes: store.diskLimitBytes,
            disk_used_bytes: store.diskUsedBytes,
            cores: identity.cores,
            shards: store.list(),
            recent: { runs, macs, engine_ms: engineMs },
            events: journal.latest.map(({ ageMs, text }) => ({ age_ms: ageMs, text })),
          };
          return Promise.resolve(codecs.inventory.encode(message));
        },
      ],
      [
        METHODS.claim,
        async (request: Uint8Array, { signal }: CallContext) => {
          const { names, owner, block } = decode(codecs.claimRequest, request);
          checkCount(names);
          if (!owner) throw new KofnError('INVALID_ARGUMENT', 'a claim must name its owner');
          checkOwner(owner);
          const claim = { block: block === null ? undefined : checkBlock(block), signal };
          const missing: string[] = [];
          for (const name of names) {
            throwIfAborted(signal);
            if (!(await store.claim(name, owner, claim))) missing.push(name);
          }
          return codecs.claimResponse.encode({ missing });
        },
      ],
      [
        METHODS.remove,
        async (request: Uint8Array, { signal }: CallContext) => {
          const { names, owner } = decode(codecs.removeRequest, request);
          checkCount(names);
          const by = owner ? checkOwner(owner) : undefined;
          const which = by !== undefined && names.length === 0 ? store.claimedBy(by) : names;
          const removed = await removeAll(store, which, by, signal);
          return codecs.removeResponse.encode({ removed });
        },
      ],
    ]),
    clientStream: new Map([
      [
        METHODS.put,
        async (messages, { signal }) => {
          const rest = messages[Symbol.asyncIterator]();
          const first = await rest.next();
          const { shard, owner, block } = headerOf(first.done === true ? undefined : first.value);
          const taking = async () => {
            // What can never be opened here is better kept by another.
            executor.requireRoom(shard.name, shard.modelBytes + shard.weightsBytes);
            return store.put(shard, dataOf(rest), { owner, block, signal });
          };
          const { present } = await taking().catch((error: unknown) => {
            const { code, message } = KofnError.from(error);
            if (!signal.aborted) {
              journal.refused(owner?.model ?? '', code);
              logger?.warn({ shard: shard.name, model: owner?.model, code }, `did not take a shard: ${message}`);
            }
            throw error;
          });
          if (!present) {
            journal.took(owner?.model ?? '');
            logger?.info({ shard: shard.name, model: owner?.model, bytes: store.bytesOf(shard.name) }, 'took a shard');
          }
          return codecs.putResponse.encode({ present });
        },
      ],
    ]),
  };
}

/** One shard that the disk does not let go is no reason to keep the others: what it threw comes last. */
async function removeAll(
  store: ShardStore,
  names: readonly string[],
  owner: Owner | undefined,
  signal: Signal,
): Promise<string[]> {
  const removed: string[] = [];
  const errors: unknown[] = [];
  for (const name of names) {
    throwIfAborted(signal);
    try {
      if (await store.remove(name, owner)) removed.push(name);
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw KofnError.from(errors[0]);
  return removed;
}

function headerOf(message: Uint8Array | undefined): {
  shard: StoredBlob;
  owner: Owner | undefined;
  block: ShardBlock | undefined;
} {
  const header = message && decode(codecs.putRequest, message).header;
  if (!header) throw new KofnError('PROTOCOL', 'the first message of Put must be the header');
  return {
    shard: {
      name: header.name,
      modelBytes: Number(header.model_bytes),
      weightsBytes: Number(header.weights_bytes),
    },
    owner: header.owner ? checkOwner(header.owner) : undefined,
    block: header.block ? checkBlock(header.block) : undefined,
  };
}

/** Throws PROTOCOL, or RESOURCE_EXHAUSTED before it makes objects of a request that could fill the memory. */
function decode<T>(codec: Codec<T>, request: Uint8Array): T {
  if (request.byteLength <= MAX_REQUEST_BYTES) return codec.decode(request);
  throw new KofnError(
    'RESOURCE_EXHAUSTED',
    `the request has ${request.byteLength} bytes: may have at most ${MAX_REQUEST_BYTES}; name fewer shards in each`,
  );
}

function checkCount(names: readonly string[]): void {
  if (names.length <= MAX_NAMES) return;
  throw new KofnError(
    'INVALID_ARGUMENT',
    `the request names ${names.length} shards: may name at most ${MAX_NAMES}; name fewer in each`,
  );
}

async function* dataOf(messages: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  for (;;) {
    const next = await messages.next();
    if (next.done === true) return;
    const { data, header } = codecs.putRequest.decode(next.value);
    if (header || data === undefined)
      throw new KofnError('PROTOCOL', 'every message of Put but the first must be data');
    yield data;
  }
}
