import assert from 'node:assert/strict';
import { seededRng } from '@kofn/core';
import * as fc from 'fast-check';
import { describe, it } from 'mocha';
import { createCode, inputEnergies, misfit, parityChecks, unitEnergies, type Code } from '../src/index.js';
import { codes, draw, ORDERS, replyOf, rms, seeds, type Drawn } from './drawn.js';

function finished<T>(work: Generator<number, T>): T {
  for (;;) {
    const next = work.next();
    if (next.done === true) return next.value;
  }
}

/** How far the replies of the blocks `present` are from fitting together; undefined when nothing could tell. */
function misfitOf(drawn: Drawn, code: Code, replies: readonly Float32Array[], present: readonly number[]) {
  const { groups, fanIn, blockUnits, blocks, encoding, x, window, positions } = drawn;
  const { energies, work } = inputEnergies({ groups, fanIn }, x, window);
  finished(work);
  const checks = parityChecks(code, present);
  if (checks.length === 0) return undefined;
  const { partition, scales } = encoding;
  const units = blocks.map(block => unitEnergies(block, groups * blockUnits));
  const layer = { code, partition, scales, fanIn, energies: units };
  const there = new Map(present.map(block => [block, replies[block]!]));
  return finished(misfit(layer, checks, there, { energies, positions }));
}

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);
const subsets = (n: number) => numbers(2 ** n).map(bits => numbers(n).filter(i => (bits >> i) % 2 === 1));

describe('parity checks', () => {
  it('are what is left of the redundancy, for every set of blocks of every small code', () => {
    const rng = seededRng(3);
    const small = [
      ...[1, 2, 5].map(k => createCode('sum', { k, r: 1 })),
      ...[1, 3, 4].flatMap(k => [1, 2, 3].map(r => createCode('rotation', { k, r }))),
      createCode('replication', { k: 2, r: 4 }),
    ];
    for (const code of small) {
      const { k, n, subBlocks, generator, name } = code;
      const data = Float64Array.from({ length: k * subBlocks }, () => rng.normal());
      const coded = numbers(n * subBlocks).map(part => data.reduce((sum, d, i) => sum + d * generator.get(part, i), 0));
      for (const present of subsets(n)) {
        const checks = parityChecks(code, present);
        const beyond =
          name === 'replication'
            ? numbers(k).reduce((sum, i) => sum + Math.max(0, present.filter(b => b % k === i).length - 1), 0)
            : Math.max(0, present.length - k);
        assert.equal(checks.length, beyond * subBlocks, `${name} ${k}+${n - k}: ${present.join()}`);
        for (const check of checks) {
          const off = check.reduce((sum, coefficient, part) => sum + coefficient * coded[part]!, 0);
          assert.ok(Math.abs(off) < 1e-8, `${name}: ${off}`);
        }
        for (const block of numbers(n)) {
          const parts = numbers(subBlocks).map(part => block * subBlocks + part);
          const most = Math.max(0, ...checks.flatMap(check => parts.map(part => Math.abs(check[part]!))));
          if (!present.includes(block)) assert.equal(most, 0);
          else if (beyond > 0 && name !== 'replication') assert.ok(most > 1e-3, `block ${block} is in no check`);
        }
      }
    }
  });

  it('never fail what sound engines answer, each in an order of its own', () =>
    fc.assert(
      fc.property(seeds, codes, (seed, code) => {
        const drawn = draw(seed, code);
        const rng = seededRng(seed + 1);
        const replies = drawn.blocks.map(block => replyOf(drawn, block, ORDERS[rng.integer(4)]!));
        const absent = rng.integer(code.n);
        for (const present of [numbers(code.n), numbers(code.n).filter(block => block !== absent)]) {
          const off = misfitOf(drawn, code, replies, present) ?? 0;
          assert.ok(off < 1, `${present.join()}: ${off}`);
        }
      }),
      { numRuns: 80 },
    ));

  it('find a changed element of any block, and with r = 2 whose it is', () =>
    fc.assert(
      fc.property(
        seeds,
        fc.constantFrom(...[1, 2].map(r => createCode(r === 1 ? 'sum' : 'rotation', { k: 3, r }))),
        (seed, code) => {
          const drawn = draw(seed, code);
          const rng = seededRng(seed + 1);
          const replies = drawn.blocks.map(block => replyOf(drawn, block, 'lanes'));
          const liar = rng.integer(code.n);
          const lie = replies[liar]!;
          // Of the size of all that is replied: units of a small norm are looked at more closely.
          const size = Math.max(...replies.map(rms));
          lie[rng.integer(lie.length)]! += (rng.integer(2) === 0 ? 1 : -1) * 0.01 * size;
          if (size === 0) return;
          const all = numbers(code.n);
          assert.ok(misfitOf(drawn, code, replies, all)! > 1);
          if (code.r === 1) return;
          const without = (block: number) => all.filter(each => each !== block);
          assert.deepEqual(
            all.filter(block => misfitOf(drawn, code, replies, without(block))! <= 1),
            [liar],
          );
        },
      ),
      { numRuns: 100 },
    ));
});
