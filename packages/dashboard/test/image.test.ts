/** From a picture to the bytes of a request, and from the bytes of an answer to classes. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { classesIn, classOutput } from '../src/trial/classes.js';
import {
  DEFAULT_PREPROCESSING,
  describe as inWords,
  imageInputOf,
  middleOf,
  perChannel,
  shapeOf,
  tensorBytes,
} from '../src/trial/image.js';
import { inferAnswer, inferCall } from '../src/trial/infer.js';
import { uint8Array } from '../src/trial/npy.js';

const input = (dtype: string, shape: readonly (number | string)[]) =>
  imageInputOf({ inputs: [{ name: 'x', dtype, shape }] });
const floats = (bytes: Uint8Array) => [...new Float32Array(bytes.buffer)];
/** Two pixels, one of a colour and one grey. */
const RGBA = Uint8Array.of(10, 20, 30, 255, 200, 200, 200, 128);
const AS_IS = { ...DEFAULT_PREPROCESSING, scale: 1 };

describe('a picture as input', () => {
  it('is found in the shape of the one input that is one', () => {
    assert.deepEqual(input('float32', ['N', 1, 28, 28]), {
      ...{ name: 'x', datatype: 'FP32', layout: 'nchw', channels: 1, width: 28, height: 28, isBatch: true },
    });
    assert.deepEqual(shapeOf(input('uint8', [1, 32, 64, 3])!), [1, 32, 64, 3]);
    assert.deepEqual(shapeOf(input('float32', [3, 'h', 'w'])!), [3, 224, 224]);
    for (const shape of [
      [1, 28, 28, 28],
      [1, 10],
      [2, 5, 5],
      ['N', 'C', 'H', 'W'],
    ]) {
      assert.equal(input('float32', shape), undefined, shape.join());
    }
    assert.equal(input('int64', [1, 1, 28, 28]), undefined);
    const [x] = [{ name: 'x', dtype: 'float32', shape: [1, 1, 2, 2] }];
    assert.equal(imageInputOf({ inputs: [x, x] }), undefined);
  });

  it('lies channel by channel or pixel by pixel, as the model wants it', () => {
    assert.deepEqual(floats(tensorBytes(RGBA, input('float32', [1, 3, 1, 2])!, AS_IS)), [10, 200, 20, 200, 30, 200]);
    assert.deepEqual(floats(tensorBytes(RGBA, input('float32', [1, 2, 1, 3])!, AS_IS)), [10, 20, 30, 200, 200, 200]);
    assert.deepEqual(
      [...tensorBytes(RGBA, input('uint8', [1, 4, 1, 2])!, AS_IS)],
      [10, 200, 20, 200, 30, 200, 255, 128],
    );
  });

  it('is grey by BT.601, and what is grey keeps its value', () => {
    const [colour, grey] = floats(tensorBytes(RGBA, input('float32', [1, 1, 1, 2])!, AS_IS));
    assert.deepEqual([colour, grey], [Math.fround(0.299 * 10 + 0.587 * 20 + 0.114 * 30), 200]);
  });

  it('is scaled, shifted and inverted channel by channel', () => {
    const options = { scale: 1 / 100, mean: [0.1, 0, 0], std: [1, 2, 4], isInverted: true };
    const expected = [2.45 - 0.1, 0.55 - 0.1, 2.35 / 2, 0.55 / 2, 2.25 / 4, 0.55 / 4];
    const bytes = tensorBytes(RGBA, input('float64', [1, 3, 1, 2])!, options);
    const seen = [...new Float64Array(bytes.buffer)];
    assert.ok(
      seen.every((value, index) => Math.abs(value - expected[index]!) < 1e-12),
      seen.join(),
    );
    const words = inWords(input('float64', [1, 3, 1, 2])!, options);
    assert.equal(
      words,
      'the middle, 2 × 1 · RGB · inverted · (pixel × 0.01 − [0.1, 0, 0]) / [1, 2, 4] · FP64 [1, 3, 1, 2]',
    );
  });

  it('is the middle of what the camera sees, undistorted', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4000 }),
        fc.integer({ min: 1, max: 4000 }),
        fc.integer({ min: 1, max: 500 }),
        (w, h, size) => {
          const { x, y, width, height } = middleOf({ width: w, height: h }, { width: 2 * size, height: size });
          assert.ok(Math.abs(width / height - 2) < 1e-9 && x >= -1e-9 && y >= -1e-9);
          assert.ok(Math.abs(2 * x + width - w) < 1e-6 && Math.abs(2 * y + height - h) < 1e-6);
        },
      ),
    );
  });

  it('takes one number for all channels, or one for each', () => {
    assert.deepEqual([perChannel('0.5', 3), perChannel('1, 2,3', 3)], [[0.5], [1, 2, 3]]);
    assert.deepEqual(
      [perChannel('1,2', 3), perChannel('', 3), perChannel('1,', 1), perChannel('x', 1)],
      Array(4).fill(undefined),
    );
  });

  it('comes with kofn, five hundred of them', () => {
    const folder = ['../../../models/', '../../../../models/']
      .map(relative => new URL(relative, import.meta.url))
      .find(url => existsSync(new URL('fashion-test-images.npy', url)))!;
    const read = (name: string) => {
      const file = readFileSync(new URL(name, folder));
      return uint8Array(file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength));
    };
    const images = read('fashion-test-images.npy');
    assert.deepEqual([images.shape, images.data.length], [[500, 28, 28], 500 * 28 * 28]);
    const labels = read('fashion-test-labels.npy');
    assert.deepEqual([labels.shape, Math.max(...labels.data)], [[500], 9]);
  });
});

describe('an inference over REST', () => {
  it('has its header in JSON and its tensor behind it', () => {
    const bytes = Uint8Array.of(1, 2, 3, 4);
    const tensor = { name: 'image', datatype: 'FP32', shape: [1, 1], bytes };
    const { path, headers, body } = inferCall(
      { name: 'a b', version: '2' },
      { id: '7', input: tensor, outputs: ['y'] },
    );
    assert.equal(path, 'v2/models/a%20b/versions/2/infer');
    const length = Number(headers['inference-header-content-length']);
    assert.deepEqual(JSON.parse(new TextDecoder().decode(body.subarray(0, length))), {
      id: '7',
      inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 1], parameters: { binary_data_size: 4 } }],
      outputs: [{ name: 'y', parameters: { binary_data: true } }],
    });
    assert.deepEqual([...body.subarray(length)], [...bytes]);
  });

  it('is read with tensors behind the header, within it, or both', () => {
    const outputs = [
      { name: 'a', datatype: 'FP32', shape: [1, 2], parameters: { binary_data_size: 8 } },
      { name: 'b', datatype: 'FP32', shape: [1, 2], data: [3, 4] },
      { name: 'c', datatype: 'INT64', shape: [1], parameters: { binary_data_size: 8 } },
    ];
    const header = new TextEncoder().encode(JSON.stringify({ id: '7', outputs }));
    const body = new Uint8Array(header.length + 16);
    body.set(header);
    body.set(new Uint8Array(Float32Array.of(1.5, -2).buffer), header.length);
    body.set(new Uint8Array(BigInt64Array.of(-5n).buffer), header.length + 8);
    const headers = new Headers({ 'inference-header-content-length': String(header.length) });
    const answer = inferAnswer(headers, body.buffer);
    assert.deepEqual(
      answer.outputs.map(({ values }) => values),
      [[1.5, -2], [3, 4], [-5]],
    );
    assert.equal(answer.id, '7');
  });
});

describe('classes', () => {
  it('are the softmax of logits, and probabilities as they are', () => {
    const { top, isSoftmax } = classesIn([1, 3, 2], ['a', 'b', 'c'])!;
    assert.ok(isSoftmax);
    assert.deepEqual(
      top.map(({ label }) => label),
      ['b', 'c', 'a'],
    );
    assert.ok(Math.abs(top.reduce((sum, { score }) => sum + score, 0) - 1) < 1e-12);
    assert.deepEqual(classesIn([0.25, 0.75], null), {
      isSoftmax: false,
      top: [
        { index: 1, label: 'class 1', score: 0.75 },
        { index: 0, label: 'class 0', score: 0.25 },
      ],
    });
    assert.equal(classesIn([], null), undefined);
  });

  it('are in the output that has one value a label', () => {
    const outputs = [{ values: [1] }, { values: [1, 2] }];
    assert.equal(classOutput(outputs, ['a', 'b']), outputs[1]);
    assert.equal(classOutput(outputs, null), outputs[0]);
  });
});
