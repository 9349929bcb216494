/** Planted bugs in how the master minds its workers, and in how a worker stops; checks/fleet.ts is to find most of them. */
import { KofnError, sleep, type Clock } from '@kofn/core';
import { METHODS, WorkerClient, type ServerDuplex } from '@kofn/wire';
import { patch, type Canary } from './canary.js';
import { SimChannel } from './sim-channel.js';

export const FLEET_CANARIES: readonly Canary[] = [
  {
    name: 'never connects again',
    firstSeed: 3,
    found: /is not ready again/,
    apply: () => {
      const known = new Set<string>();
      return patch(WorkerClient, 'open', original => {
        return function (this: typeof WorkerClient, channel, options) {
          if (known.has(channel.address)) return Promise.reject(new KofnError('UNAVAILABLE', 'not again'));
          known.add(channel.address);
          return original.call(this, channel, options);
        };
      });
    },
  },
  {
    name: 'takes a silent worker for ready',
    firstSeed: 6,
    found: /has been away for .* and is ready/,
    apply: () =>
      patch(WorkerClient.prototype, 'health', original => {
        return function (this: WorkerClient, options) {
          return original.call(this, options).catch(() => ({ ready: true, live: true }));
        };
      }),
  },
  {
    name: 'keeps sending to a dead worker',
    firstSeed: 540,
    found: /was sent a call while it was away/,
    cluster: ({ connections }) => {
      // A link that is lost is never torn down, and takes calls for ever.
      for (const connection of connections) Object.defineProperty(connection, 'takesCalls', { value: true });
    },
    apply: () =>
      patch(WorkerClient.prototype, 'health', original => {
        return function (this: WorkerClient) {
          return original.call(this, { deadlineMs: 3_600_000 });
        };
      }),
  },
  {
    name: 'keeps sending to a worker whose engine is stuck',
    firstSeed: 10424,
    found: /was sent a call while it was stuck/,
    cluster: ({ connections }) => {
      for (const connection of connections) Object.defineProperty(connection, 'takesCalls', { value: true });
    },
  },
  {
    name: 'ignores a stuck engine',
    firstSeed: 77,
    found: /is stuck in a run since .* and is ready/,
    worker: server => void Object.defineProperty(server, 'isReady', { value: true }),
  },
  {
    name: 'takes a busy worker for a stuck one',
    firstSeed: 865,
    found: /is sound but became suspect \(engine\)/,
    worker: server => void Object.defineProperty(server, 'isReady', { get: () => server.queue.running === 0 }),
  },
  {
    name: 'declares a slow link dead',
    firstSeed: 1,
    found: /is sound but became dead/,
    apply: () =>
      patch(WorkerClient.prototype, 'health', original => {
        return function (this: WorkerClient, options) {
          return original.call(this, { ...options, deadlineMs: 10 });
        };
      }),
  },
  {
    name: 'leaks the old channel when it connects again',
    firstSeed: 3,
    found: /2 channels lead to/,
    apply: () => patch(SimChannel.prototype, Symbol.asyncDispose, () => () => Promise.resolve()),
  },
  {
    name: 'asks for ever, also when it is closed',
    found: /the master left \d+ timers/,
    ...askingForEver(),
  },
  {
    name: 'forgets what it took when it stops',
    firstSeed: 26,
    found: /that it had taken unanswered/,
    worker: server => {
      const serve = server.handlers.duplex.get(METHODS.modelStreamInfer)!;
      const ends: (() => void)[] = [];
      const forgetful = (stream: ServerDuplex) =>
        Promise.race([serve(stream), new Promise<void>(resolve => ends.push(resolve))]);
      (server.handlers.duplex as Map<string, typeof serve>).set(METHODS.modelStreamInfer, forgetful);
      const drain = server.drain.bind(server);
      server.drain = () => {
        for (const end of ends) end();
        return drain();
      };
    },
  },
];

function askingForEver(): Pick<Canary, 'apply' | 'masterClock'> {
  let clock: Clock | undefined;
  return {
    masterClock: real => (clock = real),
    apply: () =>
      patch(WorkerClient.prototype, 'close', original => {
        return async function (this: WorkerClient) {
          const ask = async (): Promise<void> => {
            await sleep(clock!, 500);
            await this.health().catch(() => undefined);
            return ask();
          };
          void ask();
          return original.call(this);
        };
      }),
  };
}
