import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { isKofnError, tensor, type DType, type ErrorCode } from '@kofn/core';
import { after, before, describe, it } from 'mocha';
import onnxProto from 'onnx-proto';
import sharp from 'sharp';
import type { InputFile, Shapes } from '../src/options/arguments.js';
import { openInputs } from '../src/io/inputs.js';
import { writeNpy } from '../src/io/npy.js';

const { onnx } = onnxProto;
const IMAGE = { layout: 'nchw' } as const;
const float = (name: string, ...shape: (number | string)[]) => ({ name, dtype: 'float32' as DType, shape });

describe('inputs of a model', () => {
  let folder: string;
  const write = (name: string, bytes: Uint8Array) => {
    const file = path.join(folder, name);
    writeFileSync(file, bytes);
    return file;
  };
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'kofn-test-inputs-'));
  });
  after(() => rmSync(folder, { recursive: true }));

  const open = (
    expected: Parameters<typeof openInputs>[0],
    files: readonly InputFile[],
    more: { seed?: number; checkFinite?: boolean; shapes?: Shapes } = {},
  ) => openInputs(expected, { files, image: IMAGE, checkFinite: false, ...more });

  async function rejects(promise: Promise<unknown>, code: ErrorCode, ...messages: RegExp[]): Promise<void> {
    await assert.rejects(promise, (error: unknown) => {
      assert.ok(isKofnError(error, code), String(error));
      for (const message of messages) assert.match(error.message, message);
      return true;
    });
  }

  it('reads .npy, .pb and .png, each to the input of its name, and adds the batch axis', async () => {
    const npy = write('a.npy', writeNpy(tensor('float32', [3], Float32Array.of(1, 2, 3))));
    const proto = onnx.TensorProto.create({ dims: [1, 2], dataType: 7, int64Data: [4, 5] });
    const pb = write('b.pb', onnx.TensorProto.encode(proto).finish());
    const white = sharp({ create: { width: 2, height: 1, channels: 3, background: 'white' } });
    const picture = write('c.png', await white.png().toBuffer());
    const source = await open(
      [float('a', 'batch', 3), { name: 'b', dtype: 'int64', shape: [1, 2] }, float('c', 1, 1, 1, 2)],
      [
        { name: 'a', file: npy },
        { name: 'b', file: pb },
        { name: 'c', file: picture },
      ],
    );
    assert.equal(source.drawn, false);
    const { a, b, c } = source.forRequest(5);
    assert.deepEqual(
      [a!.shape, [...a!.data]],
      [
        [1, 3],
        [1, 2, 3],
      ],
    );
    assert.deepEqual([b!.dtype, b!.shape, [...b!.data]], ['int64', [1, 2], [4n, 5n]]);
    assert.deepEqual(
      [c!.shape, [...c!.data]],
      [
        [1, 1, 1, 2],
        [1, 1],
      ],
    );
  });

  it('draws what is missing: the same by seed and request, open sizes 1 or as in another input', async () => {
    const npy = write('seq.npy', writeNpy(tensor('float32', [2, 7], new Float32Array(14))));
    const expected = [
      float('x', 'batch', 'length'),
      { name: 'mask', dtype: 'int64' as DType, shape: ['batch', 'length', 'heads'] },
      float('y', '', 3),
    ];
    const source = await open(expected, [{ name: 'x', file: npy }], { seed: 4 });
    assert.equal(source.drawn, true);
    const [first, again, next] = [source.forRequest(0), source.forRequest(0), source.forRequest(1)];
    assert.deepEqual(first['mask']!.shape, [2, 7, 1]);
    assert.deepEqual(first['y']!.shape, [1, 3]);
    assert.deepEqual(again, first);
    assert.notDeepEqual(next['y'], first['y']);
    const shifted = await open(expected, [{ name: 'x', file: npy }], { seed: 5 });
    assert.deepEqual(shifted.forRequest(0), next);
    for (const value of first['mask']!.data) assert.ok(Number(value) >= 0 && Number(value) < 8);
  });

  it('takes open sizes from shapes, in other inputs too, and says which it assumed', async () => {
    const expected = [float('x', 'batch', 3, 'height'), float('mask', 'height', 'wide'), float('y', 'batch', 2)];
    const shapes = { x: [2, 3, 480] };
    const source = await open(expected, [], { seed: 1, shapes });
    const taken = Object.fromEntries(Object.entries(source.forRequest(0)).map(([name, { shape }]) => [name, shape]));
    assert.deepEqual(taken, { x: [2, 3, 480], mask: [480, 1], y: [2, 2] });
    assert.equal(
      source.assumed,
      'open sizes were assumed: "mask" [480,wide] as [480,1]; say others with --shape mask=480,wide',
    );
    assert.equal((await open(expected, [], { seed: 1, shapes: { ...shapes, mask: [480, 5] } })).assumed, undefined);
    const npy = write('fixed.npy', writeNpy(tensor('float32', [2, 3, 4], new Float32Array(24))));
    const given = await open(expected, [{ name: 'x', file: npy }], { seed: 1, shapes: { mask: [4, 7] } });
    assert.equal(given.assumed, undefined);
    assert.deepEqual(given.forRequest(0)['mask']!.shape, [4, 7]);
  });

  it('refuses shapes that an input cannot have, and what does not fit in memory', async () => {
    const expected = [float('x', 'batch', 3, '')];
    for (const [shapes, message] of [
      [{ z: [1] }, /--shape z=1: the model has no input "z"; it takes x: float32 \[batch,3,\]/],
      [{ x: [1, 3] }, /--shape x=1,3: the model takes x: float32 \[batch,3,\]/],
      [{ x: [1, 4, 1] }, /--shape x=1,4,1: the model takes/],
      [{ x: [1, 3, 200_000_000] }, /--shape x=1,3,200000000: that is more than 2 GiB; give smaller sizes/],
    ] as [Shapes, RegExp][]) {
      await rejects(open(expected, [], { seed: 1, shapes }), 'INVALID_ARGUMENT', message);
    }
    const npy = write('other.npy', writeNpy(tensor('float32', [1, 3, 4], new Float32Array(12))));
    const files = [{ name: 'x', file: npy }];
    await rejects(
      open(expected, files, { shapes: { x: [1, 3, 5] } }),
      'SHAPE_MISMATCH',
      /other\.npy.*\[1,3,5\].*\[1,3,4\]/,
    );
  });

  it('draws every element type that ONNX has numbers for', async () => {
    const dtypes: DType[] = [
      ...(['float32', 'float64', 'float16', 'bfloat16', 'int8', 'uint8', 'int16'] as const),
      ...(['uint16', 'int32', 'uint32', 'int64', 'uint64', 'bool'] as const),
    ];
    const source = await open(
      dtypes.map(dtype => ({ name: dtype, dtype, shape: [4] })),
      [],
      { seed: 1 },
    );
    const drawn = source.forRequest(0);
    for (const dtype of dtypes) assert.equal(drawn[dtype]!.dtype, dtype);
    await rejects(open([{ name: 's', dtype: 'string', shape: [1] }], [], { seed: 1 }), 'UNSUPPORTED', /strings/);
  });

  it('names what is wrong and what the model takes', async () => {
    const good = write('good.npy', writeNpy(tensor('float32', [1, 3], new Float32Array(3))));
    const byte = write('byte.npy', writeNpy(tensor('uint8', [1, 3], new Uint8Array(3))));
    const takes = /x: float32 \[batch,3\]/;
    const expected = [float('x', 'batch', 3)];
    await rejects(open(expected, []), 'INVALID_ARGUMENT', /"x" is missing.*--input x=FILE.*--random/, takes);
    await rejects(open(expected, [{ name: 'y', file: good }]), 'INVALID_ARGUMENT', /no input "y"/, takes);
    await rejects(
      open(expected, [{ name: 'x', file: byte }]),
      'DTYPE_MISMATCH',
      /byte\.npy.*uint8.*astype\('float32'\)/,
    );
    const wide = write('wide.npy', writeNpy(tensor('float32', [1, 4], new Float32Array(4))));
    await rejects(open(expected, [{ name: 'x', file: wide }]), 'SHAPE_MISMATCH', /wide\.npy.*\[batch,3\].*\[1,4\]/);
    const none = path.join(folder, 'none.npy');
    await rejects(open(expected, [{ name: 'x', file: none }]), 'NOT_FOUND', /none\.npy.*does not exist/);
    await rejects(open(expected, [{ name: 'x', file: folder + '/x.txt' }]), 'NOT_FOUND', /x\.txt/);
    const text = write('x.txt', Buffer.from('1 2 3'));
    await rejects(
      open(expected, [{ name: 'x', file: text }]),
      'INVALID_ARGUMENT',
      /neither NumPy's \.npy nor a picture/,
    );
  });

  it('tells a file by its first bytes, not by its name', async () => {
    const expected = [float('x', 1, 3, 1, 2)];
    const create = { width: 2, height: 1, channels: 3, background: 'red' } as const;
    const [png, webp] = [sharp({ create }).png(), sharp({ create }).webp({ lossless: true })];
    for (const [name, bytes] of [
      ['png.jpg', await png.toBuffer()],
      ['png.npy', await png.toBuffer()],
      ['webp.pb', await webp.toBuffer()],
      ['npy.jpeg', writeNpy(tensor('float32', [1, 3, 1, 2], Float32Array.of(1, 1, 0, 0, 0, 0)))],
      ['no-name-at-all', await png.toBuffer()],
    ] as const) {
      const { x } = (await open(expected, [{ name: 'x', file: write(name, bytes) }])).forRequest(0);
      assert.deepEqual([...x!.data], [1, 1, 0, 0, 0, 0], name);
    }
  });

  it('refuses by name what is no input, whatever it is called', async () => {
    const expected = [float('x', 1, 3, 1, 2)];
    const heic = '\0\0\0\x18ftypheic\0\0\0\0mif1heic';
    for (const [beginning, message] of [
      ['<svg xmlns="http://www.w3.org/2000/svg" width="2" height="1"/>', /is SVG, .*render it to a PNG/],
      ['\xef\xbb\xbf<?xml version="1.0"?><svg/>', /is SVG/],
      ['<!DOCTYPE html><html>', /is HTML, .*downloaded from a page/],
      [heic, /is HEIC, .*save it as PNG or JPEG/],
      ['BM\x46\0\0\0', /is BMP/],
      ['\0\0\x01\0\x01\0', /is ICO/],
      ['8BPS\0\x01', /is Photoshop/],
      ['P6\n2 1\n255\n', /is Netpbm/],
      ['%PDF-1.7', /is PDF/],
      ['\xff\x0a\0\0', /is JPEG XL/],
      ['\0\0\0\x0cjP  \r\n', /is JPEG 2000/],
      ['PK\x03\x04\x14\0', /is a ZIP archive, as \.npz is, .*numpy\.save/],
      ['\x80\x04\x95\0', /is a Python pickle/],
      ['\x89HDF\r\n\x1a\n', /is HDF5/],
      ['\x1f\x8b\x08\0', /is compressed by gzip, .*unpack it/],
    ] as const) {
      const file = write('picture.png', Buffer.from(beginning, 'latin1'));
      await rejects(open(expected, [{ name: 'x', file }]), 'UNSUPPORTED', message, /picture\.png/);
    }
    for (const name of ['x.png', 'x.jpg', 'x.npy', 'x.pb']) {
      const empty = write(name, new Uint8Array());
      await rejects(open(expected, [{ name: 'x', file: empty }]), 'DATA_LOSS', /the file is empty/, new RegExp(name));
      const text = write(name, Buffer.from('1 2 3'));
      await rejects(open(expected, [{ name: 'x', file: text }]), 'INVALID_ARGUMENT', new RegExp(name));
    }
    await rejects(open(expected, [{ name: 'x', file: folder }]), 'NOT_FOUND', /cannot be read \(EISDIR\)/);
  });

  it('refuses .pb files that are no tensor, cut off, or without their elements', async () => {
    const expected = [float('x', 3)];
    const file = (name: string, bytes: Uint8Array) => [{ name: 'x', file: write(name, bytes) }];
    await rejects(open(expected, file('a.pb', Buffer.from('hello'))), 'INVALID_ARGUMENT', /a\.pb is not an ONNX/);
    await rejects(open(expected, file('b.pb', Buffer.from([8, 3]))), 'INVALID_ARGUMENT', /b\.pb is not an ONNX/);
    const short = onnx.TensorProto.create({ dims: [3], dataType: 1, floatData: [1, 2] });
    await rejects(open(expected, file('c.pb', onnx.TensorProto.encode(short).finish())), 'DATA_LOSS', /c\.pb.*3.*2/);
    const elsewhere = onnx.TensorProto.create({
      dims: [3],
      dataType: 1,
      dataLocation: 1,
      externalData: [{ key: 'location', value: 'w.bin' }],
    });
    const bytes = onnx.TensorProto.encode(elsewhere).finish();
    await rejects(open(expected, file('d.pb', bytes)), 'UNSUPPORTED', /d\.pb.*another file/);
  });

  it('refuses non-finite inputs only when asked to', async () => {
    const file = write('nan.npy', writeNpy(tensor('float32', [2], Float32Array.of(1, NaN))));
    const files = [{ name: 'x', file }];
    await open([float('x', 2)], files);
    await rejects(open([float('x', 2)], files, { checkFinite: true }), 'NON_FINITE', /nan\.npy.*"x"/);
  });
});
