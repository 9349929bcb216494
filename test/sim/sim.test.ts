import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';
import { isLong } from '../support/form.js';
import { CANARIES } from './canary.js';
import { FLEET_CANARIES } from './fleet-canary.js';
import { HEAL_CANARIES } from './heal-canary.js';
import { LIES } from './lies.js';
import { RESTART_CANARIES } from './restart-canary.js';
import { simulateFleet } from './scale.js';
import { simulate } from './simulate.js';

const SEEDS = isLong ? 120 : 40;
/** Of a large fleet: workers, and requests to them. */
const FLEET = isLong ? { workers: 60, requests: 900 } : { workers: 40, requests: 400 };
/** By then a planted bug must have been found. */
const CANARY_SEEDS = 2000;

const command = (...args: string[]) =>
  spawnSync(process.execPath, [fileURLToPath(new URL('main.js', import.meta.url)), ...args], { encoding: 'utf8' });

describe('simulator', () => {
  it(`finds nothing in ${SEEDS} seeds, in which all that it draws happens`, async function () {
    this.timeout(180_000); // it is all computation, and the machine may be busy
    const caught = new Map(LIES.map(lie => [lie, 0]));
    let [restarts, healed] = [0, 0];
    for (let seed = 0; seed < SEEDS; seed++) {
      const outcome = await simulate(seed);
      assert.deepEqual(outcome.violations, [], `npm run sim -- --seed ${seed} --seeds 1 --trace`);
      restarts += outcome.restarts;
      healed += outcome.healed;
      for (const [lie, count] of outcome.caught) caught.set(lie, caught.get(lie)! + count);
    }
    assert.ok(restarts > SEEDS / 10 && healed > SEEDS / 4, `${restarts} restarts, ${healed} healed`);
    for (const [lie, count] of caught) assert.ok(count > 0, `no lie ${lie} was caught`);
  });

  it('replays a seed byte for byte, in another process too', async () => {
    const seeds = 3;
    const hash = createHash('sha256');
    for (let seed = 0; seed < seeds; seed++) {
      const [first, second] = [await simulate(seed), await simulate(seed)];
      assert.deepEqual(second.trace, first.trace);
      assert.equal(second.hash, first.hash);
      hash.update(first.hash);
    }
    const { stdout } = command('--seeds', String(seeds), '--json');
    assert.equal((JSON.parse(stdout) as { hash: string }).hash, hash.digest('hex'));
  });

  for (const canary of [...CANARIES, ...FLEET_CANARIES, ...HEAL_CANARIES, ...RESTART_CANARIES]) {
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
    const [first, second] = [(await simulateFleet(7, FLEET))!, (await simulateFleet(7, FLEET))!];
    const { workers, layers, requests, lost, wrong, kills, pauses, events } = first;
    assert.deepEqual(
      { workers, layers, requests, lost, wrong },
      { ...FLEET, layers: FLEET.workers / 10, lost: 0, wrong: 0 },
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
