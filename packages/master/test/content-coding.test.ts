import assert from 'node:assert/strict';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import { describe, it } from 'mocha';
import { Decoder, decodingsOf, encodingFor, isAnswerable } from '../src/serve/http/content-coding.js';

const LARGE = 100_000;
const SMALL = 10;

describe('the coding of an answer', () => {
  const cases: [string | undefined, string | undefined, string | undefined][] = [
    // what the client says, what a large answer has, and a small one
    [undefined, undefined, undefined],
    ['', undefined, undefined],
    ['gzip', 'gzip', undefined],
    ['GZIP', 'gzip', undefined],
    ['deflate, gzip', 'deflate', undefined],
    ['gzip, deflate, br, zstd', 'gzip', undefined],
    ['gzip;q=0.1, br;q=0.9', 'br', undefined],
    ['gzip;q=0.5, identity', undefined, undefined],
    ['gzip;q=0', undefined, undefined],
    ['gzip;q=none', undefined, undefined],
    ['zstd', undefined, undefined],
    ['*', undefined, undefined],
    ['identity;q=0, deflate', 'deflate', 'deflate'],
    ['*;q=0, br', 'br', 'br'],
  ];
  for (const [header, large, small] of cases) {
    it(`is ${large ?? 'none'} for ${header === undefined ? 'no header' : `"${header}"`}`, () => {
      assert.equal(encodingFor(header, LARGE), large);
      assert.equal(encodingFor(header, SMALL), small);
      assert.ok(isAnswerable(header));
    });
  }

  it('is none that there is, where a client takes neither ours nor none', () => {
    for (const header of ['identity;q=0', '*;q=0', 'zstd, identity;q=0', 'zstd, *;q=0']) {
      assert.equal(isAnswerable(header), false, header);
    }
  });
});

describe('the codings of a body', () => {
  const body = Buffer.from('{"inputs": []}'.repeat(1000));
  const limit = body.byteLength;
  const decoded = (bytes: Buffer, header: string | undefined, maxBytes: number) =>
    new Decoder(maxBytes).decode(bytes, header);

  it('are undone from the last to the first', async () => {
    const cases: [string | undefined, Buffer][] = [
      [undefined, body],
      ['', body],
      ['identity', body],
      ['gzip', gzipSync(body)],
      ['X-Gzip', gzipSync(body)],
      ['deflate', deflateSync(body)],
      ['br', brotliCompressSync(body)],
      ['gzip, identity, deflate', deflateSync(gzipSync(body))],
      ['br,gzip,deflate,gzip', gzipSync(deflateSync(gzipSync(brotliCompressSync(body))))],
    ];
    for (const [header, bytes] of cases) assert.deepEqual(await decoded(bytes, header, limit), body, header);
  });

  it('are known, and few', () => {
    for (const header of ['zstd', 'gzip, compress', 'aws-chunked', 'toString', 'gzip,'.repeat(5)]) {
      assert.equal(decodingsOf(header), undefined, header);
    }
  });

  it('give no more than a body may have, at any step', async () => {
    const tooLarge = { statusCode: 413 };
    const zeros = Buffer.alloc(50_000_000);
    await assert.rejects(decoded(gzipSync(body), 'gzip', limit - 1), tooLarge);
    await assert.rejects(decoded(gzipSync(zeros), 'gzip', limit), tooLarge);
    await assert.rejects(decoded(gzipSync(gzipSync(zeros)), 'gzip, gzip', limit), tooLarge);
    // What comes out in the end is nothing.
    const nothing = Buffer.concat(new Array<Buffer>(10_000).fill(gzipSync('')));
    await assert.rejects(decoded(gzipSync(nothing), 'gzip, gzip', limit), tooLarge);
  });

  it('are undone of one body after the other, whatever becomes of it', async () => {
    const decoder = new Decoder(20_000_000);
    const ended: string[] = [];
    const decode = (name: string, bytes: Buffer) =>
      decoder.decode(bytes, 'gzip').then(
        () => ended.push(name),
        () => ended.push(name),
      );
    const large = gzipSync(Buffer.alloc(20_000_000));
    await Promise.all([decode('large', large), decode('broken', body), decode('small', gzipSync(body))]);
    assert.deepEqual(ended, ['large', 'broken', 'small']);
  });

  it('are what the header says', async () => {
    const broken: [string, Buffer][] = [
      ['gzip', body],
      ['gzip', gzipSync(body).subarray(0, 40)],
      ['gzip', Buffer.alloc(0)],
      ['deflate', gzipSync(body)],
      ['br', gzipSync(body)],
    ];
    for (const [header, bytes] of broken) {
      await assert.rejects(decoded(bytes, header, limit), { code: 'INVALID_ARGUMENT', message: new RegExp(header) });
    }
  });
});
