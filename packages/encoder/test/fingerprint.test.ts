import assert from 'node:assert/strict';
import { seededRng } from '@kofn/core';
import * as fc from 'fast-check';
import { describe, it } from 'mocha';
import { agrees, deviation, Expectations, fingerprint } from '../src/index.js';
import { codes, draw, ORDERS, replyOf, rms, seeds } from './drawn.js';

describe('fingerprint', () => {
  it('never flags what a sound engine answers, in any order of adding', () =>
    fc.assert(
      fc.property(seeds, codes, (seed, code) => {
        const drawn = draw(seed, code);
        const expected = new Expectations(drawn.prints, drawn.x, drawn.window);
        drawn.blocks.forEach((block, index) => {
          for (const order of ORDERS) {
            const off = deviation(
              drawn.prints[index]!,
              expected.of(index),
              replyOf(drawn, block, order),
              drawn.positions,
            );
            assert.ok(off < 1, `block ${index}, ${order}: ${off}`);
          }
        });
      }),
      { numRuns: 80 },
    ));

  it('finds each changed element, another input, another block, and another scale', () => {
    const lies = { element: 0, bit: 0, input: 0, block: 0, scale: 0 };
    return fc.assert(
      fc.property(seeds, codes, (seed, code) => {
        const drawn = draw(seed, code);
        const rng = seededRng(seed + 1);
        const expected = new Expectations(drawn.prints, drawn.x, drawn.window);
        const index = rng.integer(drawn.blocks.length);
        const [print, block] = [drawn.prints[index]!, drawn.blocks[index]!];
        const honest = replyOf(drawn, block, 'lanes');
        const size = rms(honest);
        if (size === 0) return;
        const finds = (what: keyof typeof lies, lie: Float32Array) => {
          lies[what]++;
          const off = deviation(print, expected.of(index), lie, drawn.positions);
          assert.ok(off > 1, `${what}: ${off}`);
        };
        const at = rng.integer(honest.length);
        const changed = honest.slice();
        changed[at]! += (rng.integer(2) === 0 ? 1 : -1) * 1.01e-4 * size;
        finds('element', changed);
        const flipped = honest.slice();
        new Uint32Array(flipped.buffer)[at]! ^= 1 << rng.integer(31);
        const by = Math.abs(flipped[at]! - honest[at]!);
        if (Number.isFinite(by) && by > 1e-4 * size) finds('bit', flipped);
        const other = { ...drawn, read: drawn.read.map(slice => slice.map(values => values.map(value => -value))) };
        const stale = replyOf(other, block, 'lanes');
        if (rms(stale.map((value, i) => value - honest[i]!)) > 1e-2 * size) finds('input', stale);
        const neighbour = replyOf(drawn, drawn.blocks[(index + 1) % drawn.blocks.length]!, 'lanes');
        if (rms(neighbour.map((value, i) => value - honest[i]!)) > 1e-2 * size) finds('block', neighbour);
        finds(
          'scale',
          honest.map(value => value * 1.001),
        );
      }),
      { numRuns: 200 },
    );
  });

  it('is the weights of one unit a combination, of which few units are many and many few', () => {
    const block = { weights: new Float32Array(64 * 4096) };
    const { rows, rowUnits } = fingerprint(block, { groups: 1, blockUnits: 64, fanIn: 4096 }, n => new Uint8Array(n));
    assert.deepEqual([rows, rowUnits], [2, 32]);
    const small = { weights: new Float32Array(64 * 9) };
    assert.equal(fingerprint(small, { groups: 2, blockUnits: 32, fanIn: 9 }, n => new Uint8Array(n)).rows, 1);
  });

  it('fails what is just beyond the tolerance, which the computed block itself agrees with', () =>
    fc.assert(
      fc.property(seeds, codes, (seed, code) => {
        const drawn = draw(seed, code);
        const rng = seededRng(seed + 1);
        const index = rng.integer(drawn.blocks.length);
        const print = drawn.prints[index]!;
        const expected = new Expectations(drawn.prints, drawn.x, drawn.window).of(index);
        const own = replyOf(drawn, drawn.blocks[index]!, 'lanes');
        if (rms(own) === 0) return;
        // Rounding that adds up as badly as can be: every element errs with its factor.
        const off = (size: number) => {
          const { groups, blockUnits, factors } = print;
          const reply = own.map((value, i) => {
            const unit = Math.floor(i / drawn.positions) % (groups * blockUnits);
            return value + Math.sign(factors[unit]!) * size;
          });
          return { reply, off: deviation(print, expected, reply, drawn.positions) };
        };
        let [under, over] = [0, rms(own)];
        for (let step = 0; step < 40; step++) {
          const middle = (under + over) / 2;
          if (off(middle).off <= 1) under = middle;
          else over = middle;
        }
        const alarm = off(over);
        assert.ok(alarm.off > 1 && off(under).off <= 1);
        assert.ok(agrees(own, alarm.reply), `an honest worker would be blamed for ${over / rms(own)}`);
      }),
      { numRuns: 40 },
    ));

  it('takes large layers a piece at a time, and the blocks in their order', () => {
    const rng = seededRng(5);
    const [blockUnits, fanIn, batch] = [8, 500, 256];
    const normal = (length: number) => Float32Array.from({ length }, () => rng.normal());
    const shape = { groups: 1, blockUnits, fanIn };
    const prints = [0, 1, 2, 3].map(() =>
      fingerprint({ weights: normal(blockUnits * fanIn) }, shape, n => new Uint8Array(n)),
    );
    const x = normal(batch * fanIn);
    const whole = new Expectations(prints, x, undefined);
    const pieces = new Expectations(prints, x, undefined);
    let count = 0;
    while (pieces.advance()) count++;
    assert.ok(count > 1, 'all at once');
    assert.ok(!whole.has(0));
    assert.deepEqual(whole.of(0), pieces.of(0));
    assert.ok(whole.has(0));
    assert.deepEqual(whole.of(3), pieces.of(3));
  });
});
