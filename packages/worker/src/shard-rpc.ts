/** kofn.v1.ShardStore: what a worker holds, taking more, letting go. */
import { KofnError } from '@kofn/core';
import { codecs, METHODS, PROTOCOL_VERSION, type ServiceHandlers } from '@kofn/wire';
import type { StoredBlob } from './blob-store.js';
import type { Executor } from './executor.js';
import type { ShardStore } from './shard-store.js';

export interface WorkerIdentity {
  readonly workerId: string;
  readonly engine: string;
  readonly engineVersion: string;
  readonly cores: number;
}

export function shardStoreHandlers(
  store: ShardStore,
  executor: Executor,
  identity: WorkerIdentity,
): Pick<ServiceHandlers, 'unary' | 'clientStream'> {
  return {
    unary: new Map([
      [
        METHODS.inventory,
        async () => {
          const message = {
            worker_id: identity.workerId,
            protocol_version: PROTOCOL_VERSION,
            engine: identity.engine,
            engine_version: identity.engineVersion,
            memory_limit_bytes: executor.memoryLimitBytes,
            disk_limit_bytes: store.diskLimitBytes,
            disk_used_bytes: store.diskUsedBytes,
            cores: identity.cores,
            shards: store.list(),
          };
          return Promise.resolve(codecs.inventory.encode(message));
        },
      ],
      [
        METHODS.remove,
        async (request: Uint8Array) => {
          const removed: string[] = [];
          for (const name of codecs.removeRequest.decode(request).names) {
            const wasThere = await store.remove(name);
            await executor.close(name);
            if (wasThere) removed.push(name);
          }
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
          const shard = headerOf(first.done === true ? undefined : first.value);
          return codecs.putResponse.encode(await store.put(shard, dataOf(rest), signal));
        },
      ],
    ]),
  };
}

function headerOf(message: Uint8Array | undefined): StoredBlob {
  const header = message && codecs.putRequest.decode(message).header;
  if (!header) throw new KofnError('PROTOCOL', 'the first message of Put must be the header');
  return {
    name: header.name,
    modelBytes: Number(header.model_bytes),
    weightsBytes: Number(header.weights_bytes),
  };
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
