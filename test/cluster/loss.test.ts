/** What a request does when workers stall or die: real processes, SIGSTOP for a straggler, SIGKILL for a loss. */
import assert from 'node:assert/strict';
import type { DispatchHooks } from 'kofn';
import { describe, it } from 'mocha';
import { exact, untilLost, withLayer, x } from '../support/dense-layer.js';
import { fails } from '../support/engines.js';
import type { KeptWorkers } from '../support/kept-workers.js';

describe('a request whose workers fail', () => {
  it('decodes without a straggler, which costs nothing and is no error: late', () =>
    withLayer({}, async (layer, workers) => {
      await exact(layer);
      workers.pause(1);
      const report = await exact(layer);
      assert.deepEqual(report.recovered, { lost: [], late: [1] });
      assert.deepEqual([report.decodeSet, report.erasures, report.computedHere], [[0, 2, 3, 4], [], []]);
      assert.ok(report.arrivals.every(({ worker }) => worker !== 1));
      assert.deepEqual(report.unanswered, [{ block: 1, worker: 1 }]);
      workers.resume(1);
      await exact(layer);
    }));

  it('decodes without workers that died before it or in the middle of it: lost', async () => {
    let workers: KeptWorkers | undefined;
    let deadly = -1;
    const afterWrite: DispatchHooks['afterWrite'] = ({ worker }) => {
      if (worker === deadly) void workers!.kill(worker);
    };
    const beforeSend: DispatchHooks['beforeSend'] = ({ worker }) => {
      if (worker === deadly) workers!.pause(worker);
    };
    await withLayer({ parity: 2, hooks: { beforeSend, afterWrite } }, async (layer, running, cluster) => {
      workers = running;
      await running.kill(0);
      await untilLost(cluster, 0);
      const before = await exact(layer);
      assert.deepEqual(before.recovered.lost, [0]);
      assert.deepEqual(
        before.erasures.map(({ block, worker, code }) => [block, worker, code]),
        [[0, 0, 'UNAVAILABLE']],
      );
      deadly = 3;
      const report = await exact(layer);
      assert.deepEqual(report.decodeSet, [1, 2, 4]);
      await untilLost(cluster, 3);
      assert.deepEqual((await exact(layer)).recovered, { lost: [0], late: [] });
      assert.deepEqual(
        cluster.workers.map(({ state }) => state === 'ready'),
        [false, true, true, false, true],
      );
    });
  });

  it('computes here what no worker is left for, and no more than that', () =>
    withLayer({}, async (layer, workers, cluster) => {
      for (const worker of [1, 2]) {
        await workers.kill(worker);
        await untilLost(cluster, worker);
      }
      const report = await exact(layer);
      assert.equal(report.computedHere.length, 1);
      assert.deepEqual(
        report.recovered.lost,
        [1, 2].filter(block => !report.computedHere.includes(block)),
      );
      for (const worker of [0, 3, 4]) {
        await workers.kill(worker);
        await untilLost(cluster, worker);
      }
      assert.deepEqual((await exact(layer)).computedHere, [0, 1, 2, 3]);
    }));

  it('fails at once, naming the lost, when it may not compute here', () =>
    withLayer({ onLoss: 'fail' }, async (layer, workers, cluster) => {
      for (const worker of [1, 2]) {
        await workers.kill(worker);
        await untilLost(cluster, worker);
      }
      await fails(layer.run(x), 'NOT_ENOUGH_WORKERS', /needs 4 of 5 blocks and 2 are lost \(worker 1: .*; worker 2: /);
    }));

  it('ends by its deadline, naming who was silent', () =>
    withLayer({}, async (layer, workers) => {
      workers.pause(0);
      workers.pause(3);
      await fails(
        layer.run(x, { deadlineMs: 300 }),
        'DEADLINE_EXCEEDED',
        /layer layer had 3 of 4 blocks \(no answer from worker 0, 3\)/,
      );
      workers.resume(0);
      workers.resume(3);
      await exact(layer);
    }));

  it('ends when its caller cancels it, before and in the middle', () =>
    withLayer({}, async (layer, workers) => {
      await fails(layer.run(x, { signal: AbortSignal.abort() }), 'CANCELLED', /cancelled/);
      for (const worker of [0, 1, 2, 3, 4]) workers.pause(worker);
      const caller = new AbortController();
      const running = layer.run(x, { signal: caller.signal });
      setImmediate(() => caller.abort());
      await fails(running, 'CANCELLED', /the caller cancelled the request/);
      for (const worker of [0, 1, 2, 3, 4]) workers.resume(worker);
      await exact(layer);
    }));

  it('ends with CANCELLED when the cluster closes under it', () =>
    withLayer({ onLoss: 'fail' }, async (layer, workers, cluster) => {
      for (const worker of [0, 1, 2, 3, 4]) workers.pause(worker);
      const running = fails(layer.run(x), 'CANCELLED', /closed/);
      await new Promise(resolve => setImmediate(resolve));
      await cluster.close();
      await running;
      for (const worker of [0, 1, 2, 3, 4]) workers.resume(worker);
    }));

  it('ends with CANCELLED when the layer closes under it', () =>
    withLayer({}, async (layer, workers) => {
      for (const worker of [0, 1, 2, 3, 4]) workers.pause(worker);
      const running = fails(layer.run(x), 'CANCELLED', /closed/);
      await new Promise(resolve => setImmediate(resolve));
      const closing = layer.close();
      await running;
      for (const worker of [0, 1, 2, 3, 4]) workers.resume(worker);
      await closing;
    }));

  it('computes a layer whose input is not finite here, and blames nobody', () =>
    withLayer({}, async layer => {
      const input = [x[0]!.map((value, i) => (i === 7 ? NaN : value))];
      const { output, report } = await layer.run(input);
      assert.ok(output.data.every(Number.isNaN));
      const [about] = report.layers;
      assert.deepEqual([about!.computedHere, about!.arrivals, about!.erasures], [[0, 1, 2, 3], [], []]);
      await exact(layer);
    }));

  it('waits out the grace for data blocks, and for nothing once they are there', () =>
    withLayer({ systematicGraceMs: 30_000 }, async (layer, workers) => {
      assert.deepEqual((await exact(layer)).recovered, { lost: [], late: [] });
      await workers.kill(2); // an erasure ends the wait: nothing more can come
      assert.deepEqual((await exact(layer)).recovered, { lost: [2], late: [] });
    }));

  it('decodes when the grace has passed', () =>
    withLayer({ systematicGraceMs: 20 }, async (layer, workers) => {
      workers.pause(1);
      assert.deepEqual((await exact(layer)).recovered, { lost: [], late: [1] });
      workers.resume(1);
    }));

  it('with replication needs one copy of each block', () =>
    withLayer({ workers: 6, code: 'replication' }, async (layer, workers, cluster) => {
      assert.deepEqual([layer.plan.layers[0]!.coded!.k, layer.plan.layers[0]!.coded!.r], [3, 3]);
      for (const worker of [0, 4, 2]) {
        await workers.kill(worker);
        await untilLost(cluster, worker);
      }
      assert.deepEqual((await exact(layer)).computedHere, []);
      await workers.kill(1); // the last copy of block 1
      await untilLost(cluster, 1);
      assert.deepEqual((await exact(layer)).computedHere, [1]);
    }));
});
