import assert from 'node:assert/strict';
import { isKofnError, tensor, type ErrorCode, type Tensor } from '@kofn/core';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { readNpy, writeNpy } from '../src/io/npy.js';

/** Written by NumPy 1.24 (numpy.lib.format.write_array, versions 1.0 to 3.0). */
const NUMPY: { what: string; base64: string; expected: Tensor }[] = [
  {
    what: 'float32, version 1.0',
    base64:
      'k05VTVBZAQB2AHsnZGVzY3InOiAnPGY0JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsIDMpLCB9ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAAAACAPwAAAEAAAEBAAACAQAAAoEA=',
    expected: tensor('float32', [2, 3], Float32Array.of(0, 1, 2, 3, 4, 5)),
  },
  {
    what: 'int16 in Fortran order',
    base64:
      'k05VTVBZAQB2AHsnZGVzY3InOiAnPGkyJywgJ2ZvcnRyYW5fb3JkZXInOiBUcnVlLCAnc2hhcGUnOiAoMiwgMywgNCksIH0gICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAwABAAQAAgAFAABAA0ABQARAAkAFQACAA4ABgASAAoAFgADAA8ABwATAAsAFwA=',
    expected: tensor(
      'int16',
      [2, 3, 4],
      Int16Array.from({ length: 24 }, (_, i) => i),
    ),
  },
  {
    what: 'big-endian int32, version 2.0',
    base64:
      'k05VTVBZAgB0AAAAeydkZXNjcic6ICc+aTQnLCAnZm9ydHJhbl9vcmRlcic6IEZhbHNlLCAnc2hhcGUnOiAoMywpLCB9ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAB/////gABEXA=',
    expected: tensor('int32', [3], Int32Array.of(1, -2, 70000)),
  },
  {
    what: 'a float64 scalar, version 3.0',
    base64:
      'k05VTVBZAwB0AAAAeydkZXNjcic6ICc8ZjgnLCAnZm9ydHJhbl9vcmRlcic6IEZhbHNlLCAnc2hhcGUnOiAoKSwgfSAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAAAAAEQA==',
    expected: tensor('float64', [], Float64Array.of(2.5)),
  },
  {
    what: 'bool',
    base64:
      'k05VTVBZAQB2AHsnZGVzY3InOiAnfGIxJywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDIsKSwgfSAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoBAA==',
    expected: tensor('bool', [2], Uint8Array.of(1, 0)),
  },
  {
    what: 'float16',
    base64:
      'k05VTVBZAQB2AHsnZGVzY3InOiAnPGYyJywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDMsKSwgfSAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAPgDAAHw=',
    expected: tensor('float16', [3], Uint16Array.of(0x3e00, 0xc000, 0x7c00)),
  },
  {
    what: 'big-endian int64',
    base64:
      'k05VTVBZAQB2AHsnZGVzY3InOiAnPmk4JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDEsIDEpLCB9ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAr/////////+w==',
    expected: tensor('int64', [1, 1], BigInt64Array.of(-5n)),
  },
];

function npy(header: string, body: Uint8Array, version = 1): Buffer {
  const text = Buffer.from(`${header}\n`);
  const prefix = Buffer.from([0x93, ...Buffer.from('NUMPY'), version, 0, text.length & 255, text.length >> 8]);
  return Buffer.concat([prefix, text, body]);
}

function throwsCode(work: () => unknown, code: ErrorCode, message: RegExp): void {
  assert.throws(work, (error: unknown) => {
    assert.ok(isKofnError(error, code), String(error));
    assert.match(error.message, message);
    return true;
  });
}

describe('.npy files', () => {
  for (const { what, base64, expected } of NUMPY) {
    it(`reads what NumPy writes: ${what}`, () => {
      assert.deepEqual(readNpy(Buffer.from(base64, 'base64'), 'x.npy'), expected);
    });
  }

  it('reads back what it writes, whatever the shape, with the elements at a multiple of 64', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 5 }),
        fc.constantFrom('float32' as const, 'float64' as const, 'uint8' as const, 'int32' as const),
        (shape, dtype) => {
          const length = shape.reduce((a, b) => a * b, 1);
          const numbers = Array.from({ length }, (_, i) => i);
          const data = {
            float32: Float32Array.from(numbers),
            float64: Float64Array.from(numbers),
            uint8: Uint8Array.from(numbers),
            int32: Int32Array.from(numbers),
          }[dtype];
          const value = tensor(dtype, shape, data);
          const bytes = writeNpy(value);
          assert.deepEqual(readNpy(bytes, 'x.npy'), value);
          assert.equal((bytes.length - data.byteLength) % 64, 0);
        },
      ),
    );
  });

  it('reads shapes however Python and others write them', () => {
    for (const [shape, expected] of [
      ['(2L, 3L)', [2, 3]], // Python 2
      ['(6L,)', [6]],
      ['(2, 3,)', [2, 3]],
      ['( 2 ,3 )', [2, 3]],
      ['(6)', [6]],
      ['(1, 6, 1, 1)', [1, 6, 1, 1]],
    ] as const) {
      const bytes = npy(
        `{'descr': '|u1', 'fortran_order': False, 'shape': ${shape}, }`,
        Uint8Array.of(1, 2, 3, 4, 5, 6),
      );
      assert.deepEqual(readNpy(bytes, 'x.npy'), tensor('uint8', expected, Uint8Array.of(1, 2, 3, 4, 5, 6)), shape);
    }
    const other = npy(`{"shape":(2L,), "fortran_order":False, "descr":"=i2"}`, Uint8Array.of(1, 0, 2, 0));
    assert.deepEqual(readNpy(other, 'x.npy'), tensor('int16', [2], Int16Array.of(1, 2)), 'keys in another order');
    for (const shape of [
      '(2, -3)',
      '(2.0, 3)',
      '(2, x)',
      '(2,, 3)',
      '(,)',
      '(0x6,)',
      '(6LL,)',
      '(99999999999999999999,)',
    ]) {
      const bytes = npy(`{'descr': '|u1', 'fortran_order': False, 'shape': ${shape}, }`, new Uint8Array(6));
      throwsCode(() => readNpy(bytes, 'a.npy'), 'INVALID_ARGUMENT', /a\.npy: the \.npy header has the shape/);
    }
  });

  it('reads arrays with no elements, big-endian float16, and the Fortran order of Python 2', () => {
    const empty = npy("{'descr': '<f4', 'fortran_order': True, 'shape': (0L, 3L), }", new Uint8Array());
    assert.deepEqual(readNpy(empty, 'x.npy'), tensor('float32', [0, 3], new Float32Array()));
    const half = npy("{'descr': '>f2', 'fortran_order': False, 'shape': (2,), }", Uint8Array.of(0x3c, 0, 0xc0, 0));
    assert.deepEqual(readNpy(half, 'x.npy'), tensor('float16', [2], Uint16Array.of(0x3c00, 0xc000)));
    const turned = npy(
      "{'descr': '>u2', 'fortran_order': True, 'shape': (2L, 2L), }",
      Uint8Array.of(0, 1, 0, 3, 0, 2, 0, 4),
    );
    assert.deepEqual(readNpy(turned, 'x.npy'), tensor('uint16', [2, 2], Uint16Array.of(1, 2, 3, 4)));
  });

  it('reads a bool of any byte as NumPy does: 0 is false, all else true', () => {
    const bytes = npy("{'descr': '|b1', 'fortran_order': False, 'shape': (4,), }", Uint8Array.of(0, 1, 2, 255));
    assert.deepEqual(readNpy(bytes, 'x.npy'), tensor('bool', [4], Uint8Array.of(0, 1, 1, 1)));
  });

  it('does not depend on where the bytes lie in their buffer', () => {
    const bytes = writeNpy(tensor('float64', [2], Float64Array.of(1, 2)));
    const shifted = Buffer.concat([Buffer.alloc(3), bytes]).subarray(3);
    assert.deepEqual(readNpy(shifted, 'x.npy').data, Float64Array.of(1, 2));
  });

  it('refuses what is not .npy, is cut off, or holds no tensor, and names the file', () => {
    const whole = writeNpy(tensor('float32', [4], new Float32Array(4)));
    throwsCode(() => readNpy(Buffer.from('PNG and so on'), 'a.npy'), 'INVALID_ARGUMENT', /a\.npy is not a NumPy/);
    throwsCode(() => readNpy(whole.subarray(0, 40), 'a.npy'), 'DATA_LOSS', /a\.npy is cut off inside its header/);
    throwsCode(() => readNpy(whole.subarray(0, -1), 'a.npy'), 'DATA_LOSS', /takes 16 bytes, the file has 15/);
    throwsCode(() => readNpy(Buffer.concat([whole, whole]), 'a.npy'), 'DATA_LOSS', /takes 16 bytes, the file has 160/);
    const complex = npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", new Uint8Array(8));
    throwsCode(() => readNpy(complex, 'a.npy'), 'UNSUPPORTED', /a\.npy holds <c8.*astype/);
    const record = npy("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }", new Uint8Array(4));
    throwsCode(() => readNpy(record, 'a.npy'), 'UNSUPPORTED', /holds a record/);
    for (const [descriptor, message] of [
      ['|O', /holds Python objects/], // pickled: reading it would run what it says
      ['<U5', /holds <U5/],
      ['|S8', /holds \|S8/],
      ['<M8[ns]', /holds <M8\[ns\]/],
      ['<f16', /holds <f16/],
      ['|V2', /holds \|V2/], // bfloat16 of ml_dtypes
      ['|constructor', /holds \|constructor/],
    ] as const) {
      const bytes = npy(`{'descr': '${descriptor}', 'fortran_order': False, 'shape': (1,), }`, new Uint8Array(16));
      throwsCode(() => readNpy(bytes, 'a.npy'), 'UNSUPPORTED', message);
    }
    const long = npy(
      `{'descr': '|u1', 'fortran_order': False, 'shape': (0,), }${' '.repeat(65_400)}`,
      new Uint8Array(),
    );
    assert.deepEqual(readNpy(long, 'x.npy').shape, [0]);
    const longer = Buffer.concat([long.subarray(0, 8), Buffer.alloc(4), long.subarray(10), Buffer.alloc(65_537)]);
    longer[6] = 2;
    longer.writeUInt32LE(65_537, 8);
    throwsCode(() => readNpy(longer, 'a.npy'), 'UNSUPPORTED', /a header of 65537 bytes/);
    throwsCode(() => readNpy(npy('{}', new Uint8Array()), 'a.npy'), 'INVALID_ARGUMENT', /no shape or order/);
    throwsCode(() => readNpy(npy('{}', new Uint8Array(), 4), 'a.npy'), 'UNSUPPORTED', /format 4/);
  });

  it('refuses to write what NumPy has no type for', () => {
    throwsCode(() => writeNpy(tensor('bfloat16', [1], new Uint16Array(1))), 'UNSUPPORTED', /bfloat16/);
    throwsCode(() => writeNpy(tensor('string', [1], ['a'])), 'UNSUPPORTED', /string/);
  });
});
