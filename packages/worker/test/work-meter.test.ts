import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { Journal } from '../src/server/journal.js';
import { WorkMeter } from '../src/inference/work-meter.js';
import { TestClock } from './support/test-clock.js';

const MINUTE_MS = 60_000;

describe('a work meter', () => {
  it('adds up what ran in the last five to ten minutes, of runs that say how much they are', () => {
    const clock = new TestClock();
    const meter = new WorkMeter(clock);
    for (const macs of [0, -1, 1.5, NaN, 2 ** 53]) meter.ran(macs, 1);
    assert.deepEqual(meter.recent, { runs: 0, macs: 0, engineMs: 0 });
    meter.ran(100, 2);
    clock.advance(4 * MINUTE_MS);
    meter.ran(200, 3);
    clock.advance(2 * MINUTE_MS);
    meter.ran(400, 5);
    assert.deepEqual(meter.recent, { runs: 3, macs: 700, engineMs: 10 });
    clock.advance(5 * MINUTE_MS);
    assert.deepEqual(meter.recent, { runs: 1, macs: 400, engineMs: 5 });
    clock.advance(5 * MINUTE_MS);
    assert.deepEqual(meter.recent, { runs: 0, macs: 0, engineMs: 0 });
    meter.ran(100, 2);
    clock.advance(60 * MINUTE_MS);
    assert.equal(meter.recent.runs, 0);
  });
});

describe('a journal', () => {
  it('keeps the latest 32, and counts what happens several times at once', () => {
    const clock = new TestClock();
    const journal = new Journal(clock);
    journal.started(0);
    for (let i = 0; i < 3; i++) {
      clock.advance(6_000);
      journal.took('a model');
    }
    clock.advance(MINUTE_MS);
    journal.took('a model');
    journal.dropped();
    assert.deepEqual(journal.latest, [
      { ageMs: 78_000, text: 'started, with 0 shards on its disk' },
      { ageMs: 60_000, text: 'took 3 shards of a model' },
      { ageMs: 0, text: 'took 1 shard of a model' },
      { ageMs: 0, text: 'dropped 1 shard' },
    ]);
    for (let i = 0; i < 40; i++) journal.took(String(i));
    assert.equal(journal.latest.length, 32);
    assert.equal(journal.latest[0]!.text, 'took 1 shard of 8');
  });
});
