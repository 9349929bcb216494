import assert from 'node:assert/strict';
import { isKofnError, PART_VALUES, type ErrorCode, type RowSource } from '@kofn/core';
import { describe, it } from 'mocha';
import { blockRange, createCode, encodeLayer, partition, verifyBlock } from '../src/index.js';

const refused = (make: () => unknown, code: ErrorCode, message: RegExp) =>
  assert.throws(make, error => isKofnError(error, code) && message.test(error.message));

describe('encode', () => {
  it('forms parity of the scaled rows and of the bias as one more column', () => {
    const weights = Float32Array.of(3, 4, 0, 0, 300, 400, 0.5, 0);
    const bias = Float32Array.of(0, 2, 0, 0);
    const encoding = encodeLayer({ units: 4, fanIn: 2, groups: 1, weights, bias }, createCode('sum', { k: 2, r: 1 }));
    assert.deepEqual([...encoding.scales], [1 / 4, 1 / 2, 1 / 512, 2]);
    assert.deepEqual(encoding.block(0), { weights: weights.slice(0, 4), bias: bias.slice(0, 2) });
    const parity = encoding.block(2);
    assert.deepEqual([...parity.weights], [3 / 4 + 300 / 512, 1 + 400 / 512, 1, 0]);
    assert.deepEqual([...parity.bias!], [0, 1]);
  });

  it('makes the same bytes each time, and no bias where the layer has none', () => {
    const weights = Float32Array.from({ length: 12 * 3 }, (_, i) => Math.sin(i));
    const encoding = encodeLayer({ units: 12, fanIn: 3, groups: 2, weights }, createCode('rotation', { k: 2, r: 2 }));
    for (let block = 0; block < 4; block++) {
      assert.deepEqual(encoding.block(block), encoding.block(block));
      assert.equal(encoding.block(block).bias, undefined);
    }
  });

  it('makes a parity block in parts of bounded size', () => {
    const fanIn = 1024;
    const units = (4 * PART_VALUES) / fanIn;
    const weights = Float32Array.from({ length: units * fanIn }, (_, i) => Math.sin(i));
    for (const code of [createCode('sum', { k: 4, r: 1 }), createCode('rotation', { k: 4, r: 2 })]) {
      const work = encodeLayer({ units, fanIn, groups: 1, weights }, code).blockInParts(4);
      let parts = 0;
      let step = work.next();
      for (; step.done !== true; step = work.next()) parts++;
      assert.ok(parts >= 2 * 4, `${parts}`); // each weight is read for the scales, and for the block
      assert.deepEqual(step.value, encodeLayer({ units, fanIn, groups: 1, weights }, code).block(4));
    }
  });

  it('makes the same blocks of weights that are read as they are needed, a data block of its own rows alone', () => {
    for (const [groups, units, fanIn] of [
      [1, 24, 3],
      [1, 22, 3],
      [3, 30, 2],
      [1, 16, PART_VALUES / 2],
    ] as const) {
      const weights = Float32Array.from({ length: units * fanIn }, (_, i) => Math.sin(i));
      const bias = Float32Array.from({ length: units }, (_, i) => Math.cos(i));
      const read = new Set<number>();
      const source: RowSource = {
        *read(first, end, scratch) {
          assert.ok(first < end && end <= units && (end - first) * fanIn <= Math.max(PART_VALUES, fanIn));
          for (let unit = first; unit < end; unit++) read.add(unit);
          yield;
          const rows = weights.slice(first * fanIn, end * fanIn);
          if (scratch === undefined) return rows;
          assert.equal(scratch.length, rows.length);
          scratch.set(rows);
          return scratch;
        },
      };
      for (const code of [createCode('sum', { k: 4, r: 1 }), createCode('rotation', { k: 2, r: 2 })]) {
        const whole = encodeLayer({ units, fanIn, groups, weights, bias }, code);
        const { scales } = whole;
        const again = encodeLayer({ units, fanIn, groups, weights: source, bias }, code, { scales });
        const looked = encodeLayer({ units, fanIn, groups, weights: source, bias }, code);
        for (let block = 0; block < code.n; block++) {
          read.clear();
          assert.deepEqual(again.block(block), whole.block(block));
          const { start, end } = blockRange(whole.partition, block);
          if (block < code.k) assert.equal(read.size, groups * (end - start));
          assert.deepEqual(looked.block(block), whole.block(block));
          let at = 0;
          for (const band of again.bands(block)) {
            if (band === undefined) continue;
            assert.deepEqual(band, whole.block(block).weights.subarray(at, (at += band.length)));
          }
          assert.equal(at, whole.block(block).weights.length);
        }
        assert.deepEqual(looked.scales, scales);
      }
    }
  });

  it('survives norms at the ends of float32', () => {
    const weights = Float32Array.of(3e38, 3e38, 1e-45, 0, 0, 0, 1, 1);
    const encoding = encodeLayer({ units: 4, fanIn: 2, groups: 1, weights }, createCode('sum', { k: 4, r: 1 }));
    assert.ok(encoding.block(4).weights.every(Number.isFinite));
  });

  it('refuses layers whose parts do not fit, naming them', () => {
    const code = createCode('sum', { k: 4, r: 1 });
    const layer = { units: 8, fanIn: 2, groups: 1, weights: new Float32Array(16) };
    refused(() => encodeLayer({ ...layer, weights: new Float32Array(15) }, code), 'SHAPE_MISMATCH', /weights: 8 x 2/);
    refused(() => encodeLayer({ ...layer, bias: new Float32Array(7) }, code), 'SHAPE_MISMATCH', /bias: 8 values/);
    refused(
      () => encodeLayer({ ...layer, groups: 4 }, code),
      'INVALID_ARGUMENT',
      /2 output units in each group .* 4 bl/,
    );
    refused(() => encodeLayer({ ...layer, groups: 3 }, code), 'INVALID_ARGUMENT', /3 does not divide the 8/);
    refused(() => encodeLayer(layer, code).block(5), 'INVALID_ARGUMENT', /block: must be 0 to 4, got 5/);
  });
});

describe('partition', () => {
  it('covers every unit once and pads only the end, for all small sizes', () => {
    for (let unitsPerGroup = 1; unitsPerGroup <= 24; unitsPerGroup++) {
      for (let k = 1; k <= unitsPerGroup; k++) {
        for (const subBlocks of [1, 2]) {
          const parts = partition({ units: unitsPerGroup, groups: 1, k, subBlocks });
          assert.equal(parts.blockUnits % subBlocks, 0);
          const units = Array.from({ length: k }, (_, block) => blockRange(parts, block)).flatMap(({ start, end }) =>
            Array.from({ length: end - start }, (_, i) => start + i),
          );
          assert.deepEqual(
            units,
            Array.from({ length: unitsPerGroup }, (_, unit) => unit),
          );
        }
      }
    }
  });
});

describe('verifyBlock', () => {
  const expected = { dtype: 'float32', shape: [1, 2] } as const;
  const cases = [
    [{ dtype: 'float32', shape: [1, 2], data: Float32Array.of(1, 2) }, undefined],
    [{ dtype: 'float64', shape: [1, 2], data: Float64Array.of(1, 2) }, 'DTYPE_MISMATCH'],
    [{ dtype: 'float32', shape: [2, 1], data: Float32Array.of(1, 2) }, 'SHAPE_MISMATCH'],
    [{ dtype: 'float32', shape: [2], data: Float32Array.of(1, 2) }, 'SHAPE_MISMATCH'],
    [{ dtype: 'float32', shape: [1, 2], data: Float32Array.of(1) }, 'SHAPE_MISMATCH'],
    [{ dtype: 'float32', shape: [1, 2], data: Float32Array.of(1, NaN) }, 'NON_FINITE'],
    [{ dtype: 'float32', shape: [1, 2], data: Float32Array.of(-Infinity, 1) }, 'NON_FINITE'],
  ] as const;
  for (const [block, code] of cases) {
    it(`${block.dtype} [${block.shape.join()}] of ${block.data.join()}: ${code ?? 'fine'}`, () => {
      assert.equal(verifyBlock(block, expected)?.code, code);
    });
  }
});
