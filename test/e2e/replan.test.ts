import assert from 'node:assert/strict';
import { once } from 'node:events';
import { watch } from 'node:fs';
import path from 'node:path';
import { codedModel, connect, startLocalWorkers, type LocalWorkers } from 'kofn';
import { Links } from 'kofn/measure';
import { describe, it } from 'mocha';
import { ended, json, MODEL, Sandbox } from './command.js';

interface ReplanObject {
  id: string;
  name: string;
  dryRun: boolean;
  version: number;
  before: { version: number; workers: number[]; shards: number };
  workers: { worker: number; planned: { shards: number }; missing: { shards: number; bytes: number } }[];
  missingBytes: number;
  layers: { name: string; coded?: { k: number; r: number } }[];
}

/** As a program that has the model on `count` workers; returns the bytes that it sent. It leaves the shards. */
async function serve(workers: LocalWorkers, count: number): Promise<number> {
  let sent = 0;
  await using cluster = await connect({ workers: workers.addresses.slice(0, count), id: 'shop' });
  await codedModel(MODEL, { cluster, layers: ['fc1'], onProgress: ({ sentBytes }) => (sent = sentBytes) });
  return sent;
}

describe('kofn replan', () => {
  it('puts a plan for more workers in the place of what a program left, and the next program sends nothing', async () => {
    using sandbox = new Sandbox();
    await using workers = await startLocalWorkers(3);
    assert.ok((await serve(workers, 2)) > 0);
    const args = ['replan', MODEL, '--workers', workers.addresses.join(','), '--layers', 'fc1'];

    const [wrong, dry] = await Promise.all([sandbox.run(...args, '--id', 'shed'), sandbox.run(...args, '--dry-run')]);
    assert.deepEqual([wrong.code, wrong.stdout], [2, '']);
    assert.match(wrong.stderr, /no model "fashion-cnn.onnx" of shed stands on .*there are "fashion-cnn.onnx" of shop/);
    assert.equal(dry.code, 0, dry.stderr);
    assert.match(
      dry.stdout,
      /Nothing was changed \(--dry-run\): version 1 stood on 2 workers and still does; \d.* would be sent/,
    );

    const outcome = await sandbox.run(...args, '--json');
    assert.equal(outcome.code, 0, outcome.stderr);
    const replanned = json<ReplanObject>(outcome);
    assert.deepEqual([replanned.id, replanned.name, replanned.version], ['shop', 'fashion-cnn.onnx', 2]);
    assert.deepEqual(replanned.before.workers, [0, 1]);
    assert.deepEqual(
      replanned.workers.map(({ worker, planned, missing }) => [worker, planned.shards, missing.shards]),
      [
        [0, 1, 1],
        [1, 1, 1],
        [2, 1, 1],
      ],
    );
    const { k, r } = replanned.layers.find(({ coded }) => coded !== undefined)!.coded!;
    assert.deepEqual([k, r], [2, 1]);

    await using cluster = await connect({ workers: workers.addresses });
    assert.deepEqual(
      cluster.connections.map(({ inventory }) => inventory.shards.flatMap(({ owners }) => owners)),
      new Array(3).fill([{ cluster: 'shop', model: 'fashion-cnn.onnx', version: 2 }]),
    );
    assert.equal(await serve(workers, 3), 0);
    sandbox.assertNothingLeft();
  });

  it('on Ctrl-C in the middle of an upload leaves the old plan as it was', async () => {
    using sandbox = new Sandbox();
    const dataDir = path.join(sandbox.files, 'disks');
    await using workers = await startLocalWorkers(3, { dataDir });
    await serve(workers, 2);
    await using links = await Links.open(workers.addresses.map(address => Number(address.split(':')[1])));
    await links.shape('all', { megabitsPerSecond: 1 }); // the upload takes some five seconds
    const watcher = watch(path.join(dataDir, 'worker-2', 'tmp'));
    const child = sandbox.start(['replan', MODEL, '--workers', links.addresses.join(','), '--layers', 'fc1']);
    const end = ended(child);
    await once(watcher, 'change'); // the shard begins to come
    watcher.close();
    child.kill('SIGINT');
    const { code, stdout, stderr } = await end;
    assert.deepEqual([code, stdout], [130, ''], stderr);

    await using cluster = await connect({ workers: workers.addresses });
    const owner = { cluster: 'shop', model: 'fashion-cnn.onnx', version: 1 };
    assert.deepEqual(
      cluster.connections.map(({ inventory }) => inventory.shards.map(({ owners }) => owners)),
      [[[owner]], [[owner]], []],
    );
    sandbox.assertNothingLeft();
  });
});
