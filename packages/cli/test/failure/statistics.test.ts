import assert from 'node:assert/strict';
import { seededRng, type Rng } from '@kofn/core';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { fisher, normalQuantile } from '../../src/failure/result/exact.js';
import { estimateOf, estimatesOf, latency, ratioOf, ratios } from '../../src/failure/result/statistics.js';
import { percentile } from '../../src/answers/stats.js';

const draw = (rng: Rng, repeats: number, each: number, scale = 1) =>
  Array.from({ length: repeats }, () => Array.from({ length: each }, () => scale * Math.exp(rng.normal())));

describe('statistics of a failure benchmark', () => {
  it('an estimate is the percentile of all samples, inside its interval; the interval holds samples only', () => {
    const groups = fc.array(fc.array(fc.double({ min: 0.1, max: 1e3, noNaN: true }), { maxLength: 60 }), {
      maxLength: 4,
    });
    fc.assert(
      fc.property(groups, fc.constantFrom(50, 75, 90), (samples, percent) => {
        const all = samples.flat();
        const estimate = estimateOf(samples, percent);
        assert.equal(estimate === null, all.length * (100 - percent) < 1000);
        if (estimate === null) return;
        assert.equal(estimate.value, percentile(all, percent));
        assert.ok(estimate.low <= estimate.value && estimate.value <= estimate.high);
        assert.ok(all.includes(estimate.low) && all.includes(estimate.high));
      }),
      { numRuns: 60 },
    );
  });

  it('the same samples give the same intervals, whatever else is asked for', () => {
    const samples = draw(seededRng(5), 3, 200);
    const [alone] = estimatesOf(samples, [90]);
    assert.deepEqual(alone, estimatesOf(samples, [90, 50])[0]);
    assert.deepEqual(latency(samples), latency(samples));
    assert.deepEqual(ratios(samples, samples), ratios(samples, samples));
  });

  it('a 95 % interval holds the true value in 90 to 99 % of draws', () => {
    for (const [repeats, each] of [
      [1, 60],
      [2, 30],
      [4, 15],
    ] as const) {
      const rng = seededRng(11);
      let held = 0;
      for (let i = 0; i < 200; i++) {
        const { low, high } = estimateOf(draw(rng, repeats, each), 50)!;
        if (low <= 1 && 1 <= high) held++;
      }
      assert.ok(held >= 180 && held <= 198, `${repeats} repeats: ${held} of 200`);
    }
  });

  it('what spans several requests, or a whole repeat, widens the interval', () => {
    const rng = seededRng(3);
    const spans = Array.from({ length: 300 }, () => Math.exp(rng.normal())).flatMap(each =>
      Array<number>(8).fill(each),
    );
    const shuffled = spans
      .map(value => ({ value, at: rng.uniform() }))
      .sort((a, b) => a.at - b.at)
      .map(({ value }) => value);
    const width = (groups: number[][]) => {
      const { low, high } = estimateOf(groups, 50)!;
      return high - low;
    };
    assert.ok(width([spans]) > 1.5 * width([shuffled]));
    const apart = [...draw(rng, 1, 400), ...draw(rng, 1, 400, 1.5), ...draw(rng, 1, 400, 0.7)];
    assert.ok(width(apart) > 2 * width([apart.flat()]));
  });

  it('there is no percentile without 10 samples beyond it, and no ratio', () => {
    const of = (count: number) => [Array.from({ length: count }, (_, i) => i + 1)];
    assert.equal(latency(of(19)).p50, null);
    assert.equal(latency(of(20)).p50?.value, 10);
    assert.equal(latency(of(999)).p99, null);
    assert.equal(latency(of(1000)).p99?.value, 990);
    assert.equal(latency(of(9999)).p999, null);
    assert.equal(latency(of(10_000)).p999?.value, 9990);
    assert.deepEqual(latency([[], []]), { p50: null, p90: null, p99: null, p999: null, max: null });
    const { p50, p99, tailGap } = ratios(of(10_000), of(30));
    assert.ok(p50 !== null && p99 === null && tailGap === null);
    assert.equal(ratioOf(of(50), [Array<number>(50).fill(0)], 50), null, 'over 0');
  });

  it('ratios are of the percentiles; the gap of the tail is p99.9 less the median', () => {
    const rng = seededRng(7);
    const [samples, baselines] = [draw(rng, 2, 6000, 3), draw(rng, 2, 6000)];
    const found = ratios(samples, baselines);
    const at = (groups: number[][], percent: number) => percentile(groups.flat(), percent)!;
    for (const [name, percent] of [
      ['p50', 50],
      ['p90', 90],
      ['p99', 99],
      ['p999', 99.9],
    ] as const) {
      assert.equal(found[name]!.value, at(samples, percent) / at(baselines, percent));
    }
    const gap = (groups: number[][]) => at(groups, 99.9) - at(groups, 50);
    assert.equal(found.tailGap!.value, gap(samples) / gap(baselines));
    assert.ok(found.p50!.low < 3 && found.p50!.high > 3 && found.p50!.low > 2.7 && found.p50!.high < 3.3);
  });

  it('20,000 samples take less than two seconds of processor time, ratios and all', () => {
    const rng = seededRng(1);
    const [a, b] = [draw(rng, 2, 10_000), draw(rng, 2, 10_000)];
    const start = process.cpuUsage();
    assert.ok(latency(a).p999 !== null && ratios(a, b).tailGap !== null);
    const { user, system } = process.cpuUsage(start);
    assert.ok(user + system < 2e6, `${user + system} µs`);
  });

  it("Fisher's test and the normal quantile give the known values", () => {
    // The lady tasting tea (Fisher, 1935), and the dieting table of the textbooks.
    assert.ok(Math.abs(fisher(3, 4, 1, 4) - 34 / 70) < 1e-9);
    assert.ok(Math.abs(fisher(1, 12, 9, 12) - 0.0027594) < 1e-6);
    assert.equal(fisher(0, 50, 0, 70), 1);
    assert.ok(fisher(0, 10_000, 40, 10_000) < 1e-11);
    for (const [p, z] of [
      [0.975, 1.959964],
      [0.5, 0],
      [0.9995, 3.290527],
      [0.001, -3.090232],
    ] as const) {
      assert.ok(Math.abs(normalQuantile(p) - z) < 1e-6, String(p));
    }
  });
});
