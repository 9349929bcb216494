import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import openWabt from 'wabt';
import { BYTES, products } from '../src/products.js';

const source = new URL('../../src/products.wat', import.meta.url);

describe('scalar products', () => {
  it('are what their source says', async () => {
    const wabt = await openWabt();
    const module = wabt.parseWat('products.wat', readFileSync(source, 'utf8'), { simd: true });
    assert.equal(BYTES, Buffer.from(module.toBinary({}).buffer).toString('base64'));
  });

  it('are those of a loop in float64, whatever was there before', () => {
    const matrix = fc
      .record({ rows: fc.integer({ min: 1, max: 11 }), width: fc.integer({ min: 1, max: 40 }) })
      .chain(({ rows, width }) =>
        fc.record({
          width: fc.constant(width),
          first: fc.integer({ min: 0, max: rows - 1 }),
          matrix: fc.float32Array({
            minLength: rows * width,
            maxLength: rows * width,
            noNaN: true,
            min: -1e6,
            max: 1e6,
          }),
          vector: fc.float32Array({ minLength: width, maxLength: width, noNaN: true, min: -1e6, max: 1e6 }),
        }),
      );
    fc.assert(
      fc.property(matrix, ({ width, first, matrix: values, vector }) => {
        products(new Float32Array(20 * 64).fill(NaN), 0, 20, new Float32Array(64).fill(NaN), new Float64Array(20), 0);
        const rows = values.length / width - first;
        const out = new Float64Array(rows + 2).fill(7);
        products(values, first, rows, vector, out, 1);
        assert.deepEqual([out[0], out[rows + 1]], [7, 7]);
        for (let row = 0; row < rows; row++) {
          let [sum, size] = [0, 0];
          for (let i = 0; i < width; i++) {
            const product = values[(first + row) * width + i]! * vector[i]!;
            sum += product;
            size += Math.abs(product);
          }
          assert.ok(
            Math.abs(out[1 + row]! - sum) <= width * 2 ** -52 * size,
            `row ${row}: ${out[1 + row]}, not ${sum}`,
          );
        }
      }),
    );
  });

  it('take vectors of any length', () => {
    const length = 300_001;
    const ones = new Float32Array(5 * length).fill(1);
    const out = new Float64Array(5);
    products(ones, 0, 5, ones.subarray(0, length), out, 0);
    assert.deepEqual([...out], [length, length, length, length, length]);
  });
});
