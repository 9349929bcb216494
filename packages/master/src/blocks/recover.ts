/**
 * What gives blocks that their own workers cannot, for layers that fewer than k workers are left for: the master's engine
 * (`onLoss: 'local'`, and whenever the input is not finite), or other workers (`onLoss: 'resend'`). Used by dispatch.ts.
 *
 * Invariants
 * 1. What a recovery opens or sends once is there for the next: only the first request after a loss pays.
 * 2. A block is opened here once and sent to a worker once, however many requests need it.
 */
import { KofnError, openScope, type Clock, type Scope, type Signal, type Tensor, type Tensors } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import { imageOfFiles, type ModelFiles } from '@kofn/graph';
import type { Owner, ShardSource } from '@kofn/wire';
import type { Connection } from '../fleet/connection.js';
import { openLocally } from './local-session.js';
import { putShard } from './put.js';
import { Refusals, type BlockRefusal } from './refusals.js';
import type { Erasure } from '../contract/report.js';

export class LocalBlocks implements AsyncDisposable {
  readonly #engine: Engine;
  readonly #threads: number;
  readonly #shard: (block: number) => Promise<ModelFiles>;
  readonly #sessions = new Map<number, Promise<Session>>();

  /** `shard(block)` makes the shard model of data block `block` anew. */
  constructor(engine: Engine, threads: number, shard: (block: number) => Promise<ModelFiles>) {
    this.#engine = engine;
    this.#threads = threads;
    this.#shard = shard;
  }

  /** Data block `block` for shard input `x`: the outputs that its worker would have replied. Throws ENGINE. */
  async run(block: number, x: Tensor): Promise<Tensors> {
    let opening = this.#sessions.get(block);
    if (opening === undefined) {
      opening = this.#shard(block).then(files => openLocally(this.#engine, imageOfFiles(files), this.#threads));
      this.#sessions.set(block, opening);
      opening.catch(() => this.#sessions.delete(block));
    }
    return (await opening).run({ x });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const opened = await Promise.allSettled(this.#sessions.values());
    this.#sessions.clear();
    for (const result of opened) if (result.status === 'fulfilled') await result.value[Symbol.asyncDispose]();
  }
}

/** Shards on their way to workers that compute them in place of others. */
export class Resends implements AsyncDisposable {
  /** What workers did not take, and why. */
  readonly refusals = new Refusals();
  readonly #clock: Clock;
  readonly #owner: Owner;
  readonly #shard: (block: number, signal: Signal) => Promise<ShardSource>;
  readonly #life: Scope;
  /** Workers that have been given a shard, to help out or for good (heal.ts). */
  readonly given = new Set<Connection>();
  /** By worker and shard. */
  readonly #puts = new Map<string, Promise<void>>();

  /** `shard(block)` makes block `block`'s shard anew; those that are `refused` were not taken when they were put first. */
  constructor(
    clock: Clock,
    owner: Owner,
    refused: readonly BlockRefusal[],
    shard: (block: number, signal: Signal) => Promise<ShardSource>,
  ) {
    for (const each of refused) this.refusals.add(each);
    this.#clock = clock;
    this.#owner = owner;
    this.#shard = shard;
    this.#life = openScope(clock);
  }

  /** Puts the shard of `block` to `connection`'s worker. It goes on when a request that waits ends. Throws as `WorkerClient.put`. */
  give(connection: Connection, block: number): Promise<void> {
    const key = `${connection.index} ${block}`;
    let put = this.#puts.get(key);
    if (put === undefined) {
      put = this.#put(connection, block).finally(() => this.#puts.delete(key));
      this.#puts.set(key, put);
      put.catch(() => undefined); // whoever waits hears of it
    }
    return put;
  }

  /** Rejects with NOT_FOUND where the worker did not take the shard `name` of `block`: it need not be asked. Else undefined. */
  missing({ index, shards }: Connection, block: number, name: string): Promise<never> | undefined {
    const refusal = this.refusals.of(index, block);
    if (refusal === undefined || shards.has(name)) return undefined;
    const message = `it did not take its shard: ${refusal.message}`;
    return Promise.reject(new KofnError('NOT_FOUND', message, { cause: refusal }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#life.abort(new KofnError('CANCELLED', 'the model was closed meanwhile'));
    await Promise.allSettled(this.#puts.values());
    this.#life[Symbol.dispose]();
  }

  async #put(connection: Connection, block: number): Promise<void> {
    const { signal } = this.#life;
    const { index: worker } = connection;
    const shard = await this.#shard(block, signal);
    this.given.add(connection); // before the outcome is known: what it may hold is claimed and given up with the rest
    try {
      await putShard(connection, shard, { clock: this.#clock, owner: this.#owner, signal });
      this.refusals.remove(worker, block);
    } catch (error) {
      if (!signal.aborted) this.refusals.add({ worker, block, error: KofnError.from(error) });
      throw error;
    }
  }
}

/** Of `failed` those whose worker could not take the call, and takes calls now. */
export function returned(failed: readonly Erasure[], connections: readonly Connection[]): Erasure[] {
  return failed.filter(({ worker, code }) => code === 'UNAVAILABLE' && connections[worker]!.takesCalls);
}

/**
 * The worker to ask for shard `name` instead of those that `failed` to bring it; none when nobody is left. One that holds it
 * comes first, then the one that has the least of the layer for its speed, `load`, as a spare has. A worker that failed once
 * because it does not hold the shard may be given it.
 */
export function substitute(
  connections: readonly Connection[],
  {
    name,
    failed,
    load,
  }: { name: string; failed: readonly Erasure[]; load: { get(worker: number): number | undefined } },
): Connection | undefined {
  const isSpent = ({ worker, code }: Erasure, i: number) =>
    code !== 'NOT_FOUND' || failed.slice(0, i).some(before => before.worker === worker);
  const excluded = new Set(failed.filter(isSpent).map(({ worker }) => worker));
  const able = connections.filter(({ index, takesCalls, isFull }) => takesCalls && !isFull && !excluded.has(index));
  const cost = ({ index, shards, speed }: Connection) =>
    shards.has(name) ? -1 / speed.handicap : ((load.get(index) ?? 0) + 1) * speed.handicap;
  return able.reduce<Connection | undefined>(
    (best, each) => (best === undefined || cost(each) < cost(best) ? each : best),
    undefined,
  );
}
