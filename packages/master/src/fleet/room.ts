/** A layer waits here while it could be decoded but for workers that have as many calls as may be. Called by dispatch.ts. */
import { KofnError, openScope, type Clock, type Signal } from '@kofn/core';
import type { Code } from '@kofn/encoder';
import type { Connection } from './connection.js';

/** The code of a layer, and who holds its blocks. */
export interface Holdings {
  readonly code: Code;
  readonly shards: readonly { readonly worker: number; readonly other: number | undefined }[];
  /** What waits behind answers that have been given, and can give way. */
  readonly audits?: { makeRoom(): boolean } | undefined;
}

/** Whether there would be enough workers, were they not full. */
export function lacksRoom({ code, shards }: Holdings, connections: readonly Connection[]): boolean {
  const canDecode = (takes: (connection: Connection) => boolean) => {
    const comes = (block: number) => {
      const { worker, other } = shards[block]!;
      return takes(connections[worker]!) || (other !== undefined && takes(connections[other]!));
    };
    return code.quorums.every(({ members, count }) => members.filter(comes).length >= count);
  };
  return !canDecode(({ takesCalls, isFull }) => takesCalls && !isFull) && canDecode(({ takesCalls }) => takesCalls);
}

/** Waits for room at a worker that is full; the caller looks again. */
export async function room(
  { shards, audits }: Holdings,
  connections: readonly Connection[],
  { clock, signal }: { clock: Clock; signal: Signal },
): Promise<void> {
  if (audits?.makeRoom() === true) return;
  using scope = openScope(clock, { parent: signal });
  const holders = new Set(shards.flatMap(({ worker, other }) => (other === undefined ? [worker] : [worker, other])));
  const full = [...holders].map(worker => connections[worker]!).filter(({ isFull }) => isFull);
  try {
    await Promise.race(full.map(connection => connection.room(scope.signal)));
  } finally {
    scope.abort(new KofnError('CANCELLED', 'there is room'));
  }
}
