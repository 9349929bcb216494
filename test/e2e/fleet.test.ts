import assert from 'node:assert/strict';
import { connect, codedLayer, startLocalWorkers } from 'kofn';
import { describe, it } from 'mocha';
import { weights } from '../support/dense-layer.js';
import { json, Sandbox } from './command.js';

interface FleetObject {
  workers: {
    worker: number;
    address: string;
    state: string;
    reason: string;
    roundTripMs: number | null;
    shards: number | null;
    owners: { cluster: string; model: string; version: number; shards: number }[];
  }[];
}

describe('kofn fleet', () => {
  it('tells what each worker is and holds, and whose, and exits with 1 when one does not answer', async () => {
    using sandbox = new Sandbox();
    await using workers = await startLocalWorkers(3);
    await using cluster = await connect({ workers: workers.addresses, id: 'the owner' });
    await using _layer = await codedLayer({ type: 'dense', weights }, { cluster, workers: [0, 1], name: 'a layer' });
    const addresses = workers.addresses.join(',');
    const all = await sandbox.run('fleet', '--workers', addresses);
    assert.equal(all.code, 0, all.stderr);
    for (const words of [/ready/, /a layer/, /the owner/, /0 1/, /3 of 3 workers answered/])
      assert.match(all.stdout, words);
    await workers.kill(1);
    const some = await sandbox.run('fleet', '--workers', addresses, '--json');
    assert.equal(some.code, 1);
    const { workers: seen } = json<FleetObject>(some);
    assert.deepEqual(
      seen.map(({ state, shards }) => [state, shards]),
      [
        ['ready', 1],
        ['unreachable', null],
        ['ready', 0],
      ],
    );
    assert.ok(seen[0]!.roundTripMs! > 0 && seen[1]!.reason !== '');
    assert.deepEqual(
      seen[0]!.owners.map(({ cluster: owner, model, version, shards }) => [owner, model, version, shards]),
      [['the owner', 'a layer', 1, 1]],
    );
    const wrong = await sandbox.run('fleet', '--workers', 'here');
    assert.deepEqual([wrong.code, wrong.stdout], [2, '']);
    assert.match(wrong.stderr, /--workers: "here" is not host:port/);
    sandbox.assertNothingLeft();
  });
});
