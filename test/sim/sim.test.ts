import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';
import { CANARIES } from './canary.js';
import { FLEET_CANARIES } from './fleet-canary.js';
import { HEAL_CANARIES } from './heal-canary.js';
import { simulateFleet } from './scale.js';
import { simulate } from './simulate.js';

const SEEDS = 250;
/** By then a planted bug must have been found. */
const CANARY_SEEDS = 2000;

const command = (...args: string[]) =>
  spawnSync(process.execPath, [fileURLToPath(new URL('main.js', import.meta.url)), ...args], { encoding: 'utf8' });

describe('simulator', () => {
  it(`finds nothing in ${SEEDS} seeds`, async () => {
    for (let seed = 0; seed < SEEDS; seed++) {
      const { violations } = await simulate(seed);
      assert.deepEqual(violations, [], `npm run sim -- --seed ${seed} --seeds 1 --trace`);
    }
  });

  it('replays a seed byte for byte', async () => {
    for (const seed of [3, 21, 1213, 2 ** 40]) {
      const [first, second] = [await simulate(seed), await simulate(seed)];
      assert.deepEqual(second.trace, first.trace);
      assert.equal(second.hash, first.hash);
    }
    const [first, second] = [command('--seeds', '20', '--json'), command('--seeds', '20', '--json')];
    const hashOf = ({ stdout }: { stdout: string }) => (JSON.parse(stdout) as { hash: string }).hash;
    assert.equal(hashOf(second), hashOf(first));
  });

  for (const canary of [...CANARIES, ...FLEET_CANARIES, ...HEAL_CANARIES]) {
    it(`finds a planted bug: ${canary.name}`, async () => {
      const { firstSeed = 0 } = canary;
      for (let seed = firstSeed; seed < firstSeed + CANARY_SEEDS; seed++) {
        const { violations } = await simulate(seed, canary);
        if (violations.some(violation => canary.found.test(violation))) return;
      }
      assert.fail(`not found in ${CANARY_SEEDS} seeds`);
    });
  }

  it('loses nothing in a fleet of layers on ten workers each, whose workers are killed and paused', async () => {
    const [first, second] = [
      (await simulateFleet(7, { workers: 60, requests: 900 }))!,
      (await simulateFleet(7, { workers: 60, requests: 900 }))!,
    ];
    const { workers, layers, requests, lost, wrong, kills, pauses, events } = first;
    assert.deepEqual(
      { workers, layers, requests, lost, wrong },
      { workers: 60, layers: 6, requests: 900, lost: 0, wrong: 0 },
    );
    assert.ok(kills > 0 && pauses > 0);
    assert.deepEqual([second.events, second.kills, second.pauses], [events, kills, pauses]);
  });

  it('leaves nothing planted behind', async () => {
    const { violations } = await simulate(0);
    assert.deepEqual(violations, []);
  });

  it('says how it is used, and what is wrong with an option', () => {
    const help = command('--help');
    assert.deepEqual([help.status, help.stderr], [0, '']);
    assert.match(help.stdout, /--seeds N/);
    const wrong = command('--seeds', '0');
    assert.deepEqual([wrong.status, wrong.stdout], [2, '']);
    assert.match(wrong.stderr, /--seeds 0: must be a whole number from 1/);
    const traced = command('--seed', '5', '--seeds', '1', '--trace');
    assert.equal(traced.status, 0);
    assert.match(traced.stdout, /seed 5: [0-9a-f]{64}\n\nseeds 5 to 5: 0 failed/);
  });
});
