import assert from 'node:assert/strict';
import { isKofnError, type DType, type ErrorCode } from '@kofn/core';
import jpeg from 'jpeg-js';
import { describe, it } from 'mocha';
import { PNG } from 'pngjs';
import { decodePicture, pictureTensor, type ImageOptions, type Picture } from '../src/io/image.js';

/** 3 wide, 2 high: red, green, blue; white, black, grey 128. */
const PICTURE: Picture = {
  width: 3,
  height: 2,
  rgba: Uint8Array.of(
    ...[255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255],
    ...[255, 255, 255, 255, 0, 0, 0, 255, 128, 128, 128, 9],
  ),
};
const NCHW: ImageOptions = { layout: 'nchw' };

function input(shape: (number | string)[], dtype: DType = 'float32') {
  return { name: 'x', dtype, shape };
}

function throwsCode(work: () => unknown, code: ErrorCode, message: RegExp): void {
  assert.throws(work, (error: unknown) => {
    assert.ok(isKofnError(error, code), String(error));
    assert.match(error.message, message);
    return true;
  });
}

function close(actual: Iterable<unknown>, expected: number[]): void {
  const values = [...actual].map(Number);
  assert.equal(values.length, expected.length);
  values.forEach((value, i) => assert.ok(Math.abs(value - expected[i]!) < 1e-6, `element ${i}: ${value}`));
}

describe('pictures as inputs', () => {
  it('puts channels first or last, scaled by 1/255', () => {
    const first = pictureTensor(PICTURE, input(['n', 3, 2, 3]), NCHW, 'a.png');
    assert.deepEqual(first.shape, [1, 3, 2, 3]);
    const grey = 128 / 255;
    close(first.data, [1, 0, 0, 1, 0, grey, 0, 1, 0, 1, 0, grey, 0, 0, 1, 1, 0, grey]);
    const last = pictureTensor(PICTURE, input([2, 3, 3]), { layout: 'nhwc' }, 'a.png');
    assert.deepEqual(last.shape, [2, 3, 3]);
    close(last.data, [1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, grey, grey, grey]);
  });

  it('is grey by BT.601 where the model has one channel, and keeps the alpha where it has four', () => {
    const grey = pictureTensor(PICTURE, input([1, 1, 2, 3]), { layout: 'nchw', scale: 1 }, 'a.png');
    close(
      grey.data,
      [0.299 * 255, 0.587 * 255, 0.114 * 255, 255, 0, 128].map(value => Math.fround(value)),
    );
    const four = pictureTensor(PICTURE, input([1, 4, 2, 3], 'uint8'), NCHW, 'a.png');
    assert.deepEqual([...four.data].slice(18), [255, 255, 255, 255, 255, 9]);
  });

  it('normalises: (pixel * scale - mean) / std, one number or one for each channel', () => {
    const options: ImageOptions = { layout: 'nchw', scale: 1 / 255, mean: [0.5, 0.25, 0], std: [0.5] };
    const { data } = pictureTensor(PICTURE, input([1, 3, 2, 3]), options, 'a.png');
    close([data[0], data[6], data[12]], [1, -0.5, 0]);
  });

  it('gives uint8 models pixels as they are, and refuses to scale them', () => {
    const { data } = pictureTensor(PICTURE, input([1, 3, 2, 3], 'uint8'), NCHW, 'a.png');
    assert.deepEqual([...data].slice(0, 6), [255, 0, 0, 255, 0, 128]);
    throwsCode(
      () => pictureTensor(PICTURE, input([1, 3, 2, 3], 'uint8'), { layout: 'nchw', mean: [1] }, 'a.png'),
      'INVALID_ARGUMENT',
      /takes pixels as they are/,
    );
  });

  it('never resizes: another size is refused with both named', () => {
    throwsCode(
      () => pictureTensor(PICTURE, input([1, 3, 28, 'w']), NCHW, 'a.png'),
      'SHAPE_MISMATCH',
      /a\.png is 3x2 .*takes wx28.*resize/,
    );
  });

  it('refuses what cannot be a picture: rank, channels, element type, number of means', () => {
    throwsCode(() => pictureTensor(PICTURE, input([1, 6]), NCHW, 'a.png'), 'SHAPE_MISMATCH', /\[1,6\]/);
    throwsCode(() => pictureTensor(PICTURE, input([1, 2, 2, 3]), NCHW, 'a.png'), 'SHAPE_MISMATCH', /takes 2/);
    throwsCode(() => pictureTensor(PICTURE, input([1, 3, 2, 3], 'int64'), NCHW, 'a.png'), 'DTYPE_MISMATCH', /int64/);
    const two: ImageOptions = { layout: 'nchw', std: [1, 2] };
    throwsCode(
      () => pictureTensor(PICTURE, input([1, 3, 2, 3]), two, 'a.png'),
      'INVALID_ARGUMENT',
      /--std has 2 values/,
    );
    const zero: ImageOptions = { layout: 'nchw', std: [0] };
    throwsCode(() => pictureTensor(PICTURE, input([1, 3, 2, 3]), zero, 'a.png'), 'INVALID_ARGUMENT', /divides by zero/);
  });

  it('decodes PNG to the bit and JPEG to a few grey levels', () => {
    const png = new PNG({ width: 3, height: 2 });
    png.data = Buffer.from(PICTURE.rgba);
    const { width, height, rgba } = decodePicture(PNG.sync.write(png), 'png', 'a.png');
    assert.deepEqual([width, height, [...rgba]], [3, 2, [...PICTURE.rgba]]);
    const grey = Buffer.alloc(4 * 64, 100);
    const decoded = decodePicture(jpeg.encode({ width: 8, height: 8, data: grey }, 95).data, 'jpeg', 'a.jpg');
    assert.deepEqual([decoded.width, decoded.height], [8, 8]);
    assert.ok(Math.abs(decoded.rgba[0]! - 100) <= 3);
  });

  it('says when a file is no picture', () => {
    throwsCode(() => decodePicture(Buffer.from('no'), 'png', 'a.png'), 'INVALID_ARGUMENT', /a\.png is not a PNG/);
    throwsCode(() => decodePicture(Buffer.from('no'), 'jpeg', 'a.jpg'), 'INVALID_ARGUMENT', /a\.jpg is not a JPEG/);
  });
});
