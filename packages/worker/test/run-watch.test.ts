import assert from 'node:assert/strict';
import { systemClock } from '@kofn/core';
import { describe, it } from 'mocha';
import { RunWatch } from '../src/inference/run-watch.js';

function setup() {
  let now = 0;
  const watch = new RunWatch({ ...systemClock, now: () => now });
  const pass = (ms: number) => (now += ms);
  /** Something under way, and what ends it. */
  const begin = (by: (work: () => Promise<void>) => Promise<void>) => {
    let end!: () => void;
    const ended = by(() => new Promise<void>(resolve => (end = resolve)));
    return () => (end(), ended);
  };
  return { watch, pass, begin };
}

describe('what hangs in an engine', () => {
  it('is a run over two seconds, and over ten times what the runs of its shard take', async () => {
    const { watch, pass, begin } = setup();
    const first = begin(run => watch.watch('a', run));
    pass(2_000);
    assert.equal(watch.isStuck, false);
    pass(1);
    assert.equal(watch.isStuck, true);
    await first();
    assert.equal(watch.isStuck, false);
    const second = begin(run => watch.watch('a', run));
    pass(20_010);
    assert.equal(watch.isStuck, false, 'the first took 2,001 ms');
    pass(1);
    assert.equal(watch.isStuck, true);
    await second();
  });

  it('is a session that opens for longer than a slow card needs for its weights', async () => {
    const { watch, pass, begin } = setup();
    const [small, large] = [1_000, 100e6].map(bytes => begin(open => watch.watchOpening(bytes, open))) as [
      () => Promise<void>,
      () => Promise<void>,
    ];
    pass(10_001);
    assert.equal(watch.isStuck, false);
    pass(1);
    assert.equal(watch.isStuck, true);
    await small();
    pass(99_998);
    assert.equal(watch.isStuck, false);
    pass(1);
    assert.equal(watch.isStuck, true);
    await large();
    assert.equal(watch.isStuck, false);
  });

  it('is not a run that failed', async () => {
    const { watch, pass } = setup();
    await assert.rejects(
      watch.watch('a', () => Promise.reject(new Error('no'))),
      /no/,
    );
    pass(10_000);
    assert.equal(watch.isStuck, false);
  });
});
