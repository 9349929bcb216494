/** A short run of chaos (run.ts; the long one is `npm run chaos`), each time with another seed, which a failure shows. */
import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { isLong } from '../support/form.js';
import { KINDS, type FaultKind } from './faults.js';
import { runChaos } from './run.js';

const REQUESTS = isLong ? 150 : 60;
/** Short: a death, silence, a loss for good and wrong answers. */
const FAULTS: readonly FaultKind[] = isLong ? KINDS : ['kill', 'hole', 'lose', 'lie'];

describe('chaos on real processes', () => {
  it('loses nothing, answers nothing wrong, keeps nothing, and uses every worker again', async function () {
    if (process.platform !== 'linux') this.skip(); // it reads /proc
    this.timeout(180_000); // a run that fails says why only when its own deadlines have passed
    const result = await runChaos({ requests: REQUESTS, seed: Date.now() % 2 ** 31, kinds: FAULTS });
    assert.ok(result.holds, JSON.stringify(result, undefined, 2));
    assert.deepEqual(Object.keys(result.faults).sort(), [...FAULTS].sort());
  });
});
