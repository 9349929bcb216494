/** The examples as a reader runs them; `tsc` has checked their types by then. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'mocha';
import { ended, ROOT, Sandbox } from './command.js';

const EXPECTED: Readonly<Record<string, readonly RegExp[]>> = {
  '01-coded-layer.mjs': [
    // relu(3·row + 2 - row + 0.5) of the rows 0 to 7
    /^output 2.5 4.5 6.5 8.5 10.5 12.5 14.5 16.5$/m,
    /^sum code, k = 4 data blocks, r = 1 parity block$/m,
    /^(worker \d answered after [\d.]+ ms\n){4,5}decoded from blocks/m,
  ],
  '02-local-cluster.mjs': [
    /^conv1: coded rotation \(k = 3, r = 2\)/m,
    /^class: Ankle boot, in [\d.]+ ms$/m,
    /^largest difference to ONNX Runtime: \d\.\de-[6-9]$/m,
  ],
  '03-kill-a-worker.mjs': [
    /^200 requests, all answered; 0 differ from the first$/m,
    /^([5-9]\d|10\d) were decoded without the dead worker's block$/m,
    /(ready, .*){2}(dead|connecting)(, .* ready){2}$/m,
  ],
};

describe('examples', () => {
  it('are all run here', () => {
    const there = readdirSync(path.join(ROOT, 'examples')).filter(name => name.endsWith('.mjs'));
    assert.deepEqual(there, Object.keys(EXPECTED));
  });

  for (const [name, lines] of Object.entries(EXPECTED)) {
    it(name, async () => {
      using sandbox = new Sandbox();
      const { code, stdout, stderr } = await ended(sandbox.start([], path.join(ROOT, 'examples', name)));
      assert.equal(code, 0, stderr);
      for (const line of lines) assert.match(stdout, line);
      assert.equal(stderr, '');
      sandbox.assertNothingLeft();
    });
  }
});
