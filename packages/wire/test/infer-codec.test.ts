import assert from 'node:assert/strict';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { elementCount, isKofnError, tensor, tensorBytes, tensorFromBytes, type DType, type Tensors } from '@kofn/core';
import { decodeTensors, encodeTensors } from '../src/protocol/infer-codec.js';
import { codecs, type TensorContents } from '../src/protocol/protos.js';

const NUMERIC = [
  ['float32', 4],
  ['float64', 8],
  ['float16', 2],
  ['bfloat16', 2],
  ['int8', 1],
  ['uint8', 1],
  ['int16', 2],
  ['uint16', 2],
  ['int32', 4],
  ['uint32', 4],
  ['int64', 8],
  ['uint64', 8],
  ['bool', 1],
] as const satisfies readonly (readonly [DType, number])[];

const shapes = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 });

const numericTensors = fc.tuple(fc.constantFrom(...NUMERIC), shapes).chain(([[dtype, size], shape]) => {
  const bytes = size * elementCount(shape);
  return fc.uint8Array({ minLength: bytes, maxLength: bytes }).map(raw => tensorFromBytes(dtype, shape, raw));
});
const stringTensors = fc
  .array(fc.string({ unit: 'grapheme' }), { maxLength: 5 })
  .map(texts => tensor('string', [texts.length], texts));
const anyTensors: fc.Arbitrary<Tensors> = fc.dictionary(
  fc.string({ maxLength: 8 }),
  fc.oneof(numericTensors, stringTensors),
  { maxKeys: 4 },
);

function throughTheWire(values: Tensors): Tensors {
  const { tensors, raw } = encodeTensors(values);
  const message = codecs.inferRequest.decode(codecs.inferRequest.encode({ inputs: tensors, raw_input_contents: raw }));
  return decodeTensors(message.inputs, message.raw_input_contents);
}

describe('infer-codec', () => {
  it('carries tensors of every type and shape bit by bit', () => {
    fc.assert(
      fc.property(anyTensors, values => {
        const back = throughTheWire(values);
        assert.deepEqual(Object.keys(back).sort(), Object.keys(values).sort());
        for (const [name, value] of Object.entries(values)) {
          assert.equal(back[name]!.dtype, value.dtype);
          assert.deepEqual([...back[name]!.shape], [...value.shape]);
          assert.deepEqual(back[name]!.data, value.data); // NaN equals NaN, 0 differs from -0
        }
      }),
    );
  });

  it('answers a lying length with PROTOCOL, whatever it is, and never with another error', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...NUMERIC.map(([dtype]) => dtype)),
        fc.array(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), { maxLength: 3 }),
        fc.uint8Array({ maxLength: 64 }),
        (dtype, shape, raw) => {
          const { tensors } = encodeTensors({ x: tensorFromBytes(dtype, [0], new Uint8Array()) });
          const message = { ...tensors[0]!, shape: shape.map(String) };
          try {
            const { x } = decodeTensors([message], [raw]);
            assert.equal(tensorBytes(x!).byteLength, raw.byteLength);
          } catch (error) {
            assert.ok(isKofnError(error, 'PROTOCOL'), String(error));
          }
        },
      ),
    );
  });

  it('reads what stock clients write: typed contents of every type that has them', () => {
    const typed: [string, Partial<TensorContents>, (number | bigint | string)[]][] = [
      ['BOOL', { bool_contents: [true, false] }, [1, 0]],
      ['INT8', { int_contents: [-1, 2] }, [-1, 2]],
      ['INT16', { int_contents: [-300, 2] }, [-300, 2]],
      ['INT32', { int_contents: [-70000, 2] }, [-70000, 2]],
      ['INT64', { int64_contents: ['-9007199254740993', '2'] }, [-9007199254740993n, 2n]],
      ['UINT8', { uint_contents: [255, 2] }, [255, 2]],
      ['UINT16', { uint_contents: [65535, 2] }, [65535, 2]],
      ['UINT32', { uint_contents: [4294967295, 2] }, [4294967295, 2]],
      ['UINT64', { uint64_contents: ['18446744073709551615', '2'] }, [18446744073709551615n, 2n]],
      ['FP32', { fp32_contents: [0.5, -2] }, [0.5, -2]],
      ['FP64', { fp64_contents: [0.1, -2] }, [0.1, -2]],
      ['BYTES', { bytes_contents: [Buffer.from('é'), Buffer.from('b')] }, ['é', 'b']],
    ];
    for (const [datatype, contents, expected] of typed) {
      const input = { name: 'x', datatype, shape: [2], contents: contents as TensorContents };
      const message = codecs.inferRequest.decode(codecs.inferRequest.encode({ inputs: [input] }));
      const { x } = decodeTensors(message.inputs, message.raw_input_contents);
      assert.deepEqual([...x!.data], expected, datatype);
    }
  });

  it('refuses what does not add up', () => {
    const x = { name: 'x', datatype: 'FP32', shape: [1] };
    const four = new Uint8Array(4);
    const typed = (contents: Partial<TensorContents>) => contents as TensorContents;
    const bad: [string, Parameters<typeof decodeTensors>, RegExp][] = [
      ['datatype', [[{ ...x, datatype: 'FP8' }], [four]], /"x".*FP8/],
      ['count', [[x], [four, four]], /1 tensors came with 2/],
      [
        'twice',
        [
          [x, x],
          [four, four],
        ],
        /"x" came twice/,
      ],
      ['nothing', [[x], []], /neither raw nor typed/],
      ['typed float16', [[{ ...x, datatype: 'FP16', contents: {} as TensorContents }], []], /only raw/],
      ['cut string', [[{ ...x, datatype: 'BYTES' }], [Uint8Array.of(9, 0, 0, 0, 65)]], /cut off/],
      ['both', [[{ ...x, contents: typed({ fp32_contents: [1] }) }], [four]], /"x".*raw and typed contents/],
      [
        'stray',
        [[{ ...x, contents: typed({ int_contents: [1] }) }], []],
        /it has int_contents.*belong in fp32_contents/,
      ],
      [
        'stray too',
        [[{ ...x, contents: typed({ fp32_contents: [1], bytes_contents: [four] }) }], []],
        /bytes_contents/,
      ],
      [
        'int8',
        [[{ ...x, datatype: 'INT8', contents: typed({ int_contents: [-129] }) }], []],
        /element 0, -129, is out/,
      ],
      ['int16', [[{ ...x, datatype: 'INT16', contents: typed({ int_contents: [32768] }) }], []], /32768, is out/],
      ['uint8', [[{ ...x, datatype: 'UINT8', contents: typed({ uint_contents: [256] }) }], []], /256, is out/],
      ['uint16', [[{ ...x, datatype: 'UINT16', contents: typed({ uint_contents: [65536] }) }], []], /65536, is out/],
      ['raw text', [[{ ...x, datatype: 'BYTES' }], [Uint8Array.of(1, 0, 0, 0, 0xff)]], /element 0 is not UTF-8/],
      ['typed text', [[{ ...x, datatype: 'BYTES', contents: typed({ bytes_contents: [Uint8Array.of(0xc3)] }) }], []], /not UTF-8/], // prettier-ignore
      ['cut string length', [[{ ...x, datatype: 'BYTES' }], [Uint8Array.of(9, 0)]], /cut off/],
    ];
    for (const [what, args, message] of bad) {
      assert.throws(() => decodeTensors(...args), { code: 'PROTOCOL', message }, what);
    }
  });
});
