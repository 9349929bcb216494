import assert from 'node:assert/strict';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { checksum, SEAL_BYTES } from '../src/protocol/checksum.js';
import { codecs } from '../src/protocol/protos.js';

const sealed = (bytes: Uint8Array, start = 0) =>
  new Uint8Array(Buffer.concat([bytes, checksum.seal(checksum.of(bytes, start))]));

describe('checksum', () => {
  it('is the CRC-32 that another implementation computes, wherever it begins', () => {
    // Python: zlib.crc32(b'kofn'), zlib.crc32(b'kofn', 0x12345678), zlib.crc32(b'', 7)
    const bytes = Buffer.from('kofn');
    assert.deepEqual(
      [checksum.of(bytes), checksum.of(bytes, 0x12345678), checksum.of(new Uint8Array(), 7)],
      [0x1745a37d, 0x996cfbb3, 7],
    );
  });

  it('is a parameter that any peer reads', () => {
    const frame = sealed(codecs.inferRequest.encode({ model_name: 'm', id: '7' }));
    const { model_name: model, id, parameters } = codecs.inferRequest.decode(frame);
    assert.deepEqual([model, id, parameters['kofn_crc32']?.string_param?.length], ['m', '7', 8]);
    assert.equal(Number.parseInt(parameters['kofn_crc32']!.string_param!, 16), checksum.in(frame));
  });

  it('fits what it was made of, and nothing that differs in up to 32 bits in a row', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 64 }),
        fc.nat(2 ** 32 - 1),
        fc.nat(),
        fc.uint8Array({ minLength: 4, maxLength: 4 }),
        (bytes, start, place, burst) => {
          const frame = sealed(bytes, start);
          assert.ok(checksum.fits(frame, start));
          if (bytes.byteLength > 0) assert.ok(!checksum.fits(frame, (start ^ 1) >>> 0), 'begun elsewhere');
          burst.forEach((bits, i) => (frame[(place % frame.byteLength) + i]! ^= bits));
          const isSame = Buffer.from(frame).equals(sealed(bytes, start));
          assert.equal(checksum.fits(frame, start), isSame);
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('is not found where none is', () => {
    assert.equal(checksum.in(new Uint8Array()), undefined);
    assert.equal(checksum.in(codecs.inferRequest.encode({ model_name: 'm'.repeat(64) })), undefined);
    const frame = sealed(Buffer.from('any'));
    assert.equal(checksum.in(frame.subarray(0, -1)), undefined);
    frame[frame.byteLength - SEAL_BYTES + 1]! ^= 1;
    assert.deepEqual([checksum.in(frame), checksum.fits(frame)], [undefined, false]);
    const digits = sealed(Buffer.from('any'));
    digits[digits.byteLength - 1] = 'g'.charCodeAt(0);
    assert.deepEqual([checksum.in(digits), checksum.fits(digits)], [NaN, false]);
  });
});
