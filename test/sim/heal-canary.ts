/** Planted bugs in how a model is made whole again after losses; checks/heal.ts is to find them. */
import { Healer, Refusals, type Cluster } from '@kofn/master';
import { WorkerClient } from '@kofn/wire';
import { patch, type Canary } from './canary.js';
import { isLasting, type Fault } from './faults.js';

export const HEAL_CANARIES: readonly Canary[] = [
  { name: 'heals onto the dead worker', firstSeed: 23, found: /is lost with .* could take it/, ...healingOnto('dead') },
  {
    name: 'puts two shards of a layer on one worker',
    firstSeed: 3,
    found: /has two blocks of/,
    ...healingOnto('ready'),
  },
  {
    name: 'never heals',
    firstSeed: 23,
    found: /is lost with .* could take it|lost within r/,
    apply: () => patch(Healer.prototype, 'target', () => () => undefined),
  },
  {
    name: 'refuses a model that one worker does not take',
    found: /an update failed within r: RESOURCE_EXHAUSTED/,
    fault: full,
    apply: () =>
      patch(Refusals.prototype, 'add', () => ({ error }) => {
        throw error;
      }),
  },
  {
    name: 'counts on a shard that it could not claim',
    firstSeed: 16,
    found: /is claimed by nobody/,
    fault: full,
    apply: () => patch(Refusals.prototype, 'of', () => () => undefined),
  },
  {
    name: 'forgets to claim what it healed',
    found: /is claimed by nobody/,
    apply: () => {
      const known = new Set<string>();
      return patch(WorkerClient.prototype, 'put', original => {
        return function (this: WorkerClient, shard, { owner, ...options } = {}) {
          if (known.has(shard.name)) return original.call(this, shard, options);
          known.add(shard.name);
          return original.call(this, shard, { owner, ...options });
        };
      });
    },
  },
];

/** A disk that is full, in the place of all that passes. */
function full(drawn: Fault): Fault {
  return isLasting(drawn) ? drawn : { kind: 'full disk', ms: 5_000 };
}

/** A worker that is so, and holds something of the layer already. */
function healingOnto(state: 'dead' | 'ready'): Pick<Canary, 'apply' | 'cluster'> {
  let cluster: Cluster | undefined;
  return {
    cluster: made => void (cluster = made),
    apply: () =>
      patch(Healer.prototype, 'target', () => ({ blocks }) => {
        const holders = new Set(blocks.flatMap(({ workers }) => workers));
        const isIt = (kind: string) => (state === 'ready' ? kind === 'ready' : kind !== 'ready');
        const found = cluster!.connections.filter(each => holders.has(each.index) && isIt(each.state.kind));
        return state === 'ready' || found.length === 1 ? found[0] : undefined; // the lost one itself is tried again later
      }),
  };
}
