/**
 * What stands on workers is whole again a while after the last fault, as far as there are workers for it.
 *
 * What it holds the master to
 * 1. No two blocks of a layer have one worker as their own.
 * 2. Each block is on a worker that serves, unless no worker without a part of the layer does.
 * 3. Where the master thinks a shard is it is (that a damaged one was dropped it may learn as late as it renews its claims), claimed under the model's name and version.
 * 4. A worker that is put aside keeps what it held, unless it lost its disk.
 */
import type { CodedModel } from '@kofn/master';
import type { Owner } from '@kofn/wire';
import type { Machine } from '../machine.js';
import type { Violation } from './request.js';

/** packages/master/src/fleet/cluster.ts. */
const RENEW_MS = 3_600_000;

/** After `idleMs` without faults (scenario.ts makes that long enough). */
export function checkHealed(
  model: CodedModel,
  {
    cluster,
    machines,
    rotten,
    distrusted,
    idleMs,
  }: {
    cluster: string;
    machines: readonly Machine[];
    rotten: ReadonlySet<number>;
    /** Workers that are put aside until somebody releases them: as lost as one that is off. */
    distrusted: ReadonlySet<number>;
    idleMs: number;
  },
): Violation[] {
  const mayLack = (worker: number) => rotten.has(worker) && idleMs < 2 * RENEW_MS;
  const owner = { cluster, model: model.name, version: model.version };
  return model.health.layers.flatMap(({ layer, workers, shards }) => {
    const owns = workers.map(([own]) => own!);
    const twice = owns.filter((worker, block) => owns.indexOf(worker) !== block);
    const holders = new Set(workers.flat());
    const isThere = ({ index, serves }: Machine) => serves && !distrusted.has(index);
    const spare = machines.find(machine => isThere(machine) && !holders.has(machine.index));
    const about = workers.flatMap((places, block) =>
      places
        .flatMap(worker => {
          const machine = machines[worker]!;
          if (!isThere(machine)) {
            return spare === undefined ? [] : [`is lost with ${machine.name}, and ${spare.name} could take it`];
          }
          if (!machine.shards.includes(shards[block]!))
            return mayLack(worker) ? [] : [`is not on ${machine.name}, which serves`];
          return machine.claimedBy(owner).includes(shards[block]!) ? [] : [`is claimed by nobody on ${machine.name}`];
        })
        .map(what => `block ${block} of ${layer} ${what}, ${idleMs} ms after the last fault`),
    );
    return [...twice.map(worker => `worker ${worker} has two blocks of ${layer}`), ...about];
  });
}

/** Of the workers that are put `aside`, of which none lost what is on its disk. */
export function checkKept(model: CodedModel, owner: Owner, aside: readonly Machine[]): Violation[] {
  return aside.flatMap(machine => {
    const kept = machine.claimedBy(owner);
    return model.health.layers.flatMap(({ layer, workers, shards }) =>
      shards
        .filter((shard, block) => workers[block]!.includes(machine.index) && !kept.includes(shard))
        .map(() => `${machine.name}, which was put aside, does not keep its block of ${layer}`),
    );
  });
}
