/** An owner's claims on the shards that workers hold: asked of all workers at once, those that do not answer left to the leases. */
import { openScope, type Clock, type Signal } from '@kofn/core';
import type { Owner } from '@kofn/wire';
import type { Connection } from '../fleet/connection.js';

/** A worker that is silent for so long keeps its claims until their leases end. */
const CLAIM_DEADLINE_MS = 5_000;

/** Drops every claim of `owner` at those of `holders` that can be reached; elsewhere its leases end. */
export async function giveUp(holders: readonly Connection[], clock: Clock, owner: Owner): Promise<void> {
  await atWorkers(holders, clock, async (connection, signal) => {
    const removed = await connection.ask(client => client.remove([], { owner, signal }), { signal });
    connection.lacks(...removed); // another version may have counted on one of them
  });
}

/** Whether it is heard of: one that is put aside, or has its engine stuck, keeps what it holds. */
function answers({ state }: Connection): boolean {
  return (
    state.kind === 'ready' || state.kind === 'quarantined' || (state.kind === 'suspect' && state.reason === 'engine')
  );
}

/** `work` at each of `connections` that answers, at once; what fails or takes too long is left to the leases. */
export async function atWorkers(
  connections: readonly Connection[],
  clock: Clock,
  work: (connection: Connection, signal: Signal) => Promise<void>,
): Promise<void> {
  using scope = openScope(clock, { deadlineMs: CLAIM_DEADLINE_MS, what: 'claims' });
  await Promise.allSettled(connections.filter(answers).map(connection => work(connection, scope.signal)));
}
