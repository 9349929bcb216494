/** Our frames as protobuf's own C++ implementation sees them, and its as we do: `protoc` of Debian's protobuf-compiler. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { before, describe, it } from 'mocha';
import { float32 } from '@kofn/core';
import { cancelFrame, EncodedInputs, readReply, readRequest, replyFrame, requestFrame } from '../src/frames.js';
import { encodeTensors } from '../src/infer-codec.js';

const PROTOS = ['../../protos/', '../../../../protos/']
  .map(folder => fileURLToPath(new URL(folder, import.meta.url)))
  .find(folder => existsSync(`${folder}open_inference.proto`))!;

type Message = 'ModelInferRequest' | 'ModelStreamInferResponse';

function protoc(how: 'encode' | 'decode', message: Message, input: Uint8Array | string): Buffer {
  const args = [`--${how}=inference.${message}`, `--proto_path=${PROTOS}`, 'open_inference.proto'];
  return execFileSync('protoc', args, { input });
}

const REQUEST = `
model_name: "double"
id: "7"
parameters { key: "timeout" value { int64_param: 1500 } }
inputs { name: "x" datatype: "FP32" shape: 1 shape: 2 }
outputs { name: "y" }
raw_input_contents: "\\000\\000\\200?\\000\\000\\000@"
`;
const REPLY = `
infer_response {
  model_name: "double" id: "7"
  outputs { name: "y" datatype: "FP32" shape: 1 shape: 2 }
  raw_output_contents: "\\000\\000\\200?\\000\\000\\000@"
}
`;
const floats = (bytes: Uint8Array | undefined) => [...new Float32Array(Uint8Array.from(bytes!).buffer)];

describe('another implementation of protobuf', () => {
  before(function () {
    if (spawnSync('protoc', ['--version']).status !== 0) this.skip(); // npm run setup:debian installs protobuf-compiler
  });

  it('reads the requests that we write, whatever the padding', () => {
    for (let letters = 1; letters <= 8; letters++) {
      const name = 'x'.repeat(letters); // each moves the payload by one
      const inputs = new EncodedInputs({ [name]: float32([2, 3], Float32Array.of(1, 2, 3, 4, 5, 6)) });
      const frame = Buffer.concat(requestFrame({ model: 'double', id: '12', timeoutMs: 1.5, inputs }, true).parts);
      const text = protoc('decode', 'ModelInferRequest', frame).toString();
      assert.match(text, /model_name: "double"\nid: "12"/);
      assert.match(text, /key: "timeout"\s+value {\s+int64_param: 1500/);
      assert.match(text, new RegExp(`name: "${name}"\\s+datatype: "FP32"\\s+shape: 2\\s+shape: 3\\s`));
      assert.match(text, /raw_input_contents: ".*\\300@"/);
      assert.match(text, /key: "kofn_crc32"\s+value {\s+string_param: "[0-9a-f]{8}"/);
      assert.doesNotMatch(text, /^\d/m, 'a field that the protocol does not have');
      // What it makes of it is the same message to us, too.
      const back = readRequest(protoc('encode', 'ModelInferRequest', text));
      assert.deepEqual(back, readRequest(frame));
    }
    assert.match(
      protoc('decode', 'ModelInferRequest', Buffer.concat(cancelFrame('7', true))).toString(),
      /kofn_cancel/,
    );
  });

  it('reads the replies that we write', () => {
    const { tensors, raw } = encodeTensors({ y: float32([2, 3], Float32Array.of(1, 2, 3, 4, 5, 6)) });
    const response = { model_name: 'double', id: '7', outputs: tensors, raw_output_contents: raw };
    const frame = Buffer.concat(replyFrame({ infer_response: response }, 99));
    const text = protoc('decode', 'ModelStreamInferResponse', frame).toString();
    assert.match(text, /outputs {\s+name: "y"\s+datatype: "FP32"\s+shape: 2\s+shape: 3\s/);
    assert.doesNotMatch(text, /^\s*\d/m, 'a field that the protocol does not have');
    assert.deepEqual(readReply(protoc('encode', 'ModelStreamInferResponse', text)), readReply(frame));
  });

  it('writes requests and replies that we read', () => {
    const request = readRequest(protoc('encode', 'ModelInferRequest', REQUEST));
    assert.deepEqual([request.model_name, request.id, request.outputs.map(({ name }) => name)], ['double', '7', ['y']]);
    assert.equal(request.parameters['timeout']!.int64_param, '1500');
    assert.deepEqual(floats(request.raw_input_contents[0]), [1, 2]);
    const reply = readReply(protoc('encode', 'ModelStreamInferResponse', REPLY));
    assert.deepEqual([reply.error_message, reply.infer_response!.id], ['', '7']);
    assert.deepEqual(reply.infer_response!.outputs![0]!.shape.map(Number), [1, 2]);
    assert.deepEqual(floats(reply.infer_response!.raw_output_contents![0]), [1, 2]);
  });
});
