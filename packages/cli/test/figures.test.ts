import assert from 'node:assert/strict';
import { isKofnError, KofnError, seededRng, tensor, type Tensor } from '@kofn/core';
import type { RunReport } from '@kofn/master';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { calibrated, compareOutputs, isWrong } from '../src/answers/compare.js';
import { describeError, exitCodeOf } from '../src/terminal/exit.js';
import { fromHalf, toHalf } from '@kofn/core';
import { fileNames } from '../src/io/output.js';
import { formatBytes, formatCount, formatError, formatMs, table } from '../src/terminal/render.js';
import { percentile } from '../src/answers/stats.js';
import { jsonNumber, Tally } from '../src/answers/tally.js';

const floats = (...values: number[]): Tensor => tensor('float32', [values.length], Float32Array.from(values));

describe('figures', () => {
  it('percentile is the nearest rank: at least that share of the values is not above it', () => {
    assert.equal(percentile([], 50), null);
    assert.equal(percentile([4, 1, 3, 2], 50), 2);
    assert.equal(percentile([5], 99), 5);
    fc.assert(
      fc.property(
        fc.array(fc.double({ noNaN: true }), { minLength: 1 }),
        fc.integer({ min: 1, max: 100 }),
        (values, p) => {
          const found = percentile(values, p)!;
          const below = values.filter(value => value < found).length;
          const upTo = values.filter(value => value <= found).length;
          assert.ok(upTo >= (p * values.length) / 100 && below < (p * values.length) / 100);
        },
      ),
    );
  });

  it('errors are relative to the largest magnitude of the output', () => {
    const { y } = compareOutputs({ y: floats(1, -7.5, 0.5) }, { y: floats(1, -8, 0) });
    assert.deepEqual(y, { maxAbsError: 0.5, maxRelError: 0.0625, isWrong: true });
    assert.deepEqual(compareOutputs({ y: floats(0) }, { y: floats(0) })['y'], {
      maxAbsError: 0,
      maxRelError: 0,
      isWrong: false,
    });
    assert.equal(compareOutputs({ y: floats(1e-9) }, { y: floats(0) })['y']!.maxRelError, Infinity);
  });

  it('NaN must meet NaN, and an infinity the same infinity', () => {
    const odd = [NaN, Infinity, -Infinity, 1];
    for (const have of odd) {
      for (const want of odd) {
        const { maxRelError } = compareOutputs({ y: floats(have, 1) }, { y: floats(want, 1) })['y']!;
        assert.equal(maxRelError, Object.is(have, want) ? 0 : Infinity, `${have} for ${want}`);
      }
    }
  });

  it('compares halves, big integers and strings; refuses another shape or a missing output', () => {
    const half = (...bits: number[]) => ({ y: tensor('float16', [bits.length], Uint16Array.from(bits)) });
    assert.equal(compareOutputs(half(0x4000), half(0x3c00))['y']!.maxAbsError, 1);
    const big = (value: bigint) => ({ y: tensor('int64', [1], BigInt64Array.of(value)) });
    assert.equal(compareOutputs(big(7n), big(5n))['y']!.maxAbsError, 2);
    const text = (value: string) => ({ y: tensor('string', [1], [value]) });
    assert.equal(compareOutputs(text('a'), text('a'))['y']!.maxRelError, 0);
    assert.equal(compareOutputs(text('a'), text('b'))['y']!.maxRelError, Infinity);
    assert.throws(() => compareOutputs(half(0), { y: floats(1) }), /gives float32 \[1\].*coded one float16 \[1\]/);
    assert.throws(() => compareOutputs({}, { y: floats(1) }), /the coded one nothing/);
    const { y: other } = compareOutputs({ y: floats(1, 2) }, { y: floats(1) });
    assert.deepEqual(other, { maxAbsError: Infinity, maxRelError: Infinity, isWrong: true }, 'another shape');
  });

  it('an element may be off by half of 1e-4 of the largest and by half of 1e-4 of itself', () => {
    const off = (byLargest: number, bySmall: number) =>
      isWrong(compareOutputs({ y: floats(64 + byLargest, bySmall) }, { y: floats(64, 0) }));
    assert.deepEqual([off(0.9 * 64e-4, 0), off(1.1 * 64e-4, 0)], [false, true]);
    assert.deepEqual([off(0, 0.9 * 32e-4), off(0, 1.1 * 32e-4)], [false, true]);
  });

  it('an output may be off by three times what ONNX Runtime differs from itself in it', () => {
    const off = (name: string, error: number, difference: number) => {
      const answer = { y: floats(1), z: floats(1), [name]: floats(1 + error) };
      return isWrong(compareOutputs(answer, { y: floats(1), z: floats(1) }, calibrated({ y: difference, z: 0 })));
    };
    assert.deepEqual([off('y', 2.9e-3, 1e-3), off('y', 3.1e-3, 1e-3)], [false, true]);
    assert.deepEqual([off('z', 0.9e-4, 1e-3), off('z', 1.1e-4, 1e-3)], [false, true], 'another output is not');
    assert.deepEqual(
      [off('y', 0.9e-4, 1e-9), off('y', 1.1e-4, 1e-9)],
      [false, true],
      'and never held to less than 1e-4',
    );
    const lost = compareOutputs({ y: floats(NaN) }, { y: floats(1) }, calibrated({ y: 1 }));
    assert.ok(isWrong(lost), 'NaN is wrong whatever is allowed');
    const none = compareOutputs({ y: floats(1, 2) }, { y: floats(1) }, calibrated({ y: Infinity }));
    assert.ok(!isWrong(none), 'an output whose shape differs from run to run cannot be told wrong');
  });

  it('half precision: every normal bit pattern survives the way there and back', () => {
    for (let bits = 0; bits < 0x10000; bits++) {
      const exponent = (bits >>> 10) & 31;
      if (exponent === 0 || exponent === 31) continue;
      assert.equal(toHalf(fromHalf(bits)), bits);
    }
    assert.equal(fromHalf(0x0001), 2 ** -24);
    assert.equal(fromHalf(0xfc00), -Infinity);
    assert.ok(Number.isNaN(fromHalf(0x7e00)));
    const rng = seededRng(3);
    for (let i = 0; i < 1000; i++) {
      const value = rng.normal();
      assert.ok(Math.abs(fromHalf(toHalf(value)) - value) <= Math.max(2 ** -14, Math.abs(value) * 2 ** -10));
    }
  });

  it('a tally counts lost, wrong and recovered, and takes percentiles of what was answered', () => {
    const tally = new Tally(4);
    const layer = { recovered: { lost: [1], late: [0, 2] }, computedHere: [3], resent: [2], hedged: [1, 3] };
    const segments = [{ worker: 0 }, { worker: null }, { worker: 3 }];
    const report = (ms: number) => ({ ms, layers: [layer, layer], segments }) as unknown as RunReport;
    tally.answered(report(10), 0);
    tally.compare({ y: { maxAbsError: 1, maxRelError: 1e-4, isWrong: false } });
    tally.failed(1, new KofnError('NOT_ENOUGH_WORKERS', 'two of four'));
    tally.answered(report(30.00049), 2);
    tally.compare({ y: { maxAbsError: 0, maxRelError: 2e-4, isWrong: true } });
    assert.equal(tally.lost, 2, 'one failed, one never ran');
    assert.equal(tally.wrong, 1);
    assert.deepEqual(tally.recovered, { lost: 4, late: 8 });
    assert.deepEqual([tally.computedHere, tally.resent, tally.hedged], [4, 4, 8]);
    assert.deepEqual(tally.segments, { workers: 4, master: 2 });
    assert.equal(tally.maxRelError, 2e-4);
    assert.equal(tally.ms(99), 30);
    assert.equal(
      tally.ms(50, request => request < 2),
      10,
    );
    assert.equal(
      tally.ms(50, request => request > 2),
      null,
    );
    assert.equal(tally.msOf(1), null);
    assert.equal(jsonNumber(Infinity), 'Infinity');
  });

  it('file names of outputs are safe and different', () => {
    assert.deepEqual(Object.fromEntries(fileNames(['a/b', 'a:b', 'A_b', '../x', 'ok-1.0', ''])), {
      'a/b': 'a_b',
      'a:b': 'a_b_2',
      A_b: 'A_b_3',
      '../x': '_._x',
      'ok-1.0': 'ok-1.0',
      '': '_',
    });
  });

  it('formats figures for people', () => {
    assert.deepEqual(
      [formatMs(null), formatMs(0.004), formatMs(3.14159), formatMs(250.4)],
      ['-', '<0.01', '3.14', '250'],
    );
    assert.deepEqual([formatBytes(999), formatBytes(1500), formatBytes(144e6)], ['999 B', '1.5 kB', '144 MB']);
    assert.deepEqual([formatCount(12), formatCount(28.9e6), formatCount(undefined)], ['12', '28.9 M', '-']);
    assert.deepEqual([formatError(0), formatError(1.23e-6), formatError('Infinity')], ['0', '1.2e-6', 'Infinity']);
    assert.match(
      table(
        ['a', 'b'],
        [
          ['x', '1'],
          ['y', '10'],
        ],
      ),
      /x.*│\s+1 │/,
    );
  });

  it('bad input exits with 2, a failure with 1; an error is one line, with its stack only for debugging', () => {
    assert.equal(exitCodeOf(new KofnError('INVALID_MODEL', 'x')), 2);
    assert.equal(exitCodeOf(new KofnError('UNAVAILABLE', 'x')), 1);
    assert.equal(exitCodeOf(new Error('x')), 1);
    const error = new KofnError('ENGINE', 'first\n  second', { cause: new Error('why') });
    assert.equal(describeError(error, false), 'first | second');
    assert.match(describeError(error, true), /at .*figures\.test[^]*caused by: Error: why/);
    assert.ok(isKofnError(error));
  });
});
