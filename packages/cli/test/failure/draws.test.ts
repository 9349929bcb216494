/** What chance does to frames: the same for the same seed, and with the rates that the shape states. */
import assert from 'node:assert/strict';
import { isKofnError } from '@kofn/core';
import { describe, it } from 'mocha';
import { Draws } from '../../src/failure/links/draws.js';
import { checkShape, flightBytes, WIFI, WIRED, type LinkShape } from '../../src/failure/links/shape.js';

const FRAMES = 100_000;
const drawsOf = (shape: LinkShape, seed = 7, count = FRAMES) => {
  const draws = new Draws(shape, seed, 2, 'back');
  return Array.from({ length: count }, () => draws.next());
};
const near = (actual: number, expected: number, tolerance: number) =>
  assert.ok(Math.abs(actual / expected - 1) < tolerance, `${actual}, not ${expected}`);

describe('draws of frames', () => {
  it('are the same for the same seed, and others for another seed, station or direction', () => {
    const first = (seed: number, station: number, direction: 'there' | 'back') => {
      const draws = new Draws({ ...WIFI, loss: { rate: 0.1, rtoMs: 200 } }, seed, station, direction);
      return JSON.stringify(Array.from({ length: 50 }, () => draws.next()));
    };
    assert.equal(first(3, 1, 'there'), first(3, 1, 'there'));
    const all = [3, 4].flatMap(seed => [0, 1, 2].flatMap(station => (['there', 'back'] as const).map(way => first(seed, station, way)))); // prettier-ignore
    assert.equal(new Set(all).size, all.length);
  });

  it('jitter is lognormal', () => {
    const ms = drawsOf({ jitter: { mu: 1, sigma: 0.5 } })
      .map(draw => draw.ms)
      .sort((a, b) => a - b);
    near(ms[FRAMES / 2]!, Math.E, 0.01);
    near(ms[Math.round(FRAMES * 0.8413)]!, Math.exp(1.5), 0.02); // one sigma above
    near(ms[Math.round(FRAMES * 0.1587)]!, Math.exp(0.5), 0.02);
  });

  it('stalls come at their rate, in bursts, and last as long as stated', () => {
    const stalls = { rate: 0.02, minMs: 50, maxMs: 500, burst: 0.3 };
    const draws = drawsOf({ stalls });
    const after = { stall: { count: 0, stalls: 0 }, none: { count: 0, stalls: 0 } };
    draws.slice(1).forEach(({ isStalled }, i) => {
      const before = after[draws[i]!.isStalled ? 'stall' : 'none'];
      before.count++;
      if (isStalled) before.stalls++;
    });
    near(after.none.stalls / after.none.count, stalls.rate, 0.1);
    near(after.stall.stalls / after.stall.count, stalls.burst, 0.1);
    const lengths = draws.flatMap(({ ms, isStalled }) => (isStalled ? [ms] : []));
    assert.ok(lengths.every(ms => ms >= 50 && ms < 500));
    near(lengths.reduce((a, b) => a + b) / lengths.length, 275, 0.03);
    assert.ok(draws.every(({ ms, isStalled }) => isStalled || ms === 0));
  });

  it('a lost frame waits for the timeout, doubled each time that it is lost again', () => {
    const draws = drawsOf({ loss: { rate: 0.1, rtoMs: 200 } });
    near(draws.filter(({ losses }) => losses > 0).length / FRAMES, 0.1, 0.05);
    near(draws.filter(({ losses }) => losses > 1).length / FRAMES, 0.01, 0.15);
    for (const { ms, losses } of draws) assert.equal(ms, 200 * (2 ** losses - 1));
  });

  it('the stated shapes are valid, others say which value is not', () => {
    for (const shape of [WIFI, WIRED, {}]) checkShape(shape);
    const bad: [LinkShape, RegExp][] = [
      [{ delayMs: -1 }, /delayMs of a link is -1: must be from 0/],
      [{ megabitsPerSecond: NaN }, /megabitsPerSecond of a link is NaN/],
      [
        { stalls: { rate: 0.1, minMs: 20, maxMs: 10, burst: 0 } },
        /maxMs of the stalls of a link is 10: must be from 20/,
      ],
      [{ loss: { rate: 1, rtoMs: 200 } }, /rate of the loss/],
    ];
    for (const [shape, message] of bad) {
      assert.throws(() => checkShape(shape), (error: unknown) => isKofnError(error, 'INVALID_ARGUMENT') && message.test(error.message)); // prettier-ignore
    }
  });

  it('room for what is in flight follows rate and delay', () => {
    assert.equal(flightBytes({}), 0);
    assert.equal(flightBytes({ delayMs: 10, megabitsPerSecond: 8 }), 10_000);
    assert.ok(flightBytes(WIFI) < 32 * 1024);
  });
});
