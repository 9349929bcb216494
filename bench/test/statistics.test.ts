import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { groupedInterval, ratioInterval } from '../statistics.js';

describe('intervals of ratios', () => {
  it('draw groups as a whole', () => {
    const one = Array.from({ length: 50 }, () => 1);
    const two = Array.from({ length: 50 }, () => 2);
    // Within a group nothing varies, and between two everything: single samples hide that.
    assert.deepEqual(groupedInterval([one, two, two], [one, one, one]), [1, 2]);
    assert.deepEqual(ratioInterval([...one, ...two, ...two], [...one, ...one, ...one]), [2, 2]);
    assert.deepEqual(groupedInterval([], []), [null, null]);
  });
});
