import assert from 'node:assert/strict';
import { float32, isKofnError, tensor, type ErrorCode, type Tensors } from '@kofn/core';
import { describe, it } from 'mocha';
import { checkInputs, zeroInputs } from '../src/contract/inputs.js';

const IMAGE = { name: 'image', dtype: 'float32', shape: ['N', 1, 2, 2] } as const;
const MASK = { name: 'mask', dtype: 'bool', shape: [2] } as const;
const expected = [IMAGE, MASK];
const image = float32([3, 1, 2, 2], new Float32Array(12));
const mask = tensor('bool', [2], new Uint8Array(2));

describe('inputs of a model', () => {
  it('may have any size where the model leaves it open', () => checkInputs(expected, { image, mask }));

  const wrong: [Tensors, ErrorCode, RegExp][] = [
    [
      { image },
      'INVALID_ARGUMENT',
      /input "mask" is missing; the model takes image: float32 \[N,1,2,2\]; mask: bool \[2\]/,
    ],
    [{ image, mask, extra: mask }, 'INVALID_ARGUMENT', /the model has no input "extra"; it takes image/],
    [{ image: mask, mask }, 'DTYPE_MISMATCH', /input "image" is float32 in the model, got bool/],
    [
      { image: float32([2, 2], new Float32Array(4)), mask },
      'SHAPE_MISMATCH',
      /has shape \[N,1,2,2\] in the model, got \[2,2\]/,
    ],
    [{ image: { ...image, shape: [1, 1, 2, 2] }, mask }, 'SHAPE_MISMATCH', /holds 4 elements, the data has 12/],
    [{ image: { ...image, data: new Float64Array(12) }, mask }, 'DTYPE_MISMATCH', /cannot hold a Float64Array/],
  ];
  for (const [inputs, code, message] of wrong) {
    it(`are refused: ${message.source}`, () =>
      assert.throws(
        () => checkInputs(expected, inputs),
        error => isKofnError(error, code) && message.test(error.message),
      ));
  }

  it('are zeros of batch 1 to profile with, where the model says enough', () => {
    const zeros = zeroInputs([...expected, { name: 'text', dtype: 'string', shape: [2] }]);
    assert.deepEqual(zeros['image'], float32([1, 1, 2, 2], new Float32Array(4)));
    assert.deepEqual(zeros['text']!.data, ['', '']);
    assert.throws(() => zeroInputs([{ ...IMAGE, shape: ['N', 'C'] }]), /the open shape \[N,C\]; give an example/);
  });
});
