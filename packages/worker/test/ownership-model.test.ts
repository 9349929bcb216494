/**
 * Random puts, claims, removes, ends of leases and restarts by two owners, many at once, against a model of a few lines:
 * a shard is held exactly while someone claims it. What happened at once must have an order in which the model gives the
 * same answers and ends with the same owners; what lies on the disk must then be what is held.
 */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import type { Owner } from '@kofn/wire';
import { LEASE_MS, NOBODY } from '../src/store/leases.js';
import { scaleShard } from './support/scale-engine.js';
import { scheduledBlobs } from './support/scheduled-blobs.js';
import { HOUR_MS, OwnedStore, owner } from './support/store.js';

const SHARDS = [scaleShard(2, new Uint8Array(50)), scaleShard(3, new Uint8Array(50))];
const OWNERS = [owner('a'), owner('b')];

/** Of one shard: when the lease of each cluster ends. It is held while there is one. */
interface Model {
  readonly nowMs: number;
  readonly ends: Readonly<Record<string, number>>;
}

/** One thing that happened to a shard: the state after it, or undefined when it cannot have happened in that state. */
type Event = (model: Model) => Model | undefined;

const isHeld = ({ ends }: Model) => Object.keys(ends).length > 0;
const without = ({ nowMs, ends }: Model, leaves: (cluster: string, endMs: number) => boolean): Model => ({
  nowMs,
  ends: Object.fromEntries(Object.entries(ends).filter(([cluster, endMs]) => !leaves(cluster, endMs))),
});

const joined =
  ({ cluster }: Owner, isPresent: boolean, canCreate: boolean): Event =>
  model => {
    if (isHeld(model) !== isPresent) return undefined;
    if (!isPresent && !canCreate) return model;
    return { ...model, ends: { ...model.ends, [cluster]: model.nowMs + LEASE_MS } };
  };
const removed =
  (by: Owner | undefined, isGone: boolean): Event =>
  model => {
    const left = without(model, cluster => by === undefined || cluster === by.cluster);
    return (isHeld(model) && !isHeld(left)) === isGone ? left : undefined;
  };
const passed =
  (ms: number): Event =>
  ({ nowMs, ends }) => ({ nowMs: nowMs + ms, ends });
const swept: Event = model => without(model, (_, endMs) => endMs <= model.nowMs);
const restarted: Event = ({ nowMs, ends }) => ({
  nowMs,
  ends: Object.fromEntries(Object.keys(ends).map(cluster => [cluster, nowMs + LEASE_MS])),
});

/** The states in which `models` may be after `events` in any order; time passes before what it ended is swept. */
function after(models: readonly Model[], events: readonly Event[], passing: readonly Event[]): Model[] {
  if (events.length === 0 && passing.length === 0) return [...models];
  const states = new Map<string, Model>();
  const first = (event: Event, restEvents: readonly Event[], restPassing: readonly Event[]) => {
    const next = models.map(event).filter(model => model !== undefined);
    for (const end of next.length > 0 ? after(next, restEvents, restPassing) : []) {
      states.set(JSON.stringify([end.nowMs, Object.entries(end.ends).sort()]), end);
    }
  };
  for (const [i, event] of events.entries()) first(event, events.toSpliced(i, 1), passing);
  if (passing.length > 0) first(passing[0]!, events, passing.slice(1));
  return [...states.values()];
}

type Action =
  | { kind: 'put'; shard: number; by: Owner | undefined }
  | { kind: 'claim'; shard: number; by: Owner }
  | { kind: 'remove'; shard: number; by: Owner | undefined }
  | { kind: 'removeAll'; by: Owner };

const shardIndex = fc.nat(SHARDS.length - 1);
const anOwner = fc.constantFrom(...OWNERS);
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('put' as const), shard: shardIndex, by: anOwner }) },
  fc.record({ kind: fc.constant('put' as const), shard: shardIndex, by: fc.constant(undefined) }),
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('claim' as const), shard: shardIndex, by: anOwner }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('remove' as const), shard: shardIndex, by: anOwner }) },
  fc.record({ kind: fc.constant('remove' as const), shard: shardIndex, by: fc.constant(undefined) }),
  fc.record({ kind: fc.constant('removeAll' as const), by: anOwner }),
);
/** What happens at once, after a restart or not. */
const batch = fc.record({
  restart: fc.constantFrom(false, false, false, true),
  actions: fc.array(action, { minLength: 1, maxLength: 4 }),
  passHours: fc.constantFrom(0, 12, 12, 24),
});

/** Does it, and says what happened to each shard. */
async function perform(t: OwnedStore, action: Action): Promise<[shard: number, event: Event][]> {
  switch (action.kind) {
    case 'put': {
      const { present } = await t.put(SHARDS[action.shard]!, action.by);
      return [[action.shard, joined(action.by ?? NOBODY, present, true)]];
    }
    case 'claim': {
      const isPresent = await t.store.claim(SHARDS[action.shard]!.name, action.by);
      return [[action.shard, joined(action.by, isPresent, false)]];
    }
    case 'remove': {
      const isGone = await t.store.remove(SHARDS[action.shard]!.name, action.by);
      return [[action.shard, removed(action.by, isGone)]];
    }
    case 'removeAll': {
      const names = t.store.claimedBy(action.by);
      const events: [number, Event][] = [];
      for (const [shard, { name }] of SHARDS.entries()) {
        if (names.includes(name)) events.push([shard, removed(action.by, await t.store.remove(name, action.by))]);
        else events.push([shard, model => (action.by.cluster in model.ends ? undefined : model)]);
      }
      return events;
    }
  }
}

/** Resolves when no lease is being ended: the timer is set again, or nothing is left to end. */
async function settled(t: OwnedStore): Promise<void> {
  while (t.clock.armed === 0 && (await readdir(path.join(t.dataDir, 'shards'))).length > 0) {
    await new Promise(resolve => setImmediate(resolve));
  }
}

describe('ownership against a model', () => {
  it('a shard is held exactly while someone claims it, whatever races', async () => {
    await fc.assert(
      fc.asyncProperty(fc.scheduler(), fc.array(batch, { minLength: 1, maxLength: 6 }), async (scheduler, batches) => {
        await using t = await OwnedStore.open(blobs => scheduledBlobs(blobs, scheduler));
        let models: Model[][] = SHARDS.map(() => [{ nowMs: 0, ends: {} }]);
        for (const { restart, actions, passHours } of batches) {
          if (restart) {
            await t.restart();
            models = models.map(states => after(states, [restarted], []));
          }
          const time = scheduler
            .schedule(Promise.resolve(), 'time passes')
            .then(() => t.clock.advance(passHours * HOUR_MS));
          const performed = await scheduler.waitFor(Promise.all(actions.map(each => perform(t, each))));
          await scheduler.waitFor(time);
          await scheduler.waitFor(settled(t));
          for (const [i, shard] of SHARDS.entries()) {
            const events = performed.flat().filter(([index]) => index === i);
            const states = after(
              models[i]!,
              events.map(([, event]) => event),
              [passed(passHours * HOUR_MS), swept],
            );
            const owners = t.ownersOf(shard);
            models[i] = states.filter(state => {
              const named = Object.keys(state.ends).filter(cluster => cluster !== NOBODY.cluster);
              return isHeld(state) === (owners !== undefined) && named.sort().join() === (owners ?? []).join();
            });
            assert.ok(models[i].length > 0, `no order explains shard ${i}, held for ${owners?.join() ?? 'no one'}`);
            const files = await t.files(shard);
            assert.equal(files.includes('weights.bin') && files.includes('model.onnx'), owners !== undefined);
            const kept = JSON.parse((await t.ownersText(shard)) ?? '[]') as Owner[];
            const clusters = kept.map(({ cluster }) => cluster).filter(cluster => cluster !== NOBODY.cluster);
            assert.deepEqual(clusters.sort(), owners ?? []);
          }
        }
        await t.store[Symbol.asyncDispose]();
        assert.equal(t.clock.armed, 0);
      }),
      { numRuns: 100 },
    );
  });
});
