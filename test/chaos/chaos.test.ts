/** A short run of chaos (run.ts; the long one is `npm run chaos`), each time with another seed, which a failure shows. */
import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { KINDS } from './faults.js';
import { runChaos } from './run.js';

const REQUESTS = 150;

describe('chaos on real processes', () => {
  it('loses nothing, answers nothing wrong, keeps nothing, and uses every worker again', async function () {
    if (process.platform !== 'linux') this.skip(); // it reads /proc
    this.timeout(180_000); // a run that fails says why only when its own deadlines have passed
    const result = await runChaos({ requests: REQUESTS, seed: Date.now() % 2 ** 31 });
    assert.ok(result.holds, JSON.stringify(result, undefined, 2));
    assert.deepEqual(Object.keys(result.faults).sort(), [...KINDS].sort());
  });
});
