import assert from 'node:assert/strict';
import { connect, codedLayer, startLocalWorkers } from 'kofn';
import { describe, it } from 'mocha';
import { exact, weights } from '../support/dense-layer.js';
import { json, Sandbox } from './command.js';

interface FleetObject {
  models: {
    model: string;
    version: number;
    margin: number;
    layers: { layer: string; margin: number; blocks: number[] }[];
  }[];
  events: { worker: number; ageMs: number; text: string }[];
  workers: {
    worker: number;
    address: string;
    state: string;
    reason: string;
    roundTripMs: number | null;
    shards: number | null;
    macsPerSecond: number | null;
    recentRuns: number | null;
    owners: { cluster: string; model: string; version: number; shards: number }[];
  }[];
}

describe('kofn fleet', () => {
  it('tells what each worker is and holds, and whose, and exits with 1 when one does not answer', async () => {
    using sandbox = new Sandbox();
    await using workers = await startLocalWorkers(3);
    await using cluster = await connect({ workers: workers.addresses, id: 'the owner' });
    await using layer = await codedLayer(
      { type: 'dense', weights, name: 'fc1' },
      { cluster, workers: [0, 1], name: 'a layer', systematicGraceMs: 20_000 },
    );
    for (let i = 0; i < 3; i++) await exact(layer); // each waits for its data block
    const addresses = workers.addresses.join(',');
    const all = await sandbox.run('fleet', '--workers', addresses);
    assert.equal(all.code, 0, all.stderr);
    const screen = [
      /ready/,
      /a layer/,
      /the owner/,
      /0 1/,
      /fc1 .* sum 1\+1 .* 2 of 2 .* 1 /,
      /3 of 3 workers answered/,
    ];
    for (const words of [...screen, /s ago {2}worker 1: took 1 shard of a layer/]) assert.match(all.stdout, words);
    const [, port] = /:(\d+)$/.exec(workers.addresses[0]!)!;
    const twice = await sandbox.run('fleet', '--workers', `${addresses},localhost:${port}`, '--json');
    const { workers: told, models: counted } = json<FleetObject>(twice);
    assert.deepEqual(
      [twice.code, told.map(({ state }) => state), counted.map(({ margin }) => margin)],
      [1, ['ready', 'ready', 'ready', 'duplicate'], [1]],
    );
    assert.equal(told[3]!.reason, `it is worker 0 (${workers.addresses[0]}) under another name`);
    await workers.kill(1);
    const some = await sandbox.run('fleet', '--workers', addresses, '--json');
    assert.equal(some.code, 1);
    const { workers: seen, models, events } = json<FleetObject>(some);
    const [model] = models;
    assert.deepEqual(
      [models.length, model!.margin, model!.layers],
      [1, 0, [{ layer: 'fc1', code: 'sum', k: 1, r: 1, blocks: [0], margin: 0 }]],
    );
    assert.deepEqual(events.map(({ worker, text }) => [worker, text]).sort(), [
      [0, 'started, with 0 shards on its disk'],
      [0, 'took 1 shard of a layer'],
      [2, 'started, with 0 shards on its disk'],
    ]);
    assert.ok(seen[0]!.recentRuns === 3 && seen[0]!.macsPerSecond! > 0);
    assert.deepEqual([seen[2]!.recentRuns, seen[2]!.macsPerSecond], [0, null]);
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
    const wrong = await sandbox.run('fleet', '--workers', '127.0.0.1:99999');
    assert.deepEqual([wrong.code, wrong.stdout], [2, '']);
    assert.match(wrong.stderr, /--workers: "127\.0\.0\.1:99999" has the port 99999; give one port from 1 to 65535/);
    const name = 'x'.repeat(64); // longer than DNS has labels: a resolver knows that without asking anybody
    const nowhere = await sandbox.run('fleet', '--workers', name);
    assert.equal(nowhere.code, 1);
    assert.match(nowhere.stdout, /the name x+ cannot be resolved: getaddrinfo E/);
    sandbox.assertNothingLeft();
  });
});
