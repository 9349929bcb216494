/** Our frames as protobuf's own C++ implementation sees them, and its as we do: `protoc` of Debian's protobuf-compiler. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';
import { float32 } from '@kofn/core';
import {
  cancelFrame,
  EncodedInputs,
  readReply,
  readRequest,
  replyFrame,
  requestFrame,
} from '../src/protocol/frames.js';
import { actionFrom, resolveFaults, settingsFrom, settingsMessage, type FaultSettings } from '../src/client/faults.js';
import { encodeTensors } from '../src/protocol/infer-codec.js';
import { codecs } from '../src/protocol/protos.js';

const PROTOS = ['../../protos/', '../../../../protos/']
  .map(folder => fileURLToPath(new URL(folder, import.meta.url)))
  .find(folder => existsSync(`${folder}open_inference.proto`))!;

type Message = 'inference.ModelInferRequest' | 'inference.ModelStreamInferResponse' | `kofn.v1.Fault${string}`;

function protoc(how: 'encode' | 'decode', message: Message, input: Uint8Array | string): Buffer {
  const file = message.startsWith('kofn.') ? 'kofn/v1/fault_control.proto' : 'open_inference.proto';
  const args = [`--${how}=${message}`, `--proto_path=${PROTOS}`, file];
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

const isThere = spawnSync('protoc', ['--version']).status === 0;
const NEEDS = "needs Debian's protobuf-compiler: npm run setup:debian";

(isThere ? describe : describe.skip)(`another implementation of protobuf${isThere ? '' : ` (${NEEDS})`}`, () => {
  it('reads the requests that we write, whatever the padding', () => {
    for (let letters = 1; letters <= 8; letters++) {
      const name = 'x'.repeat(letters); // each moves the payload by one
      const inputs = new EncodedInputs({ [name]: float32([2, 3], Float32Array.of(1, 2, 3, 4, 5, 6)) });
      const frame = Buffer.concat(requestFrame({ model: 'double', id: '12', timeoutMs: 1.5, inputs }, true).parts);
      const text = protoc('decode', 'inference.ModelInferRequest', frame).toString();
      assert.match(text, /model_name: "double"\nid: "12"/);
      assert.match(text, /key: "timeout"\s+value {\s+int64_param: 1500/);
      assert.match(text, new RegExp(`name: "${name}"\\s+datatype: "FP32"\\s+shape: 2\\s+shape: 3\\s`));
      assert.match(text, /raw_input_contents: ".*\\300@"/);
      assert.match(text, /key: "kofn_crc32"\s+value {\s+string_param: "[0-9a-f]{8}"/);
      assert.doesNotMatch(text, /^\d/m, 'a field that the protocol does not have');
      // What it makes of it is the same message to us, too.
      const back = readRequest(protoc('encode', 'inference.ModelInferRequest', text));
      assert.deepEqual(back, readRequest(frame));
    }
    assert.match(
      protoc('decode', 'inference.ModelInferRequest', Buffer.concat(cancelFrame('7', true))).toString(),
      /kofn_cancel/,
    );
  });

  it('reads the replies that we write', () => {
    const { tensors, raw } = encodeTensors({ y: float32([2, 3], Float32Array.of(1, 2, 3, 4, 5, 6)) });
    const response = { model_name: 'double', id: '7', outputs: tensors, raw_output_contents: raw };
    const frame = Buffer.concat(replyFrame({ infer_response: response }, 99));
    const text = protoc('decode', 'inference.ModelStreamInferResponse', frame).toString();
    assert.match(text, /outputs {\s+name: "y"\s+datatype: "FP32"\s+shape: 2\s+shape: 3\s/);
    assert.doesNotMatch(text, /^\s*\d/m, 'a field that the protocol does not have');
    assert.deepEqual(readReply(protoc('encode', 'inference.ModelStreamInferResponse', text)), readReply(frame));
  });

  it('writes requests and replies that we read', () => {
    const request = readRequest(protoc('encode', 'inference.ModelInferRequest', REQUEST));
    assert.deepEqual([request.model_name, request.id, request.outputs.map(({ name }) => name)], ['double', '7', ['y']]);
    assert.equal(request.parameters['timeout']!.int64_param, '1500');
    assert.deepEqual(floats(request.raw_input_contents[0]), [1, 2]);
    const reply = readReply(protoc('encode', 'inference.ModelStreamInferResponse', REPLY));
    assert.deepEqual([reply.error_message, reply.infer_response!.id], ['', '7']);
    assert.deepEqual(reply.infer_response!.outputs![0]!.shape.map(Number), [1, 2]);
    assert.deepEqual(floats(reply.infer_response!.raw_output_contents![0]), [1, 2]);
  });

  it('has the same faults as we have', () => {
    const settings: FaultSettings = {
      seed: 2 ** 53 - 1,
      device: { gflops: 0.5, overheadMs: 2.25, replay: true },
      slowFactor: 3,
      stall: { rate: 0.125, minMs: 1, maxMs: 2 },
      dropRate: 0.25,
      corruptRate: 1,
      wrongRate: 0.75,
    };
    for (const given of [settings, {}]) {
      const ours = codecs.faultSettings.encode(settingsMessage(resolveFaults(given)));
      const text = protoc('decode', 'kofn.v1.FaultSettings', ours).toString();
      assert.doesNotMatch(text, /^\s*\d/m, 'a field that the protocol does not have');
      const theirs = codecs.faultSettings.decode(protoc('encode', 'kofn.v1.FaultSettings', text));
      assert.deepEqual(settingsFrom(theirs), resolveFaults(given));
    }
    // What nobody wrote is a sound worker.
    assert.deepEqual(settingsFrom(codecs.faultSettings.decode(new Uint8Array())), resolveFaults({}));
    const action = (text: string) =>
      actionFrom(codecs.faultAction.decode(protoc('encode', 'kofn.v1.FaultAction', text)));
    assert.deepEqual(action('kill {}'), { kind: 'kill' });
    assert.deepEqual(action('pause { ms: 12.5 }'), { kind: 'pause', ms: 12.5 });
    assert.deepEqual(action('kill_on_next {}'), { kind: 'killOnNext' });
    assert.deepEqual(action('pause_on_next { ms: 1 }'), { kind: 'pauseOnNext', ms: 1 });
  });
});
