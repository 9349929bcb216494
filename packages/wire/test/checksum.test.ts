import assert from 'node:assert/strict';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { elementCount, float32, tensor, tensorFromBytes, type Tensors } from '@kofn/core';
import { checksum } from '../src/checksum.js';
import { encodeTensors } from '../src/infer-codec.js';
import { codecs, type InferRequestMessage, type InferResponseMessage, type TensorContents } from '../src/protos.js';

type Request = Partial<InferRequestMessage>;
type Reply = Partial<InferResponseMessage>;

const raw = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);

const request: Request = {
  model_name: 'm',
  id: '7',
  parameters: { timeout: { int64_param: 1500 } },
  inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 2] }],
  raw_input_contents: [raw(1, 2)],
};
const reply: Reply = {
  model_name: 'm',
  model_version: '1',
  id: '7',
  outputs: [{ name: 'y', datatype: 'FP32', shape: [1, 2] }],
  raw_output_contents: [raw(3, 6)],
};
const cancel: Request = { id: '7', parameters: { kofn_cancel: { bool_param: true } } };

const encodeReply = (message: Reply) => codecs.streamResponse.encode({ error_message: '', infer_response: message });

const shapes = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 });
const numbers = fc.tuple(fc.constantFrom('float32', 'int64', 'bool'), shapes).chain(([dtype, shape]) => {
  const bytes = elementCount(shape) * { float32: 4, int64: 8, bool: 1 }[dtype];
  return fc.uint8Array({ minLength: bytes, maxLength: bytes }).map(data => tensorFromBytes(dtype, shape, data));
});
const texts = fc
  .array(fc.string({ unit: 'grapheme', maxLength: 4 }), { maxLength: 3 })
  .map(list => tensor('string', [list.length], list));
const anyTensors: fc.Arbitrary<Tensors> = fc.dictionary(fc.string({ maxLength: 4 }), fc.oneof(numbers, texts), {
  maxKeys: 3,
});
const anyText = fc.string({ unit: 'grapheme', maxLength: 6 });

function sealedPair(model: string, id: string, inputs: Tensors, outputs: Tensors, wanted: readonly string[] = []) {
  const [given, made] = [encodeTensors(inputs), encodeTensors(outputs)];
  const sent = checksum.sealRequest({
    model_name: model,
    id,
    parameters: { timeout: { int64_param: 1500 } },
    inputs: given.tensors,
    outputs: wanted.map(name => ({ name })),
    raw_input_contents: given.raw,
  });
  const message = { model_name: model, model_version: '1', id, outputs: made.tensors, raw_output_contents: made.raw };
  return { ...sent, reply: checksum.sealReply(message, sent.crc) };
}

/** Calls `check` with each frame that differs from `frame` in one bit. */
function forEachFlip(frame: Uint8Array, check: (flipped: Uint8Array, bit: number) => void): void {
  for (let bit = 0; bit < 8 * frame.byteLength; bit++) {
    const flipped = Uint8Array.from(frame);
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    check(flipped, bit);
  }
}

/** What a decoder makes of a frame; undefined when it makes nothing of it. */
function decoded<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch {
    return undefined;
  }
}

/** A worker notices that a request is damaged, or leaves its reply without a checksum, or lost nothing. */
function checkRequestFlips(frame: Uint8Array): void {
  const sent = codecs.inferRequest.decode(frame);
  assert.ok(checksum.of(sent) !== undefined && checksum.requestFits(sent));
  forEachFlip(frame, (flipped, bit) => {
    const got = decoded(() => codecs.inferRequest.decode(flipped));
    if (got === undefined || checksum.of(got) === undefined || !checksum.requestFits(got)) return;
    assert.deepEqual(got, sent, `bit ${bit} of ${Buffer.from(frame).toString('hex')}`);
  });
}

/** A master notices that a reply is damaged, or lost nothing. */
function checkReplyFlips(frame: Uint8Array, requestCrc: number): void {
  const sent = codecs.streamResponse.decode(frame);
  assert.ok(checksum.replyFits(sent.infer_response!, requestCrc));
  forEachFlip(frame, (flipped, bit) => {
    const got = decoded(() => codecs.streamResponse.decode(flipped));
    if (got === undefined || got.error_message !== '' || !checksum.replyFits(got.infer_response ?? {}, requestCrc))
      return;
    assert.deepEqual(got, sent, `bit ${bit} of ${Buffer.from(frame).toString('hex')}`);
  });
}

describe('checksum', () => {
  it('is the CRC-32 that another implementation computes', () => {
    // Python: zlib.crc32(raw, zlib.crc32(json.dumps(line, separators=(',', ':')).encode(), start))
    const { crc } = checksum.sealRequest(request);
    assert.equal(crc, 0x8b263878);
    assert.equal(checksum.of(checksum.sealReply(reply, crc)), 0x370f7797);
    assert.equal(checksum.sealRequest(cancel).crc, 0x556f12e9);
  });

  it('fits what has crossed the wire, whatever the tensors', () => {
    fc.assert(
      fc.property(anyText, anyText, anyTensors, anyTensors, (model, id, inputs, outputs) => {
        const pair = sealedPair(model, id, inputs, outputs, Object.keys(outputs));
        const got = codecs.inferRequest.decode(codecs.inferRequest.encode(pair.request));
        assert.equal(checksum.of(got), pair.crc);
        assert.ok(checksum.requestFits(got));
        const answer = codecs.streamResponse.decode(encodeReply(pair.reply)).infer_response!;
        assert.ok(checksum.replyFits(answer, pair.crc));
        assert.ok(!checksum.replyFits(answer, (pair.crc ^ 1) >>> 0), 'a reply to another request');
      }),
    );
  });

  it('notices every single flipped bit of a request, or nothing is lost by it', () => {
    const x = float32([1, 2], Float32Array.of(1, -2));
    checkRequestFlips(codecs.inferRequest.encode(sealedPair('a'.repeat(64), '12', { x }, {}).request));
    checkRequestFlips(codecs.inferRequest.encode(checksum.sealRequest(cancel).request));
    fc.assert(
      fc.property(anyText, anyText, anyTensors, fc.array(anyText, { maxLength: 2 }), (model, id, inputs, outputs) =>
        checkRequestFlips(codecs.inferRequest.encode(sealedPair(model, id, inputs, {}, outputs).request)),
      ),
    );
  });

  it('notices every single flipped bit of a reply, or nothing is lost by it', () => {
    fc.assert(
      fc.property(anyText, anyText, anyTensors, (model, id, outputs) => {
        const pair = sealedPair(model, id, {}, outputs);
        checkReplyFlips(encodeReply(pair.reply), pair.crc);
      }),
    );
  });

  it('covers each part of what a message means', () => {
    const sealed = checksum.sealRequest(request);
    const [input] = request.inputs!;
    const changes: Request[] = [
      { model_name: 'n' },
      { model_version: '1' },
      { id: '8' },
      { parameters: { ...sealed.request.parameters, timeout: { int64_param: 1501 } } },
      { parameters: { ...sealed.request.parameters, timeout: { uint64_param: 1500 } } },
      { parameters: { ...sealed.request.parameters, other: { bool_param: true } } },
      { parameters: { ...sealed.request.parameters, kofn_crc32: { string_param: String(sealed.crc) } } },
      { inputs: [{ ...input!, name: 'y' }] },
      { inputs: [{ ...input!, datatype: 'INT32' }] },
      { inputs: [{ ...input!, shape: [2, 1] }] },
      { inputs: [input!, input!] },
      { inputs: [{ ...input!, contents: { fp32_contents: [1, 2] } as TensorContents }] },
      { outputs: [{ name: 'y' }] },
      { raw_input_contents: [raw(1, 3)] },
      { raw_input_contents: [raw(1), raw(2)] },
      { raw_input_contents: [] },
    ];
    assert.ok(checksum.requestFits(sealed.request));
    for (const change of changes) {
      assert.ok(!checksum.requestFits({ ...sealed.request, ...change }), JSON.stringify(change));
    }
    const answer = checksum.sealReply(reply, sealed.crc);
    assert.ok(checksum.replyFits(answer, sealed.crc));
    const wrong: Reply[] = [{ model_version: '2' }, { id: '8' }, { outputs: [] }, { parameters: {} }];
    for (const change of wrong) assert.ok(!checksum.replyFits({ ...answer, ...change }, sealed.crc));
  });

  it('asks nothing of a request without one, and changes nothing of what it seals', () => {
    assert.deepEqual([checksum.of(request), checksum.requestFits(request)], [undefined, true]);
    const before = structuredClone(request);
    checksum.sealRequest(request);
    assert.deepEqual(request, before);
  });
});
