/** Late blocks are asked of a second worker: real processes, SIGSTOP for a straggler, SIGKILL for a loss. */
import assert from 'node:assert/strict';
import { codedLayer, connect, startLocalWorkers, type Cluster, type DispatchHooks, type LayerReport } from 'kofn';
import { describe, it } from 'mocha';
import { exact, untilLost, weights, withLayer, x } from '../support/dense-layer.js';
import { fails } from '../support/engines.js';

/** Worker that answered each block. */
const answered = ({ arrivals }: LayerReport) => new Map(arrivals.map(({ block, worker }) => [block, worker]));
const held = async ({ connections }: Cluster) =>
  Promise.all(
    connections.map(async each => (await each.ask(client => client.inventory())).shards.map(({ name }) => name)),
  );
const uncoded = { workers: 4, parity: 0, onLoss: 'fail' } as const;

describe('a hedged request', () => {
  it('asks the next worker for the block of one that stands still, long before anybody knows of it', () =>
    withLayer({ ...uncoded, hedge: 200, onLoss: 'local' }, async (layer, workers, cluster) => {
      await exact(layer);
      workers.pause(1);
      const report = await exact(layer, 1_900);
      assert.ok(report.hedged.includes(1)); // this process may be slow, and others late
      assert.deepEqual([report.resent, report.erasures], [[], []]);
      assert.deepEqual(report.decodeSet, [0, 1, 2, 3]);
      assert.equal(answered(report).get(1), 2);
      assert.ok(report.arrivals.at(-1)!.ms >= 200);
      assert.notEqual(cluster.workers[1]!.state, 'dead');
      workers.pause(2); // the other holder of block 1
      const hopeless = layer.run(x, { deadlineMs: 1_000 });
      await fails(hopeless, 'DEADLINE_EXCEEDED', /had [23] of 4 blocks \(no answer from worker (0, )?1, 2(, 3)?\)/);
      for (const worker of [1, 2]) workers.resume(worker);
    }));

  it('asks it at once for the block of one that dies', async () => {
    let isDeadly = false;
    const hooks: DispatchHooks = {
      beforeSend: ({ worker }) => {
        if (isDeadly && worker === 3) running!.pause(3);
      },
      afterWrite: ({ worker }) => {
        if (isDeadly && worker === 3) void running!.kill(3);
      },
    };
    let running: Parameters<Parameters<typeof withLayer>[1]>[1] | undefined;
    await withLayer({ ...uncoded, hedge: 60_000, hooks }, async (layer, workers, cluster) => {
      running = workers;
      isDeadly = true;
      const report = await exact(layer);
      assert.deepEqual([report.hedged, report.resent, report.computedHere], [[], [3], []]);
      assert.deepEqual(
        [report.erasures.map(({ block, worker }) => [block, worker]), answered(report).get(3)],
        [[[3, 3]], 0],
      );
      await untilLost(cluster, 3);
      assert.deepEqual((await exact(layer)).resent, [3]);
      await workers.kill(0); // the other holder of block 3
      await untilLost(cluster, 0);
      await fails(layer.run(x), 'NOT_ENOUGH_WORKERS', /2 are lost \(.*worker 0: .*\); data blocks 3 are missing/);
    });
  });

  it('leaves it to onLoss when both holders of a block are gone', async () => {
    for (const onLoss of ['local', 'resend'] as const) {
      await withLayer({ ...uncoded, hedge: 20, onLoss }, async (layer, workers, cluster) => {
        for (const worker of [1, 2]) await workers.kill(worker);
        await untilLost(cluster, 1, 2);
        const report = await exact(layer);
        assert.deepEqual([report.computedHere, report.resent], onLoss === 'local' ? [[1], [1, 2]] : [[], [1, 2]]);
        assert.equal(answered(report).get(2), 3);
      });
    }
  });

  it('asks nobody twice when all answer in time, and waits for ever without knowing what is late', () =>
    withLayer({ ...uncoded, hedge: 'p95' }, async (layer, workers) => {
      const first = await exact(layer);
      assert.deepEqual(
        [first.hedged, [...answered(first).entries()].sort()],
        [
          [],
          [
            [0, 0],
            [1, 1],
            [2, 2],
            [3, 3],
          ],
        ],
      );
      workers.pause(0); // 4 times are known, too few
      await fails(
        layer.run(x, { deadlineMs: 1_000 }),
        'DEADLINE_EXCEEDED',
        /had 3 of 4 blocks \(no answer from worker 0\)/,
      );
      workers.resume(0);
      for (let request = 0; request < 6; request++) await exact(layer);
      workers.pause(0);
      const report = await exact(layer, 1_900);
      assert.ok(report.hedged.includes(0));
      assert.equal(answered(report).get(0), 1);
      workers.resume(0);
    }));

  it('with parity asks only for what a decode needs', () =>
    withLayer({ hedge: 400, onLoss: 'fail' }, async (layer, workers) => {
      await exact(layer);
      workers.pause(1);
      assert.deepEqual((await exact(layer)).hedged, []); // the parity block came
      workers.pause(3);
      const report = await exact(layer, 1_900);
      assert.ok(report.hedged.includes(1) && report.hedged.includes(3));
      for (const worker of [1, 3]) workers.resume(worker);
    }));
});

describe('the shards of a hedged layer', () => {
  it('stand on two workers each, are claimed there, and are given up', async () => {
    await using workers = await startLocalWorkers(4);
    await using cluster = await connect({ workers: workers.addresses });
    const layer = await codedLayer({ type: 'dense', weights }, { cluster, parity: 1, hedge: 50 });
    const shards = await held(cluster);
    assert.deepEqual(
      shards.map(names => names.length),
      [1, 2, 2, 2], // the parity block, at worker 3, has one holder
    );
    assert.ok([0, 1, 2].every(block => shards[block + 1]!.some(name => shards[block]!.includes(name))));
    assert.deepEqual(layer.plan.layers[0]!.coded!.others, [1, 2, 3]);
    for (const { connection, names } of cluster.connections.map((each, i) => ({
      connection: each,
      names: shards[i]!,
    }))) {
      assert.deepEqual([...connection.shards].sort(), [...names].sort());
    }
    await layer.close();
    assert.deepEqual(await held(cluster), [[], [], [], []]);
  });
});
