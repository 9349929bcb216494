/**
 * Blocks computed by the master itself, for layers that fewer than k workers are left for (or whose input is not
 * finite). Used by dispatch.ts under the policy `onLoss: 'local'`.
 *
 * Invariant: a block's session is opened at its first use and kept, so that only the first request after a loss pays.
 */
import type { Tensor, Tensors } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import { imageOfFiles, type ModelFiles } from '@kofn/graph';
import { openLocally } from './local-session.js';

export class LocalBlocks implements AsyncDisposable {
  readonly #engine: Engine;
  readonly #threads: number;
  readonly #shard: (block: number) => ModelFiles;
  readonly #sessions = new Map<number, Promise<Session>>();

  /** `shard(block)` makes the shard model of data block `block` anew. */
  constructor(engine: Engine, threads: number, shard: (block: number) => ModelFiles) {
    this.#engine = engine;
    this.#threads = threads;
    this.#shard = shard;
  }

  /** Data block `block` for shard input `x`: the outputs that its worker would have replied. Throws ENGINE. */
  async run(block: number, x: Tensor): Promise<Tensors> {
    let opening = this.#sessions.get(block);
    if (opening === undefined) {
      opening = openLocally(this.#engine, imageOfFiles(this.#shard(block)), this.#threads);
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
