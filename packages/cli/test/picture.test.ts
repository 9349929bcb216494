/** Picture files of every format, and those that are none or damaged. sharp writes them; what is expected is said here pixel by pixel. */
import assert from 'node:assert/strict';
import { deflateSync } from 'node:zlib';
import { isKofnError, type ErrorCode } from '@kofn/core';
import { describe, it } from 'mocha';
import sharp, { type Sharp } from 'sharp';
import { fileKind } from '../src/io/file-kind.js';
import { openPicture } from '../src/io/picture.js';

type Pixels = Uint8Array | Uint16Array;

/** Six colours, 3 wide and 2 high, each told by a letter. */
const COLOURS: Readonly<Record<string, number[]>> = {
  r: [255, 0, 0],
  g: [0, 255, 0],
  b: [0, 0, 255],
  w: [255, 255, 255],
  k: [0, 0, 0],
  y: [255, 255, 0],
};
const UPRIGHT = ['rgb', 'wky'];
/** What EXIF 1 to 8 say of stored rows: where row 0 and column 0 of the stored picture lie in the upright one (Exif 2.32, 4.6.4). */
const STORED_BY_ORIENTATION = [
  ['rgb', 'wky'], // 1 top, left
  ['bgr', 'ykw'], // 2 top, right
  ['ykw', 'bgr'], // 3 bottom, right
  ['wky', 'rgb'], // 4 bottom, left
  ['rw', 'gk', 'by'], // 5 left, top
  ['by', 'gk', 'rw'], // 6 right, top
  ['yb', 'kg', 'wr'], // 7 right, bottom
  ['wr', 'kg', 'yb'], // 8 left, bottom
];

/** `rows` of letters, each a square of `side` pixels. */
function drawn(rows: readonly string[], side = 1): Sharp {
  const across = rows.flatMap(row => {
    const line = [...row].flatMap(letter => Array.from({ length: side }, () => COLOURS[letter]!)).flat();
    return Array.from({ length: side }, () => line);
  });
  return raw(Uint8Array.from(across.flat()), rows[0]!.length * side, 3);
}

function raw(data: Pixels, width: number, channels: 1 | 2 | 3 | 4): Sharp {
  return sharp(data, { raw: { width, height: data.length / width / channels, channels } });
}

async function open(bytes: Uint8Array, origin = 'a.file') {
  const kind = fileKind(bytes);
  assert.equal(
    kind?.holds,
    'picture',
    `a picture by its first bytes: ${Buffer.from(bytes.subarray(0, 16)).toString('latin1')}`,
  );
  const picture = await openPicture(bytes, kind, origin);
  const rgba = async () => {
    const data = await picture.rgba();
    return Array.from({ length: data.length / 4 }, (_, i) => [...data.subarray(4 * i, 4 * i + 4)]);
  };
  return { ...picture, format: kind.format, rgba };
}

/** The nearest colour of each pixel (of the middle of each square). */
async function letters(bytes: Uint8Array, side = 1): Promise<string[]> {
  const { width, height, rgba } = await open(bytes);
  const pixels = await rgba();
  const at = (i: number) => i * side + (side >> 1);
  return Array.from({ length: height / side }, (_, row) =>
    Array.from({ length: width / side }, (__, column) => nearest(pixels[at(row) * width + at(column)]!)).join(''),
  );
}

function nearest(pixel: readonly number[]): string {
  const distance = ([, colour]: [string, number[]]) =>
    Math.max(...colour.map((value, i) => Math.abs(value - pixel[i]!)));
  const [best] = Object.entries(COLOURS).sort((one, other) => distance(one) - distance(other));
  assert.ok(distance(best!) < 40, `${pixel.join()} is none of the colours`);
  return best![0];
}

async function rejects(work: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(isKofnError(error, code), String(error));
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

const encoders: Readonly<Record<string, (image: Sharp) => Sharp>> = {
  PNG: image => image.png(),
  JPEG: image => image.jpeg({ quality: 95 }),
  WebP: image => image.webp({ lossless: true }),
  TIFF: image => image.tiff({ compression: 'lzw' }),
  AVIF: image => image.avif({ lossless: true }),
};

describe('picture files', () => {
  for (const [format, encode] of Object.entries(encoders)) {
    it(`${format} is read upright by its EXIF orientation, 1 to 8`, async () => {
      for (const [at, stored] of STORED_BY_ORIENTATION.entries()) {
        const bytes = await encode(drawn(stored, 16).withMetadata({ orientation: at + 1 })).toBuffer();
        assert.deepEqual(await letters(bytes, 16), UPRIGHT, `orientation ${at + 1}`);
        const { width, height, format: told } = await open(bytes);
        assert.deepEqual([width, height, told], [48, 32, format], 'the size is known before it is decoded');
      }
    });
  }

  it('reads PNG to the bit: plain, interlaced, palette, grey, grey with alpha, RGBA', async () => {
    const exact = async (image: Sharp, expected: number[][]) => {
      const picture = await open(await image.toBuffer());
      assert.deepEqual([await picture.rgba(), picture.remarks], [expected, []]);
    };
    const opaque = [...UPRIGHT.join('')].map(letter => [...COLOURS[letter]!, 255]);
    await exact(drawn(UPRIGHT).png(), opaque);
    await exact(drawn(UPRIGHT).png({ progressive: true }), opaque);
    await exact(drawn(UPRIGHT).png({ palette: true }), opaque);
    await exact(
      raw(Uint8Array.of(0, 1, 128, 255), 2, 1)
        .toColourspace('b-w')
        .png(),
      [0, 1, 128, 255].map(grey => [grey, grey, grey, 255]),
    );
    await exact(
      raw(Uint8Array.of(7, 0, 100, 128), 2, 2)
        .toColourspace('b-w')
        .png(),
      [
        [7, 7, 7, 0],
        [100, 100, 100, 128],
      ],
    );
    await exact(raw(Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 255), 2, 4).png(), [
      [1, 2, 3, 4],
      [5, 6, 7, 255],
    ]);
  });

  it('reads progressive and CMYK JPEG, the latter with a remark', async () => {
    assert.deepEqual(await letters(await drawn(UPRIGHT, 16).jpeg({ progressive: true }).toBuffer(), 16), UPRIGHT);
    const cmyk = await drawn(['wk', 'kw'], 16).toColourspace('cmyk').jpeg().toBuffer();
    assert.deepEqual((await open(cmyk)).remarks, ['CMYK, converted to sRGB']);
    assert.deepEqual(await letters(cmyk, 16), ['wk', 'kw']);
  });

  it('reads 16 bits as the upper 8, and says so', async () => {
    const values = Uint16Array.of(0, 255, 256, 0x8000, 0xfeff, 0xffff);
    const upper = [...values].map(value => value >> 8);
    const grey = await open(await raw(values, 3, 1).toColourspace('grey16').png().toBuffer());
    assert.deepEqual(
      await grey.rgba(),
      upper.map(value => [value, value, value, 255]),
    );
    assert.deepEqual(grey.remarks, ['the upper 8 of its 16 bits a sample']);
    const rgb = await open(await raw(values, 1, 3).toColourspace('rgb16').png().toBuffer());
    assert.deepEqual(await rgb.rgba(), [
      [...upper.slice(0, 3), 255],
      [...upper.slice(3), 255],
    ]);
  });

  it('brings colours of another ICC profile to sRGB', async () => {
    const plain = Uint8Array.of(200, 100, 50, 20, 160, 90);
    const inP3 = await raw(plain, 2, 3).withIccProfile('p3').png().toBuffer();
    // The file holds other numbers for the same colours.
    const held = await sharp(inP3, { ignoreIcc: true }).raw().toBuffer();
    assert.ok(Math.abs(held[0]! - 200) > 5, `held as ${held.join()}`);
    const pixels = (await (await open(inP3)).rgba()).flatMap(pixel => pixel.slice(0, 3));
    for (const [i, value] of pixels.entries()) assert.ok(Math.abs(value - plain[i]!) <= 2, pixels.join());
  });

  it('reads the first frame of an animation, and the first page of a TIFF, and says so', async () => {
    const frames = [await drawn(['rg'], 16).png().toBuffer(), await drawn(['kk'], 16).png().toBuffer()];
    const formats: ((image: Sharp) => Sharp)[] = [image => image.webp(), image => image.gif(), image => image.tiff()];
    for (const encode of formats) {
      const bytes = await encode(sharp(frames, { join: { animated: true } })).toBuffer();
      assert.deepEqual(await letters(bytes, 16), ['rg']);
      assert.deepEqual((await open(bytes)).remarks, ['the first of its 2 frames or pages']);
    }
  });

  it('refuses a decompression bomb by its header, before it is decoded', async () => {
    const bomb = png(100_000, 100_000, Buffer.alloc(1_000_000));
    const before = process.memoryUsage.rss();
    await rejects(open(bomb, 'bomb.png'), 'INVALID_ARGUMENT', /bomb\.png is 100000x100000 .*67108864 pixels/);
    assert.ok(process.memoryUsage.rss() - before < 100e6, 'nothing of its 40 GB was taken');
    await rejects(open(png(8193, 8192, Buffer.alloc(9))), 'INVALID_ARGUMENT', /8193x8192/);
    const largest = await open(png(8192, 8192, Buffer.alloc(9)), 'short.png');
    await rejects(largest.rgba(), 'DATA_LOSS', /short\.png is a damaged PNG/);
  });

  it('refuses files that are cut off or damaged, wherever that is', async () => {
    const noise = raw(
      Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 37 + i * i) % 256),
      64,
      3,
    );
    for (const [format, encode] of [...Object.entries(encoders), ['GIF', (image: Sharp) => image.gif()] as const]) {
      const whole = await encode(noise.clone()).toBuffer();
      for (const length of [16, whole.length >> 2, whole.length >> 1]) {
        const read = open(whole.subarray(0, length), 'cut.file').then(picture => picture.rgba());
        await rejects(
          read,
          'DATA_LOSS',
          new RegExp(`cut\\.file is a damaged ${format} picture \\(.+\\); get or save it again`),
        );
      }
    }
    const flipped = await noise.clone().png().toBuffer();
    flipped[flipped.length >> 1]! ^= 0x40;
    await rejects((await open(flipped)).rgba(), 'DATA_LOSS', /damaged PNG/);
  });

  it('refuses samples and channels that are no colours', async () => {
    await rejects(
      open(floatTiff()),
      'UNSUPPORTED',
      /TIFF with 1 channels of b-w, float samples: .* give the numbers as \.npy/,
    );
    const red = await drawn(['rr']).png().toBuffer();
    const nine = await drawn(['gg']).joinChannel([red, red]).tiff({ compression: 'lzw' }).toBuffer();
    await rejects(open(nine), 'UNSUPPORTED', /TIFF with 9 channels/);
  });
});

/** A PNG whose header and pixel data need not agree. */
function png(width: number, height: number, pixels: Uint8Array): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 6], 8); // 8 bits, RGBA
  const parts = [chunk('IHDR', header), chunk('IDAT', deflateSync(pixels)), chunk('IEND', Buffer.alloc(0))];
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), ...parts]);
}

function chunk(type: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const frame = Buffer.alloc(8 + body.length);
  frame.writeUInt32BE(data.length, 0);
  frame.set(body, 4);
  frame.writeUInt32BE(crc32(body), 4 + body.length);
  return frame;
}

/** PNG's own (ISO 3309); Node 20.15 has none. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  return ~crc >>> 0;
}

/** TIFF 6.0: one strip of 2x1 grey samples, IEEE floats. */
function floatTiff(): Buffer {
  const entries: [tag: number, type: 3 | 4, value: number][] = [
    [256, 3, 2], // width
    [257, 3, 1], // height
    [258, 3, 32], // bits a sample
    [259, 3, 1], // not compressed
    [262, 3, 1], // black is zero
    [273, 4, 8], // where the strip is
    [277, 3, 1], // samples a pixel
    [278, 3, 1], // rows a strip
    [279, 4, 8], // bytes of the strip
    [339, 3, 3], // IEEE floating point
  ];
  const file = Buffer.alloc(8 + 8 + 2 + 12 * entries.length + 4);
  file.write('II*\0', 0, 'latin1');
  file.writeUInt32LE(16, 4);
  file.writeFloatLE(0.25, 8);
  file.writeFloatLE(0.75, 12);
  file.writeUInt16LE(entries.length, 16);
  for (const [i, [tag, type, value]] of entries.entries()) {
    const at = 18 + 12 * i;
    file.writeUInt16LE(tag, at);
    file.writeUInt16LE(type, at + 2);
    file.writeUInt32LE(1, at + 4);
    file.writeUInt32LE(value, at + 8);
  }
  return file;
}
