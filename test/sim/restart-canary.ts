/**
 * Planted bugs in what a master that begins finds on its workers, in whose shards are whose, in disks that are full, and in whom it
 * trusts; checks/homes.ts, heal.ts and trust.ts are to find them.
 */
import { KofnError } from '@kofn/core';
import type { Cluster } from '@kofn/master';
import { WorkerClient } from '@kofn/wire';
import { patch, type Canary } from './canary.js';

export const RESTART_CANARIES: readonly Canary[] = [
  {
    name: 'sends everything again when it begins',
    firstSeed: 4,
    found: /was sent a shard that it holds/,
    cluster: ({ connections }) => {
      for (const { shards } of connections) shards.clear();
    },
  },
  {
    name: 'does not look where shards were moved',
    firstSeed: 51,
    found: /was sent a shard of .* that stands on/,
    cluster: ({ connections }) => {
      for (const connection of connections) {
        const inventory = { ...connection.inventory, shards: [] };
        Object.defineProperty(connection, 'inventory', { get: () => inventory });
      }
    },
  },
  {
    name: 'takes what the master before it claimed for claimed',
    firstSeed: 16,
    found: /is claimed by nobody/,
    apply: () =>
      patch(WorkerClient.prototype, 'claim', original => {
        return function (this: WorkerClient, names, owner, options) {
          return names.length === 1 ? Promise.resolve([]) : original.call(this, names, owner, options);
        };
      }),
  },
  {
    name: 'renews the leases of a master that is dead',
    firstSeed: 1069,
    found: /keeps a shard for .*, which is gone/,
    apply: () =>
      patch(WorkerClient.prototype, 'claim', original => {
        return async function (this: WorkerClient, names, owner, options) {
          const isOurs = ({ cluster, model }: typeof owner) => cluster === owner.cluster && model === owner.model;
          const { shards } = await this.inventory(options);
          for (const { name, owners } of shards) {
            for (const dead of owners.filter(isOurs)) await original.call(this, [name], dead, options);
          }
          return original.call(this, names, owner, options);
        };
      }),
  },
  {
    name: 'removes a shard that another model claims',
    firstSeed: 3,
    found: /blames worker|is not on/,
    worker: ({ store }) => {
      const remove = store.remove.bind(store);
      store.remove = name => remove(name);
    },
  },
  {
    name: 'asks the worker where a block was before it was moved',
    firstSeed: 3,
    found: /blames worker|was sent a call while it was away/,
    cluster: ({ connections }) => {
      const first = new Map<string, (typeof connections)[number]['infer']>();
      for (const connection of connections) {
        const infer = connection.infer.bind(connection);
        connection.infer = (model, inputs, call) => {
          const home = first.get(model) ?? infer;
          first.set(model, home);
          return home(model, inputs, call);
        };
      }
    },
  },
  {
    name: 'forgets what else a lost worker held',
    firstSeed: 3,
    found: /is not on/,
    apply: () => {
      const given = new WeakSet<WorkerClient>();
      return patch(WorkerClient.prototype, 'put', original => {
        return function (this: WorkerClient, shard, options) {
          const isHealing = !(shard.weights instanceof Uint8Array); // it makes them as they are sent
          if (isHealing && given.has(this)) return Promise.resolve({ present: false });
          if (isHealing) given.add(this);
          return original.call(this, shard, options);
        };
      });
    },
  },
  {
    name: 'never tries a worker again whose disk was full',
    firstSeed: 68,
    found: /is lost with .* could take it/,
    ...onFullDisk((_cluster, client, isFull) => isFull.add(client)),
  },
  {
    name: 'takes a full disk for the fault of its worker',
    firstSeed: 4,
    found: /is honest and was put aside/,
    ...onFullDisk((cluster, client) => {
      for (const connection of cluster.connections) {
        const blame = (own: WorkerClient) => {
          if (own === client) for (let mark = 0; mark < 3; mark++) connection.mark('no space left');
          return Promise.resolve();
        };
        connection.ask(blame).catch(() => undefined);
      }
    }),
  },
  {
    name: 'lets the leases of a worker end that it has put aside',
    firstSeed: 100094,
    found: /which was put aside, does not keep/,
    cluster: ({ connections }) => {
      for (const connection of connections) {
        const ask = connection.ask.bind(connection);
        connection.ask = (question, options) => {
          if (connection.state.kind !== 'quarantined') return ask(question, options);
          return Promise.reject(new KofnError('UNAVAILABLE', 'it is put aside'));
        };
      }
    },
  },
  {
    name: 'forgives every wrong answer',
    firstSeed: 14,
    found: /answered wrong .* found out/,
    cluster: ({ connections }) => {
      for (const { trust } of connections) trust.count = () => undefined;
    },
  },
];

/** Does `what` when a worker has no room for a shard; who is in `isFull` from then on is not asked any more. */
function onFullDisk(
  what: (cluster: Cluster, client: WorkerClient, isFull: WeakSet<WorkerClient>) => void,
): Pick<Canary, 'apply' | 'cluster'> {
  let cluster: Cluster | undefined;
  return {
    cluster: made => void (cluster = made),
    apply: () => {
      const isFull = new WeakSet<WorkerClient>();
      return patch(WorkerClient.prototype, 'put', original => {
        return async function (this: WorkerClient, shard, options) {
          const full = new KofnError('RESOURCE_EXHAUSTED', 'no space left');
          if (isFull.has(this)) throw full;
          try {
            return await original.call(this, shard, options);
          } catch (error) {
            if (KofnError.from(error).code === full.code) what(cluster!, this, isFull);
            throw error;
          }
        };
      });
    },
  };
}
