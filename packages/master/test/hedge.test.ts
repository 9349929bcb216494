/** When a block is late: the window of times, its quantile, and what a hedge may do to it. */
import assert from 'node:assert/strict';
import { seededRng } from '@kofn/core';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { Hedge } from '../src/blocks/hedge.js';
import { RecentTimes } from '../src/fleet/recent-times.js';

const times = fc.array(fc.double({ min: 0, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 60 });

describe('recent times', () => {
  it('are the latest, and their quantile the smallest that so large a part does not exceed', () => {
    fc.assert(
      fc.property(
        times,
        fc.integer({ min: 1, max: 40 }),
        fc.double({ min: 0.01, max: 1, noNaN: true }),
        (all, size, part) => {
          const window = new RecentTimes(size);
          for (const ms of all) {
            window.add(ms);
            window.quantile(part); // looking changes nothing
          }
          const kept = all.slice(-size);
          assert.equal(window.count, kept.length);
          const quantile = window.quantile(part);
          assert.ok(kept.includes(quantile));
          const below = (isBelow: (ms: number) => boolean) => kept.filter(isBelow).length;
          assert.ok(below(ms => ms <= quantile) >= part * kept.length - 1e-9);
          assert.ok(below(ms => ms < quantile) < part * kept.length);
        },
      ),
    );
  });

  it('without any have no quantile', () => {
    assert.ok(Number.isNaN(new RecentTimes(5).quantile(0.95)));
  });
});

describe('a hedge', () => {
  it('after a fixed time knows it from the beginning', () => {
    const hedge = new Hedge(30);
    for (let i = 0; i < 100; i++) hedge.arrived(1);
    assert.equal(hedge.afterMs, 30);
  });

  it("after 'p95' waits for 20 times, and goes with the last 200", () => {
    const hedge = new Hedge('p95');
    for (let i = 1; i <= 19; i++) hedge.arrived(i);
    hedge.cancelled(1000); // of a time that cannot be judged yet
    assert.equal(hedge.afterMs, undefined);
    hedge.arrived(20);
    assert.equal(hedge.afterMs, 19);
    for (let i = 0; i < 200; i++) hedge.arrived(5);
    assert.equal(hedge.afterMs, 5);
  });

  it('is for one reply in twenty or little more, whatever its hedges cut off and callers give up early', () => {
    fc.assert(
      fc.property(fc.nat(), seed => {
        const rng = seededRng(seed);
        const hedge = new Hedge('p95');
        let hedges = 0;
        for (let i = 0; i < 4000; i++) {
          const ms = 10 * Math.exp(rng.normal());
          const afterMs = hedge.afterMs ?? Infinity;
          const wonMs = afterMs + 2; // so fast is a second worker, once it is asked
          if (ms > afterMs && i >= 2000) hedges++;
          if (ms <= wonMs) hedge.arrived(ms);
          else hedge.cancelled(wonMs); // were this forgotten, every third would be hedged by now
          if (rng.integer(2) === 0) hedge.cancelled(rng.uniform());
        }
        assert.ok(hedges < 0.1 * 2000, `${hedges} of 2000`);
      }),
      { numRuns: 5 },
    );
  });
});
