/** What happens when fewer than k workers are left, by policy: real processes that are killed, often all at once. */
import assert from 'node:assert/strict';
import { KofnError, systemClock } from '@kofn/core';
import { createEngine, type Engine, type Session } from '@kofn/engine';
import { connect as connectWith } from '@kofn/master';
import { codedLayer, connect } from 'kofn';
import type { DispatchHooks, OnLoss } from 'kofn';
import { untilFleet } from 'kofn/measure';
import { describe, it } from 'mocha';
import { assertExact, exact, untilLost, weights, withLayer, x } from '../support/dense-layer.js';
import { fails } from '../support/engines.js';
import { keptWorkers, type KeptWorkers } from '../support/kept-workers.js';
import { faultyWorkers } from '../support/lossy-cluster.js';

const ALL = [0, 1, 2, 3, 4];

/**
 * Hooks by which every worker of `dying` dies holding the first request after `arm`: none of them runs from before its call
 * is sent, and all are killed in one go when the last has its call.
 */
function deathTogether(dying: readonly number[]): DispatchHooks & { arm(workers: KeptWorkers): void } {
  let workers: KeptWorkers | undefined;
  const holding = new Set<number>();
  return {
    arm: running => (workers = running),
    beforeSend: ({ worker }) => {
      if (dying.includes(worker)) workers?.pause(worker);
    },
    afterWrite: ({ worker }) => {
      if (workers === undefined || !dying.includes(worker) || holding.add(worker).size < dying.length) return;
      for (const each of dying) void workers.kill(each);
      workers = undefined;
    },
  };
}

describe('with fewer than k workers left', () => {
  const outcomes: [OnLoss, RegExp | undefined][] = [
    ['local', undefined],
    [
      'resend',
      /^NOT_ENOUGH_WORKERS: layer layer needs 4 of 5 blocks and \d are lost .*no other worker can compute them/,
    ],
    ['fail', /^NOT_ENOUGH_WORKERS: layer layer needs 4 of 5 blocks and \d are lost .*data blocks .* are missing/],
  ];
  for (const [onLoss, error] of outcomes) {
    it(`a request whose workers all die holding it ends (${onLoss})`, async () => {
      const hooks = deathTogether(ALL);
      await withLayer({ onLoss, hooks }, async (layer, workers) => {
        await exact(layer);
        hooks.arm(workers);
        const ended = await layer.run(x, { deadlineMs: 20_000 }).catch((cause: unknown) => KofnError.from(cause));
        if (error !== undefined) {
          assert.ok(ended instanceof KofnError);
          return assert.match(`${ended.code}: ${ended.message}`, error);
        }
        if (ended instanceof KofnError) throw ended;
        assertExact(ended.output.data);
        assert.deepEqual(ended.report.layers[0]!.computedHere, [0, 1, 2, 3]);
        assert.deepEqual((await exact(layer)).computedHere, [0, 1, 2, 3]);
      });
    });
  }

  it('fails within 50 ms of the knowledge, naming layer, workers and blocks', async () => {
    const hooks = deathTogether([1, 2]);
    await withLayer({ onLoss: 'fail', hooks }, async (layer, workers, cluster) => {
      hooks.arm(workers);
      const known = untilFleet(cluster, fleet => fleet[1]!.state !== 'ready' && fleet[2]!.state !== 'ready').then(() =>
        systemClock.now(),
      );
      await fails(
        layer.run(x),
        'NOT_ENOUGH_WORKERS',
        /layer layer needs 4 of 5 blocks and 2 are lost \(worker \d.*; worker \d.*\); data blocks [12] are missing\. Restart/,
      );
      const ms = systemClock.now() - (await known);
      assert.ok(ms < 50, `${ms} ms after both were known to be lost`);
    });
  });

  it('has others compute what two that die in the same instant held, and sends the shard once', async () => {
    const hooks = deathTogether([0, 3]);
    await withLayer({ onLoss: 'resend', hooks }, async (layer, workers, cluster) => {
      hooks.arm(workers);
      const first = await exact(layer);
      assert.deepEqual([first.resent.length, first.computedHere], [1, []]);
      const [block] = first.resent;
      const helper = first.arrivals.find(arrival => arrival.block === block)!.worker;
      assert.ok([1, 2, 4].includes(helper));
      await untilLost(cluster, 0, 3);
      const held = () => cluster.connections[helper]!.ask(client => client.inventory());
      assert.equal((await held()).shards.length, 2);
      const second = await exact(layer);
      assert.deepEqual(second.resent, [block]);
      assert.equal(second.arrivals.find(arrival => arrival.block === block)!.worker, helper);
      await layer.close();
      assert.equal((await held()).shards.length, 0);
    });
  });

  it('asks another when the one that helps dies, too', async () => {
    let workers: KeptWorkers | undefined;
    const calls: number[] = [];
    const beforeSend: DispatchHooks['beforeSend'] = ({ worker }) => {
      if (!calls.includes(worker) || workers === undefined) return void calls.push(worker);
      workers.pause(worker); // its second call of this request is the block of another
      void workers.kill(worker);
      workers = undefined;
    };
    await withLayer({ onLoss: 'resend', hooks: { beforeSend } }, async (layer, running, cluster) => {
      for (const worker of [1, 2]) await running.kill(worker);
      await untilLost(cluster, 1, 2);
      workers = running;
      const report = await exact(layer);
      assert.equal(workers, undefined);
      assert.ok(report.erasures.length >= 3, JSON.stringify(report.erasures));
      assert.ok(report.resent.length >= 1);
    });
  });

  it('prefers a worker that has nothing of the layer', () =>
    withLayer({ code: 'replication', onLoss: 'resend' }, async (layer, workers, cluster) => {
      assert.equal(layer.plan.layers[0]!.coded!.k, 2); // 4 shards: worker 4 is a spare
      for (const worker of [0, 2]) await workers.kill(worker);
      await untilLost(cluster, 0, 2);
      const report = await exact(layer);
      assert.deepEqual(report.resent, [0]);
      assert.equal(report.arrivals.find(({ block }) => block === 0)!.worker, 4);
    }));

  it('gives a worker the shard that it has lost, and asks it again', async () => {
    await using faulty = await faultyWorkers([], outputs => outputs);
    await using cluster = await connect({ workers: faulty.addresses });
    await using layer = await codedLayer({ type: 'dense', weights }, { cluster, onLoss: 'resend' });
    for (const { server } of faulty.workers) {
      for (const { name } of server.store.list()) await server.store.remove(name);
    }
    const report = await exact(layer);
    assert.deepEqual(report.resent.length, 4);
    assert.ok(report.erasures.every(({ code }) => code === 'NOT_FOUND'));
    assert.deepEqual(new Set(report.arrivals.map(({ worker }) => worker)).size, 4);
  });

  it('ends with ENGINE when the master cannot compute it either, and goes on when it can', async () => {
    await using workers = await keptWorkers(3);
    const engine = breakable(await createEngine('native'));
    await using cluster = await connectWith({ workers: workers.addresses }, { engine });
    await using layer = await codedLayer({ type: 'dense', weights }, { cluster });
    for (const worker of [0, 1]) await workers.kill(worker);
    await untilLost(cluster, 0, 1);
    engine.isBroken = true;
    await fails(layer.run(x), 'ENGINE', /the master itself could not compute block \d of layer layer: out of order/);
    engine.isBroken = false;
    assert.equal((await exact(layer)).computedHere.length, 1);
    engine.isBroken = true; // in a session that is open already
    await fails(layer.run(x), 'ENGINE', /the master itself could not compute block \d of layer layer: out of order/);
  });
});

describe('more requests than maxInFlight', () => {
  it('are refused at once, and taken when others have ended', () =>
    withLayer({ maxInFlight: 2 }, async (layer, workers) => {
      for (const worker of ALL) workers.pause(worker);
      const running = [exact(layer), exact(layer)];
      await fails(
        layer.run(x),
        'RESOURCE_EXHAUSTED',
        /2 requests are under way on this cluster already; .*maxInFlight/,
      );
      for (const worker of ALL) workers.resume(worker);
      await Promise.all(running);
      await exact(layer);
    }));
});

/** `engine`, which fails all that is asked of it while it is broken. */
function breakable(engine: Engine): Engine & { isBroken: boolean } {
  const check = () => {
    if (broken.isBroken) throw new KofnError('ENGINE', 'out of order');
  };
  const session = (sound: Session): Session => ({
    inputs: sound.inputs,
    outputs: sound.outputs,
    run: async (...args) => (check(), sound.run(...args)),
    [Symbol.asyncDispose]: () => sound[Symbol.asyncDispose](),
  });
  const broken: Engine & { isBroken: boolean } = {
    isBroken: false,
    name: engine.name,
    version: engine.version,
    open: async (...args) => (check(), session(await engine.open(...args))),
    normalise: engine.normalise,
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
  return broken;
}
