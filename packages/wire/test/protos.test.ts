import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { codecs, METHODS, protoDefinition } from '../src/protocol/protos.js';

/** A protobuf field: tag byte(s) and, for length-delimited ones, the length. Written by hand from the encoding's spec. */
function field(number: number, wireType: 0 | 2, ...bytes: (number | string)[]): number[] {
  const body = bytes.flatMap(part => (typeof part === 'string' ? [...Buffer.from(part)] : [part]));
  return wireType === 2 ? [(number << 3) | 2, body.length, ...body] : [number << 3, ...body];
}

describe('protos', () => {
  it('writes a ModelInferRequest in the field numbers of the Open Inference Protocol', () => {
    const encoded = codecs.inferRequest.encode({
      model_name: 'm',
      id: '7',
      parameters: { timeout: { int64_param: 5 } },
      inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 2] }],
      raw_input_contents: [Uint8Array.of(9, 8)],
    });
    assert.deepEqual(
      [...encoded],
      [
        ...field(1, 2, 'm'),
        ...field(3, 2, '7'),
        ...field(4, 2, ...field(1, 2, 'timeout'), ...field(2, 2, ...field(2, 0, 5))),
        ...field(5, 2, ...field(1, 2, 'x'), ...field(2, 2, 'FP32'), ...field(3, 2, 1, 2)),
        ...field(7, 2, 9, 8),
      ],
    );
  });

  it('reads a ModelInferResponse in those numbers, raw contents as views of the message', () => {
    const bytes = Buffer.from([
      ...field(1, 2, 'm'),
      ...field(2, 2, '1'),
      ...field(3, 2, '7'),
      ...field(5, 2, ...field(1, 2, 'y'), ...field(2, 2, 'INT8'), ...field(3, 2, 2)),
      ...field(6, 2, 4, 5),
    ]);
    const message = codecs.inferResponse.decode(bytes);
    assert.equal(message.model_version, '1');
    assert.deepEqual(
      message.outputs.map(({ name, datatype, shape }) => ({ name, datatype, shape: shape.map(Number) })),
      [{ name: 'y', datatype: 'INT8', shape: [2] }],
    );
    const [raw] = message.raw_output_contents;
    assert.deepEqual([...raw!], [4, 5]);
    assert.equal(raw!.buffer, bytes.buffer);
  });

  it('writes typed contents, stream replies and repository messages in Triton’s numbers', () => {
    const request = codecs.inferRequest.decode(
      Buffer.from(field(5, 2, ...field(1, 2, 'x'), ...field(5, 2, ...field(2, 2, 3), ...field(8, 2, 'a')))),
    );
    assert.deepEqual(request.inputs[0]!.contents!.int_contents, [3]);
    assert.equal(Buffer.from(request.inputs[0]!.contents!.bytes_contents[0]!).toString(), 'a');
    assert.deepEqual(
      [...codecs.streamResponse.encode({ error_message: 'e', infer_response: { id: '7' } })],
      [...field(1, 2, 'e'), ...field(2, 2, ...field(3, 2, '7'))],
    );
    assert.deepEqual(
      [...codecs.repositoryIndex.encode({ models: [{ name: 'n', version: '1', state: 's', reason: 'r' }] })],
      field(1, 2, ...field(1, 2, 'n'), ...field(2, 2, '1'), ...field(3, 2, 's'), ...field(4, 2, 'r')),
    );
    assert.deepEqual([...codecs.repositoryModel.encode({ model_name: 'n' })], field(2, 2, 'n'));
    assert.deepEqual([...codecs.repositoryIndexRequest.encode({ ready: true })], field(2, 0, 1));
    assert.deepEqual(
      [...codecs.serverMetadata.encode({ name: 'n', version: 'v', extensions: ['e'] })],
      [...field(1, 2, 'n'), ...field(2, 2, 'v'), ...field(3, 2, 'e')],
    );
  });

  it('writes the messages of ShardStore in the field numbers of its .proto file', () => {
    const owner = { cluster: 'c', model: 'm', version: 3 };
    const asOwner = [...field(1, 2, 'c'), ...field(2, 2, 'm'), ...field(3, 0, 3)];
    const block = { layers: ['l'], code: 'sum', k: 4, r: 1, block: 2 };
    const asBlock = [
      ...field(1, 2, 'l'),
      ...field(2, 2, 'sum'),
      ...field(3, 0, 4),
      ...field(4, 0, 1),
      ...field(5, 0, 2),
    ];
    const sizes = [...field(2, 0, 5), ...field(3, 0, 6)];
    assert.deepEqual(
      [...codecs.putRequest.encode({ header: { name: 'n', model_bytes: 5, weights_bytes: 6, owner, block } })],
      field(1, 2, ...field(1, 2, 'n'), ...sizes, ...field(4, 2, ...asOwner), ...field(5, 2, ...asBlock)),
    );
    const named = [...field(1, 2, 'n'), ...field(2, 2, ...asOwner)];
    assert.deepEqual([...codecs.claimRequest.encode({ names: ['n'], owner })], named);
    assert.deepEqual(
      [...codecs.claimRequest.encode({ names: ['n'], owner, block })],
      [...named, ...field(3, 2, ...asBlock)],
    );
    assert.deepEqual([...codecs.removeRequest.encode({ names: ['n'], owner })], named);
    assert.deepEqual([...codecs.claimResponse.encode({ missing: ['n'] })], field(1, 2, 'n'));
    const asUse = [...field(1, 2, ...asOwner), ...field(2, 2, ...asBlock)];
    const half = [0, 0, 0, 0, 0, 0, 0xe0, 0x3f]; // as a double
    assert.deepEqual(
      [
        ...codecs.inventory.encode({
          shards: [{ name: 'n', bytes: 5, owners: [owner], uses: [{ owner, block }] }],
          recent: { runs: 7, macs: 8, engine_ms: 0.5 },
          events: [{ age_ms: 0.5, text: 't' }],
        }),
      ],
      [
        ...field(9, 2, ...field(1, 2, 'n'), ...field(2, 0, 5), ...field(3, 2, ...asOwner), ...field(4, 2, ...asUse)),
        ...field(10, 2, ...field(1, 0, 7), ...field(2, 0, 8), (3 << 3) | 1, ...half),
        ...field(11, 2, (1 << 3) | 1, ...half, ...field(2, 2, 't')),
      ],
    );
    // As a client of before owners has it.
    assert.equal(codecs.removeRequest.decode(Buffer.from(field(1, 2, 'n'))).owner, null);
    assert.equal(codecs.putRequest.decode(Buffer.from(field(1, 2, ...field(1, 2, 'n')))).header?.owner, null);
  });

  it('writes the messages of FaultControl in the field numbers of its .proto file', () => {
    /** A field of kind 1: a double, little-endian. */
    const double = (number: number, value: number) => [
      (number << 3) | 1,
      ...new Uint8Array(Float64Array.of(value).buffer),
    ];
    const settings = {
      seed: 5,
      device: { gflops: 0.5, overhead_ms: 1.5, replay: true },
      slow_factor: 2,
      stall: { rate: 0.25, min_ms: 3, max_ms: 4 },
      drop_rate: 0.1,
      corrupt_rate: 0.2,
      wrong_rate: 0.3,
    };
    const asSettings = [
      ...field(1, 0, 5),
      ...field(2, 2, ...double(1, 0.5), ...double(2, 1.5), ...field(3, 0, 1)),
      ...double(3, 2),
      ...field(4, 2, ...double(1, 0.25), ...double(2, 3), ...double(3, 4)),
      ...double(5, 0.1),
      ...double(6, 0.2),
      ...double(7, 0.3),
    ];
    assert.deepEqual([...codecs.faultSettings.encode(settings)], asSettings);
    assert.deepEqual([...codecs.faultAction.encode({ kill: {} })], field(1, 2));
    assert.deepEqual([...codecs.faultAction.encode({ pause: { ms: 7 } })], field(2, 2, ...double(1, 7)));
    assert.deepEqual([...codecs.faultAction.encode({ kill_on_next: {} })], field(3, 2));
    assert.deepEqual([...codecs.faultAction.encode({ pause_on_next: { ms: 7 } })], field(4, 2, ...double(1, 7)));
    const counts = { received: 1, run: 2, stalled: 3, dropped: 4, corrupted: 5, rss_bytes: 6 };
    const times = { busy_ms: 1.5, stalled_ms: 2.5, cpu_ms: 3.5 };
    assert.deepEqual(
      [...codecs.faultStatus.encode({ ...counts, ...times, settings, armed: { kill_on_next: {} } })],
      [
        ...[1, 2, 3, 4, 5].flatMap(number => field(number, 0, number)),
        ...double(6, 1.5),
        ...double(7, 2.5),
        ...double(8, 3.5),
        ...field(9, 0, 6),
        ...field(10, 2, ...asSettings),
        ...field(11, 2, ...field(3, 2)),
      ],
    );
  });

  it('has a method path for each RPC of all services, and no other', () => {
    const services = ['inference.GRPCInferenceService', 'kofn.v1.ShardStore', 'kofn.v1.FaultControl'].map(
      name => protoDefinition[name] as Record<string, { path: string }>,
    );
    const paths = services.flatMap(service => Object.values(service).map(method => method.path));
    assert.deepEqual(Object.values(METHODS).sort(), paths.sort());
  });

  it('refuses bytes that are no such message', () => {
    assert.throws(() => codecs.inferRequest.decode(Uint8Array.of(0x3a, 0x05, 0x61)), { code: 'PROTOCOL' });
  });
});
