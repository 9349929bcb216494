import assert from 'node:assert/strict';
import { isKofnError, type DType, type ErrorCode } from '@kofn/core';
import { describe, it } from 'mocha';
import { pictureTensor, type ImageOptions } from '../src/io/image.js';
import type { PictureFile } from '../src/io/picture.js';

/** 3 wide, 2 high: red, green, blue; white, black, grey 128. */
const PIXELS = [
  ...[255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255],
  ...[255, 255, 255, 255, 0, 0, 0, 255, 128, 128, 128, 255],
];
const PICTURE = picture(PIXELS);
const NCHW: ImageOptions = { layout: 'nchw' };

function input(shape: (number | string)[], dtype: DType = 'float32') {
  return { name: 'x', dtype, shape };
}

function picture(rgba: number[], remarks: string[] = []): PictureFile {
  return { width: 3, height: 2, remarks, rgba: () => Promise.resolve(Uint8Array.from(rgba)) };
}

/** None of these may cost a decode. */
async function refuses(shape: (number | string)[], code: ErrorCode, message: RegExp, more: Partial<Refused> = {}) {
  const { dtype, ...options }: Refused = { ...NCHW, ...more };
  const unread: PictureFile = { ...PICTURE, rgba: () => assert.fail('it was decoded') };
  await assert.rejects(pictureTensor(unread, input(shape, dtype), options, 'a.png'), (error: unknown) => {
    assert.ok(isKofnError(error, code), String(error));
    assert.match(error.message, message);
    return true;
  });
}
type Refused = ImageOptions & { readonly dtype?: DType };

async function tensorOf(shape: (number | string)[], options: ImageOptions, dtype?: DType, from = PICTURE) {
  return (await pictureTensor(from, input(shape, dtype), options, 'a.png')).tensor;
}

function close(actual: Iterable<unknown>, expected: number[]): void {
  const values = [...actual].map(Number);
  assert.equal(values.length, expected.length);
  values.forEach((value, i) => assert.ok(Math.abs(value - expected[i]!) < 1e-6, `element ${i}: ${value}`));
}

describe('pictures as inputs', () => {
  it('puts channels first or last, scaled by 1/255', async () => {
    const first = await tensorOf(['n', 3, 2, 3], NCHW);
    assert.deepEqual(first.shape, [1, 3, 2, 3]);
    const grey = 128 / 255;
    close(first.data, [1, 0, 0, 1, 0, grey, 0, 1, 0, 1, 0, grey, 0, 0, 1, 1, 0, grey]);
    const last = await tensorOf([2, 3, 3], { layout: 'nhwc' });
    assert.deepEqual(last.shape, [2, 3, 3]);
    close(last.data, [1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, grey, grey, grey]);
  });

  it('is grey by BT.601 where the model has one channel', async () => {
    const { data } = await tensorOf([1, 1, 2, 3], { layout: 'nchw', scale: 1 });
    close(
      data,
      [0.299 * 255, 0.587 * 255, 0.114 * 255, 255, 0, 128].map(value => Math.fround(value)),
    );
  });

  it('lays what is transparent over white and says so; a model of four channels gets the alpha', async () => {
    // Black behind alpha 0, red half through, grey 128 behind alpha 51 (a fifth).
    const clear = picture([...PIXELS.slice(0, 12), 0, 0, 0, 0, 255, 0, 0, 127, 128, 128, 128, 51], ['a remark']);
    const flat = await pictureTensor(clear, input([2, 3, 3], 'uint8'), { layout: 'nhwc' }, 'a.png');
    assert.deepEqual([...flat.tensor.data].slice(9), [255, 255, 255, 255, 128, 128, 230, 230, 230]);
    assert.deepEqual(flat.remarks, ['a remark', 'transparent, laid over white']);
    const four = await pictureTensor(clear, input([1, 4, 2, 3], 'uint8'), NCHW, 'a.png');
    assert.deepEqual([...four.tensor.data].slice(18), [255, 255, 255, 0, 127, 51]);
    assert.deepEqual(four.remarks, ['a remark']);
    const opaque = await pictureTensor(PICTURE, input([2, 3, 3], 'uint8'), { layout: 'nhwc' }, 'a.png');
    assert.deepEqual([[...opaque.tensor.data], opaque.remarks], [PIXELS.filter((_, i) => i % 4 < 3), []]);
  });

  it('normalises: (pixel * scale - mean) / std, one number or one for each channel', async () => {
    const options: ImageOptions = { layout: 'nchw', scale: 1 / 255, mean: [0.5, 0.25, 0], std: [0.5] };
    const { data } = await tensorOf([1, 3, 2, 3], options);
    close([data[0], data[6], data[12]], [1, -0.5, 0]);
    const double = await tensorOf([1, 3, 2, 3], { layout: 'nchw', scale: 0.1 }, 'float64');
    assert.equal(double.data[5], 128 * 0.1);
  });

  it('gives uint8 models pixels as they are, and refuses to scale them', async () => {
    const { data } = await tensorOf([1, 3, 2, 3], NCHW, 'uint8');
    assert.deepEqual([...data].slice(0, 6), [255, 0, 0, 255, 0, 128]);
    const scaled = { dtype: 'uint8', mean: [1] } as const;
    await refuses([1, 3, 2, 3], 'INVALID_ARGUMENT', /takes pixels as they are/, scaled);
  });

  it('never resizes: another size is refused with both named', async () => {
    await refuses([1, 3, 28, 'w'], 'SHAPE_MISMATCH', /a\.png is 3x2 .*takes wx28.*resize/);
  });

  it('refuses what cannot be a picture: rank, channels, element type, number of means', async () => {
    await refuses([1, 6], 'SHAPE_MISMATCH', /\[1,6\]/);
    await refuses([1, 2, 2, 3], 'SHAPE_MISMATCH', /takes 2/);
    await refuses([1, 3, 2, 3], 'DTYPE_MISMATCH', /int64/, { dtype: 'int64' });
    await refuses([1, 3, 2, 3], 'INVALID_ARGUMENT', /--std has 2 values/, { std: [1, 2] });
    await refuses([1, 3, 2, 3], 'INVALID_ARGUMENT', /divides by zero/, { std: [0] });
  });
});
