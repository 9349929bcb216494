import assert from 'node:assert/strict';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { elementCount, float32, tensor, tensorBytes, tensorFromBytes, type Tensors } from '@kofn/core';
import type { MessageParts } from '../src/protocol/channel.js';
import { checksum } from '../src/protocol/checksum.js';
import {
  cancelFrame,
  EncodedInputs,
  readReply,
  readRequest,
  replyFrame,
  requestFrame,
  timesIn,
  timesParameters,
} from '../src/protocol/frames.js';
import { decodeTensors, encodeTensors } from '../src/protocol/infer-codec.js';
import {
  codecs,
  type InferParameter,
  type InferRequestMessage,
  type StreamResponseMessage,
  type TensorMessage,
} from '../src/protocol/protos.js';

/** As gRPC hands a message over: behind its prefix of five bytes, in a buffer that is aligned. */
function received(parts: MessageParts): Uint8Array {
  const bytes = Buffer.concat(parts);
  const buffer = new Uint8Array(5 + bytes.byteLength);
  buffer.set(bytes, 5);
  return buffer.subarray(5);
}

const shapes = fc.array(fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 0, max: 4 }) }, fc.constant(200)), {
  maxLength: 3,
});
const numbers = fc.tuple(fc.constantFrom('float32', 'int64', 'bool'), shapes).chain(([dtype, shape]) => {
  const bytes = elementCount(shape) * { float32: 4, int64: 8, bool: 1 }[dtype];
  return fc.uint8Array({ minLength: Math.min(bytes, 64), maxLength: Math.min(bytes, 64) }).map(some =>
    tensorFromBytes(
      dtype,
      shape,
      Uint8Array.from({ length: bytes }, (_, i) => some[i % 64]!),
    ),
  );
});
const texts = fc
  .array(fc.string({ unit: 'grapheme', maxLength: 4 }), { maxLength: 3 })
  .map(list => tensor('string', [list.length], list));
const anyTensors: fc.Arbitrary<Tensors> = fc.dictionary(fc.string({ maxLength: 4 }), fc.oneof(numbers, texts), {
  maxKeys: 3,
});
const anyText = fc.string({ unit: 'grapheme', maxLength: 6 });
const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String);
const anyParameter: fc.Arbitrary<InferParameter> = fc.oneof(
  fc.boolean().map(value => ({ bool_param: value })),
  int64.map(value => ({ int64_param: value })),
  anyText.map(value => ({ string_param: value })),
  fc.double({ noNaN: true }).map(value => ({ double_param: value })),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(value => ({ uint64_param: String(value) })),
);
const anyParameters = fc.dictionary(anyText, anyParameter, { maxKeys: 3 });
const size = fc.oneof(fc.nat(300), fc.constant(2 ** 21), fc.nat(2 ** 40));
const anyTensorMessage: fc.Arbitrary<TensorMessage> = fc.record({
  name: anyText,
  datatype: fc.constantFrom('FP32', 'INT64', 'none'),
  shape: fc.array(size.map(String), { maxLength: 4 }),
});
const anyBytes = fc.uint8Array({ maxLength: 20 });
const anyRequest = fc.record({
  model_name: anyText,
  model_version: anyText,
  id: anyText,
  parameters: anyParameters,
  inputs: fc.array(anyTensorMessage, { maxLength: 3 }),
  outputs: fc.array(
    anyText.map(name => ({ name })),
    { maxLength: 2 },
  ),
  raw_input_contents: fc.array(anyBytes, { maxLength: 3 }),
});
const anyReply = fc.record({
  error_message: fc.oneof({ weight: 3, arbitrary: fc.constant('') }, anyText),
  infer_response: fc.record({
    model_name: anyText,
    model_version: anyText,
    id: anyText,
    parameters: anyParameters,
    outputs: fc.array(anyTensorMessage, { maxLength: 3 }),
    raw_output_contents: fc.array(anyBytes, { maxLength: 3 }),
  }),
});

/** The generated codec names the kind of a parameter, and says which fields of a tensor are absent. */
function plain(message: InferRequestMessage | StreamResponseMessage): unknown {
  const own = (value: unknown): unknown => {
    if (value instanceof Uint8Array) return [...value];
    if (Array.isArray(value)) return value.map(own);
    if (typeof value !== 'object' || value === null) return value;
    const entries = Object.entries(value).filter(
      ([key, inner]) => key !== 'parameter_choice' && !(key === 'contents' && inner === null),
    );
    return Object.fromEntries(entries.map(([key, inner]) => [key, own(inner)]));
  };
  const tensorsOf = 'inputs' in message ? message.inputs : (message.infer_response?.outputs ?? []);
  const without = tensorsOf.map(({ name, datatype, shape }) => ({ name, datatype, shape: shape.map(String) }));
  if ('inputs' in message) {
    return own({ ...message, inputs: without, outputs: message.outputs.map(({ name }) => ({ name })) });
  }
  return own({ ...message, infer_response: { ...message.infer_response, outputs: without } });
}

describe('frames', () => {
  it('reads requests and replies as the generated codec does', () => {
    fc.assert(
      fc.property(anyRequest, message => {
        const frame = codecs.inferRequest.encode(message);
        assert.deepEqual(plain(readRequest(frame)), plain(codecs.inferRequest.decode(frame)));
      }),
    );
    fc.assert(
      fc.property(anyReply, message => {
        const frame = codecs.streamResponse.encode(message);
        assert.deepEqual(plain(readReply(frame)), plain(codecs.streamResponse.decode(frame)));
      }),
    );
  });

  it('throws PROTOCOL for what is no message, or reads what the generated codec reads', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), bytes => {
        for (const [read, codec] of [
          [readRequest, codecs.inferRequest],
          [readReply, codecs.streamResponse],
        ] as const) {
          let expected: InferRequestMessage | StreamResponseMessage;
          try {
            expected = codec.decode(bytes);
          } catch {
            assert.throws(() => read(bytes), { code: 'PROTOCOL' });
            continue;
          }
          assert.deepEqual(plain(read(bytes)), plain(expected));
        }
      }),
      { numRuns: 3000 },
    );
  });

  it('writes requests that the generated codec reads, and tensors as they were', () => {
    fc.assert(
      fc.property(anyText, anyText, anyTensors, fc.boolean(), (model, id, inputs, sealed) => {
        const { parts, crc } = requestFrame({ model, id, timeoutMs: 1.5, inputs: new EncodedInputs(inputs) }, sealed);
        const frame = received(parts);
        const message = codecs.inferRequest.decode(frame);
        assert.deepEqual(plain(readRequest(frame)), plain(message));
        assert.deepEqual([message.model_name, message.id], [model, id]);
        assert.equal(message.parameters['timeout']?.int64_param, '1500');
        assert.deepEqual(decodeTensors(message.inputs, message.raw_input_contents), shapesAsArrays(inputs));
        assert.deepEqual([checksum.in(frame), crc !== undefined], [crc, sealed]);
        if (sealed) assert.ok(checksum.fits(frame));
      }),
    );
  });

  it('writes replies that the generated codec reads', () => {
    fc.assert(
      fc.property(anyReply, fc.option(fc.nat(2 ** 32 - 1), { nil: undefined }), (message, crc) => {
        const frame = received(replyFrame(message, crc));
        const read = codecs.streamResponse.decode(frame);
        const seal = read.infer_response!.parameters!['kofn_crc32'];
        if (crc !== undefined) {
          assert.equal(Number.parseInt(seal!.string_param!, 16), checksum.in(frame));
          assert.ok(checksum.fits(frame, crc));
          delete read.infer_response!.parameters!['kofn_crc32'];
        }
        assert.deepEqual(plain(read), plain(codecs.streamResponse.decode(codecs.streamResponse.encode(message))));
      }),
    );
  });

  it('lays the first payload where it is read without a copy', () => {
    fc.assert(
      fc.property(
        anyText,
        fc.string({ maxLength: 9 }),
        fc.array(fc.integer({ min: 1, max: 24 }), { minLength: 1, maxLength: 3 }),
        (model, name, shape) => {
          const bytes = 8 * elementCount(shape);
          const inputs = { [name]: tensorFromBytes('int64', shape, new Uint8Array(bytes)) };
          const { tensors, raw } = encodeTensors(inputs);
          const request = received(requestFrame({ model, id: '1', inputs: new EncodedInputs(inputs) }, true).parts);
          const reply = received(
            replyFrame({ infer_response: { model_name: model, outputs: tensors, raw_output_contents: raw } }, 5),
          );
          for (const [frame, payload] of [
            [request, readRequest(request).raw_input_contents[0]!],
            [reply, readReply(reply).infer_response!.raw_output_contents![0]!],
          ] as const) {
            assert.deepEqual([payload.buffer === frame.buffer, payload.byteOffset % 8], [true, 0]);
          }
        },
      ),
      { numRuns: 50 },
    );
  });

  it('has the same large payload for every worker, and no copy of it', () => {
    const x = float32([2000], Float32Array.from({ length: 2000 }, Math.sin));
    const inputs = new EncodedInputs({ x });
    const frames = ['1', '2'].map(id => requestFrame({ model: 'm', id, inputs }, true));
    const payload = frames[0]!.parts.find(part => part.buffer === x.data.buffer)!;
    assert.deepEqual(payload, tensorBytes(x));
    assert.ok(frames[1]!.parts.includes(payload));
    assert.notEqual(frames[0]!.crc, frames[1]!.crc);
  });

  it('notices every single flipped bit of a request, or nothing is lost by it', () => {
    const x = float32([1, 2], Float32Array.of(1, -2));
    const request = requestFrame({ model: 'a'.repeat(64), id: '12', inputs: new EncodedInputs({ x }) }, true);
    for (const frame of [received(request.parts), received(cancelFrame('7', true))]) {
      const sent = readRequest(frame);
      forEachFlip(frame, flipped => {
        // Whose checksum is no more to be seen runs as a stranger's: its reply then has none and is not taken.
        if (checksum.in(flipped) === undefined)
          assert.ok(Buffer.from(flipped).subarray(0, -34).equals(Buffer.from(frame).subarray(0, -34)));
        else assert.ok(!checksum.fits(flipped));
      });
      assert.ok(checksum.fits(frame) && sent.id !== '');
    }
  });

  it('notices every single flipped bit of a reply', () => {
    const { tensors, raw } = encodeTensors({ y: float32([2], Float32Array.of(3, 6)) });
    const frame = received(replyFrame({ infer_response: { id: '7', outputs: tensors, raw_output_contents: raw } }, 99));
    assert.ok(checksum.fits(frame, 99) && !checksum.fits(frame, 98));
    forEachFlip(frame, flipped => assert.ok(!checksum.fits(flipped, 99)));
  });

  it('carries the times of a worker, or none', () => {
    const times = { queueMs: 0.125, engineMs: 3, workerMs: 4.5 };
    assert.deepEqual(timesIn(timesParameters(times)), times);
    const { kofn_queue_us: _, ...two } = timesParameters(times);
    assert.deepEqual([timesIn({}), timesIn(two)], [undefined, undefined]);
    assert.equal(timesIn({ ...two, kofn_queue_us: { int64_param: -1 } }), undefined);
  });
});

function shapesAsArrays(values: Tensors): Tensors {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, { ...value, shape: [...value.shape] }]),
  );
}

/** Calls `check` with each frame that differs from `frame` in one bit. */
function forEachFlip(frame: Uint8Array, check: (flipped: Uint8Array) => void): void {
  for (let bit = 0; bit < 8 * frame.byteLength; bit++) {
    const flipped = Uint8Array.from(frame);
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    check(flipped);
  }
}
