/** A shard on its way to a worker, which may take it, say why not, or say nothing. */
import { KofnError, openScope, type Clock, type Scope, type Signal, type Timer } from '@kofn/core';
import type { Owner, ShardSource } from '@kofn/wire';
import type { Connection } from '../fleet/connection.js';

/** A worker that answers questions and takes nothing of a shard for so long takes none of it: its disk may hang. */
const STALL_MS = 60_000;

export interface PutAbout {
  readonly clock: Clock;
  /** Who claims the shards. */
  readonly owner: Owner;
  readonly signal: Signal | undefined;
}

/** Puts `shard` and claims it for `owner`. Throws as `WorkerClient.put`, UNAVAILABLE when the worker is lost or takes nothing more. */
export async function putShard(
  connection: Connection,
  shard: ShardSource,
  { clock, owner, signal: parent }: PutAbout,
  onSent: (sentBytes: number) => void = () => undefined,
): Promise<void> {
  using patience = new Patience(clock, parent);
  const { signal } = patience;
  const onProgress = (sentBytes: number) => {
    patience.begin();
    onSent(sentBytes);
  };
  const bytes = shard.model.byteLength + shard.weights.byteLength;
  await connection.ask(client => client.put(shard, { signal, owner, onProgress }), { signal, bytes });
  connection.shards.add(shard.name);
}

/** Claims a shard that the worker is said to hold; whether it does. Throws as `WorkerClient.claim`, and UNAVAILABLE as `putShard`. */
export async function claimShard(
  connection: Connection,
  { name, block }: Pick<ShardSource, 'name' | 'block'>,
  { clock, owner, signal: parent }: PutAbout,
): Promise<boolean> {
  using patience = new Patience(clock, parent);
  const { signal } = patience;
  const missing = await connection.ask(client => client.claim([name], owner, { signal, block }), { signal });
  return missing.length === 0;
}

/** Ends what is asked of a worker when nothing of it goes on. */
class Patience implements Disposable {
  readonly #clock: Clock;
  readonly #scope: Scope;
  #timer: Timer | undefined;

  constructor(clock: Clock, parent: Signal | undefined) {
    this.#clock = clock;
    this.#scope = openScope(clock, { parent });
    this.begin();
  }

  get signal(): Signal {
    return this.#scope.signal;
  }

  /** Again: something went on. */
  begin(): void {
    this.#timer?.cancel();
    const message = `it took nothing more of it for ${STALL_MS / 1000} s; look at its disk`;
    this.#timer = this.#clock.setTimer(() => this.#scope.abort(new KofnError('UNAVAILABLE', message)), STALL_MS);
  }

  [Symbol.dispose](): void {
    this.#timer?.cancel();
    this.#scope[Symbol.dispose]();
  }
}
