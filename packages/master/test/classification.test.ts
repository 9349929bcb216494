import assert from 'node:assert/strict';
import { float32, tensor, type Tensor } from '@kofn/core';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { checkRanked, classesOf } from '../src/serve/inference/classification.js';

const texts = ({ data }: Tensor) => data as string[];

describe('classes of an output', () => {
  it('are its highest values, the highest first, by rows or of all', () => {
    const y = float32([2, 3], Float32Array.of(0.5, 3, -1, 2, 2, 7.25));
    const rows = classesOf('y', y, { count: 2, hasRows: true, labels: ['a', 'b', 'c'] });
    assert.deepEqual([rows.dtype, rows.shape], ['string', [2, 2]]);
    assert.deepEqual(texts(rows), ['3.000000:1:b', '0.500000:0:a', '7.250000:2:c', '2.000000:0:a']);
    const flat = classesOf('y', y, { count: 2, hasRows: false, labels: ['a', 'b', 'c'] });
    assert.deepEqual(flat.shape, [2]); // its labels would be those of another output: it has six values
    assert.deepEqual(texts(flat), ['7.250000:5', '3.000000:1']);
    const deep = classesOf('y', tensor('float32', [1, 2, 3], y.data), { count: 1, hasRows: true, labels: undefined });
    assert.deepEqual([deep.shape, texts(deep)], [[1, 1], ['7.250000:5']]);
  });

  it('are no more than there are values', () => {
    const y = tensor('uint8', [1, 2], Uint8Array.of(1, 255));
    const all = classesOf('y', y, { count: 1000, hasRows: true, labels: undefined });
    assert.deepEqual(
      [all.shape, texts(all)],
      [
        [1, 2],
        ['255:1', '1:0'],
      ],
    );
    const none = classesOf('y', tensor('uint8', [0, 2], Uint8Array.of()), {
      count: 3,
      hasRows: true,
      labels: undefined,
    });
    assert.deepEqual([none.shape, texts(none)], [[0, 2], []]);
  });

  it('are those of a plain sort, for every type that has an order, to the last digit', () => {
    const of = fc.array(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(of, fc.array(fc.double({ noNaN: true }), { minLength: 1 }), fc.nat(45), (whole, real, count) => {
        for (const data of [BigInt64Array.from(whole), Float64Array.from(real)]) {
          const dtype = data instanceof BigInt64Array ? 'int64' : 'float64';
          const y = tensor(dtype, [data.length], data);
          const expected = [...data.keys()]
            .sort((a, b) => (data[a]! > data[b]! ? -1 : data[a]! < data[b]! ? 1 : a - b))
            .slice(0, count);
          const given = texts(classesOf('y', y, { count, hasRows: false, labels: undefined }));
          assert.deepEqual(
            given.map(text => Number(text.split(':')[1])),
            expected,
          );
          if (dtype === 'int64') {
            assert.deepEqual(
              given.map(text => BigInt(text.split(':')[0]!)),
              expected.map(index => data[index]),
            );
          }
        }
      }),
    );
  });

  it('have an order: NaN has none, infinities do; bits of halves, text and flags do not', () => {
    const nan = float32([2], Float32Array.of(NaN, 1));
    const options = { count: 1, hasRows: false, labels: undefined };
    assert.throws(() => classesOf('y', nan, options), { code: 'NON_FINITE', message: /"y" has NaN/ });
    const masked = float32([3], Float32Array.of(-Infinity, -2, -Infinity));
    assert.deepEqual(texts(classesOf('y', masked, { ...options, count: 2 })), ['-2.000000:1', '-Infinity:0']);
    for (const dtype of ['float16', 'bfloat16', 'string', 'bool'] as const) {
      assert.throws(() => checkRanked({ name: 'y', dtype }), { code: 'UNSUPPORTED', message: new RegExp(dtype) });
    }
  });
});
