/**
 * What workers did not take of a model: a full disk, a quota, a read-only one, bytes that came damaged, a worker that died or took
 * nothing for too long. A block counts as missing there until it is taken, by that worker or another; `Resends` keeps these for each
 * holding, healing tries again, `health` tells of them.
 */
import type { KofnError } from '@kofn/core';
import type { Connection } from '../fleet/connection.js';
import type { Refusal } from '../contract/plan.js';

/** Of one block, as it happened. */
export interface BlockRefusal {
  readonly worker: number;
  readonly block: number;
  readonly error: KofnError;
}

/** Of the blocks of one holding: the last of each worker's. */
export class Refusals {
  readonly #errors = new Map<string, BlockRefusal>();

  add(refusal: BlockRefusal): void {
    this.#errors.set(`${refusal.worker} ${refusal.block}`, refusal);
  }

  remove(worker: number, block: number): void {
    this.#errors.delete(`${worker} ${block}`);
  }

  of(worker: number, block: number): KofnError | undefined {
    return this.#errors.size === 0 ? undefined : this.#errors.get(`${worker} ${block}`)?.error;
  }
}

/** Those of `holdings`, one a worker. */
export function refusalsOf(
  holdings: readonly {
    readonly layers: readonly string[];
    readonly blocks: readonly { readonly workers: readonly number[] }[];
    readonly resends: { readonly refusals: Refusals };
  }[],
  connections: readonly Pick<Connection, 'address'>[],
): Refusal[] {
  const found = new Map<number, { error: KofnError; layers: string[] }>();
  for (const { layers, blocks, resends } of holdings) {
    const refused = new Map<number, KofnError>();
    for (const [block, { workers }] of blocks.entries()) {
      for (const worker of workers) {
        const error = resends.refusals.of(worker, block);
        if (error !== undefined && !refused.has(worker)) refused.set(worker, error);
      }
    }
    for (const [worker, error] of refused) {
      const known = found.get(worker);
      if (known === undefined) found.set(worker, { error, layers: [...layers] });
      else known.layers.push(...layers);
    }
  }
  return [...found].map(
    ([
      worker,
      {
        error: { code, message },
        layers,
      },
    ]) => {
      return { worker, address: connections[worker]!.address, layers, code, message };
    },
  );
}

/** So many layers are named. */
const NAMED = 3;

/** Who did not take what, and why, in words. */
export function refusalWords({ worker, address, layers, message }: Refusal): string {
  const named = `${layers.slice(0, NAMED).join(', ')}${layers.length > NAMED ? ', …' : ''}`;
  const what = layers.length === 1 ? `its shard of ${named}` : `its shards of ${layers.length} layers (${named})`;
  return `worker ${worker} (${address}) did not take ${what}: ${message}`;
}
