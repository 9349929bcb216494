import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { itWhenLong } from '../support/form.js';
import { json, Sandbox } from './command.js';

interface Figures {
  k: number;
  r: number;
  requests: number;
  lost: number;
  wrong: number;
  accuracy: number;
  recovered: { lost: number; late: number };
  p50Ms: { before: number | null; after: number | null };
  p99Ms: { before: number | null; after: number | null };
  killedRequestMs: number | null;
  kill: { worker: number; request: number; hit: boolean };
}

describe('kofn demo', () => {
  it('loses and changes nothing when a worker dies holding a request, where the uncoded network stops', async () => {
    using sandbox = new Sandbox();
    const outcome = await sandbox.run('demo', '--requests', '30', '--json');
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.doesNotMatch(outcome.stderr, /warning/i);
    const { coded, uncoded, ...top } = json<Figures & { coded: Figures; uncoded: Figures }>(outcome);
    assert.deepEqual(top, coded, "the coded pass's keys stand at the top too");

    assert.deepEqual([coded.k, coded.r, coded.requests, coded.lost, coded.wrong], [4, 1, 30, 0, 0]);
    assert.deepEqual(coded.kill, { worker: 2, request: 10, hit: true });
    assert.ok(coded.accuracy >= 0.8, `accuracy ${coded.accuracy}`);
    // Six layers; from the killed request on, worker 2's block of each is computed from parity.
    assert.ok(coded.recovered.lost >= 6 * 19, `recovered ${coded.recovered.lost}`);
    assert.ok(coded.killedRequestMs! > 0);
    for (const { before, after } of [coded.p50Ms, coded.p99Ms]) assert.ok(before! > 0 && after! > 0);

    assert.deepEqual([uncoded.k, uncoded.r, uncoded.wrong], [5, 0, 0]);
    assert.deepEqual(uncoded.kill, { worker: 2, request: 10, hit: true });
    assert.equal(uncoded.lost, 20, 'every request from the killed one on');
    assert.equal(uncoded.killedRequestMs, null);
    assert.equal(uncoded.p50Ms.after, null);
    assert.ok(uncoded.accuracy < coded.accuracy);
    sandbox.assertNothingLeft();
  });

  itWhenLong('ends with a table for people', async () => {
    using sandbox = new Sandbox();
    const { code, stdout } = await sandbox.run('demo', '--requests', '3');
    assert.equal(code, 0);
    for (const row of [
      /coded .*uncoded, no recovery/,
      /lost +│ 0 +│ 2/,
      /p50 ms, before \/ after/,
      /killed request, ms/,
    ]) {
      assert.match(stdout, row);
    }
    sandbox.assertNothingLeft();
  });
});
