import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import openWabt from 'wabt';
import { BYTES, energy, products } from '../src/products.js';

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

  it('take vectors of any length, and matrices for which others have to go', () => {
    const length = 300_001;
    const out = new Float64Array(13);
    const filled = (value: number) => new Float32Array(13 * length).fill(value); // 16 MB
    const matrices = Array.from({ length: 6 }, (_, index) => filled(index));
    const ones = new Float32Array(length).fill(1);
    for (const pass of [matrices, matrices.slice(2, 4), matrices]) {
      for (const matrix of pass) {
        products(matrix, 0, 13, ones, out, 0);
        assert.deepEqual([...out], Array<number>(13).fill(matrix[0]! * length));
      }
    }
    assert.equal(energy(matrices[3]!.subarray(0, length)), 9 * length);
    assert.equal(energy(new Float32Array(length + 10_000).fill(2)), 4 * (length + 10_000));
    products(matrices[5]!, 12, 1, ones, out, 3);
    assert.equal(out[3], 5 * length);
  });
});
