import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { json, MODEL, Sandbox } from './command.js';

interface PlanObject {
  workers: number;
  speeds: { source: string; roundTripMs: number; megabitsPerSecond: number; workerGflops: number };
  totals: { layers: number; coded: number; macs: number; weightBytes: number; workerBytes: number };
  layers: {
    name: string;
    decision: string;
    reason: string;
    inputShape?: number[];
    costs: { localMs: number; codedMs: number };
    coded?: { k: number; r: number; code: string; shardBytes: number };
  }[];
  suggestion: string | null;
}

describe('kofn plan', () => {
  it('without workers plans for five at assumed speeds, says so, and suggests --layers all when nothing pays', async () => {
    using sandbox = new Sandbox();
    const { code, stdout, stderr } = await sandbox.run('plan', MODEL, '--segments', 'replicated');
    assert.equal(code, 0, stderr);
    for (const words of [
      /fc1 .*does not pay: [\d.]+ ms here, [\d.]+ ms coded/,
      /0 of 6 linear layers coded/,
      /Speeds are assumed: round trip 1\.00 ms, 100 Mbit\/s, worker 2\.00 GFLOP\/s/,
      /--layers all codes them all/,
      /segment 0, \d+ nodes: workers 0 and 1; on two workers, the master when both fail\./,
      /No workers were given: planned for 5/,
    ]) {
      assert.match(stdout, words);
    }
    sandbox.assertNothingLeft();
  });

  it('plans the layers that are named, with what each worker keeps', async () => {
    using sandbox = new Sandbox();
    const outcome = await sandbox.run('plan', MODEL, '--layers', 'fc1', '--parity', '2', '--json');
    assert.equal(outcome.code, 0, outcome.stderr);
    const { workers, speeds, totals, layers, suggestion } = json<PlanObject>(outcome);
    assert.deepEqual([workers, speeds.source, suggestion], [5, 'assumed', null]);
    const coded = layers.filter(({ decision }) => decision === 'coded');
    assert.deepEqual(
      coded.map(({ name, coded: how }) => [name, how?.k, how?.r, how?.code]),
      [['fc1', 3, 2, 'rotation']],
    );
    // 144 rows in 3 blocks of 48, each row with 2352 weights and a bias.
    assert.equal(coded[0]!.coded!.shardBytes, 48 * 2353 * 4);
    assert.equal(totals.workerBytes, 48 * 2353 * 4);
    assert.ok(totals.macs > 10e6 && totals.weightBytes > 1.4e6);
  });

  it('takes open sizes from --shape, and says what it assumed without', async () => {
    using sandbox = new Sandbox();
    const given = await sandbox.run('plan', MODEL, '--shape', 'image=3,1,28,28', '--json');
    assert.equal(given.stderr, '');
    assert.deepEqual(json<PlanObject>(given).layers[0]!.inputShape, [3, 1, 28, 28]);
    for (const random of [[], ['--random', '1']]) {
      const assumed = await sandbox.run('plan', MODEL, ...random);
      assert.equal(
        assumed.stderr,
        'open sizes were assumed: "image" [N,1,28,28] as [1,1,28,28]; say others with --shape image=N,1,28,28\n',
      );
    }
  });

  it('measures on local workers, and leaves none behind', async () => {
    using sandbox = new Sandbox();
    const outcome = await sandbox.run('plan', MODEL, '--local', '2', '--json');
    assert.equal(outcome.code, 0, outcome.stderr);
    const { workers, speeds, layers } = json<PlanObject>(outcome);
    assert.deepEqual([workers, speeds.source, layers.length], [2, 'measured', 6]);
    assert.ok(speeds.roundTripMs > 0 && speeds.megabitsPerSecond > 0 && speeds.workerGflops > 0);
    for (const { reason, costs } of layers) {
      assert.match(reason, /ms here, .* ms coded/);
      assert.ok(costs.localMs > 0 && costs.codedMs > speeds.roundTripMs);
    }
    sandbox.assertNothingLeft();
  });
});

describe('kofn --help', () => {
  for (const command of [[], ['demo'], ['worker'], ['plan'], ['run'], ['replan'], ['bench', 'compare']]) {
    it(`kofn ${[...command, '--help'].join(' ')} explains itself with examples`, async () => {
      using sandbox = new Sandbox();
      const { code, stdout, stderr } = await sandbox.run(...command, '--help');
      assert.deepEqual([code, stderr], [0, '']);
      assert.match(stdout, new RegExp(`Usage: kofn ${command.join(' ')}`));
      assert.match(stdout, /Examples:\n {2}\$ kofn/);
      if (command.length > 0) assert.match(stdout, /--json/);
    });
  }

  it('prints its version', async () => {
    using sandbox = new Sandbox();
    const { code, stdout } = await sandbox.run('--version');
    assert.equal(code, 0);
    assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
  });
});
