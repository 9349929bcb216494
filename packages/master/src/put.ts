/** A shard on its way to a worker. */
import { KofnError, openScope, type Clock, type Signal, type Timer } from '@kofn/core';
import type { Owner, ShardSource } from '@kofn/wire';
import type { Connection } from './connection.js';

/** A worker that answers questions and takes nothing of a shard for so long takes none of it: its disk may hang. */
const STALL_MS = 60_000;

/** Puts `shard` and claims it for `owner`. Throws as `WorkerClient.put`, UNAVAILABLE when the worker is lost or takes nothing more. */
export async function putShard(
  connection: Connection,
  shard: ShardSource,
  about: {
    readonly clock: Clock;
    readonly owner: Owner;
    readonly signal: Signal | undefined;
    /** Bytes that have travelled. */
    readonly onProgress?: (sentBytes: number) => void;
  },
): Promise<void> {
  const { clock, owner, signal: parent, onProgress } = about;
  using scope = openScope(clock, { parent });
  const { signal } = scope;
  let stall: Timer | undefined;
  const goesOn = () => {
    stall?.cancel();
    stall = clock.setTimer(() => scope.abort(new KofnError('UNAVAILABLE', STALLED)), STALL_MS);
  };
  const onSent = (sentBytes: number) => {
    goesOn();
    onProgress?.(sentBytes);
  };
  goesOn();
  try {
    const bytes = shard.model.byteLength + shard.weights.byteLength;
    await connection.ask(client => client.put(shard, { signal, owner, onProgress: onSent }), { signal, bytes });
    connection.shards.add(shard.name);
  } finally {
    stall?.cancel();
  }
}

const STALLED = `it took nothing more of it for ${STALL_MS / 1000} s; look at its disk`;
