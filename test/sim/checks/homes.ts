/**
 * What a master that begins finds on the workers: shards that one before it has put. And what is left of masters that are gone.
 *
 * What it holds the master to
 * 1. No shard is sent to a worker that holds it.
 * 2. None is sent anywhere while as many workers as are to hold it do, unless those have another block of the layer.
 * 3. What a master has claimed that died, and the next one does not claim, is gone when its leases have ended; so is all, a lease after the
 *    last master is gone.
 */
import type { CodedModel } from '@kofn/master';
import type { Machine } from '../machine.js';
import type { Violation } from './request.js';

/** packages/worker/src/store/leases.ts, and what a claim may have been under way for. */
export const LEASES_OVER_MS = 24 * 3_600_000 + 3_600_000;

/** The shards that workers hold for a model when a master has connected to them, and those that it sends until it is deployed. */
export class StandingCheck {
  /** By shard; of workers that nothing befalls. */
  readonly #standing = new Map<string, Set<Machine>>();
  readonly #sent: { readonly shard: string; readonly to: Machine }[] = [];

  constructor(sound: readonly Machine[], { cluster, model }: { cluster: string; model: string }) {
    for (const machine of sound) {
      for (const { name, owners } of machine.held) {
        if (!owners.some(owner => owner.cluster === cluster && owner.model === model)) continue;
        this.#standing.set(name, (this.#standing.get(name) ?? new Set()).add(machine));
      }
    }
  }

  onPut(to: Machine, shard: string): void {
    this.#sent.push({ shard, to });
  }

  /** Once `model` is deployed. */
  check(model: CodedModel): Violation[] {
    return this.#sent.flatMap(({ shard, to }) => {
      const at = this.#standing.get(shard) ?? new Set();
      if (at.has(to)) return [`${to.name} was sent a shard that it holds`];
      return model.health.layers.flatMap(({ layer, workers, shards }) => {
        const homes = new Set(workers.filter((_, block) => shards[block] === shard).flat());
        const busy = new Set(workers.filter((_, block) => shards[block] !== shard).flat());
        const free = [...at].filter(({ index }) => !busy.has(index));
        if (homes.size === 0 || free.length < homes.size) return [];
        const where = free.map(({ name }) => name).join(' and ');
        return [`${to.name} was sent a shard of ${layer} that stands on ${where}`];
      });
    });
  }
}

/** So long after a master died: what workers that nothing befell hold is claimed by the present one's `owner` alone. */
export function checkTakenOver(
  sound: readonly Machine[],
  owner: { cluster: string; model: string; version: number },
): Violation[] {
  return sound.flatMap(machine =>
    machine.held.flatMap(({ owners }) => {
      const others = owners.filter(({ model, version }) => model !== owner.model || version !== owner.version);
      return others.map(({ model, version }) => `${machine.name} keeps a shard for ${model} ${version}, which is gone`);
    }),
  );
}

/** A lease after the last master is gone. */
export function checkAllGone(machines: readonly Machine[]): Violation[] {
  return machines.flatMap(({ name, shards }) =>
    shards.length === 0 ? [] : [`${name} holds ${shards.length} shards a lease after the last master is gone`],
  );
}
