import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { float32, KofnError, type Tensor } from '@kofn/core';
import type { MethodPath, ServerDuplex, ServiceHandlers } from '../src/protocol/channel.js';
import { checksum } from '../src/protocol/checksum.js';
import { replyFrame, timesParameters, type WorkerTimes } from '../src/protocol/frames.js';
import { InferStream } from '../src/client/infer-stream.js';
import {
  codecs,
  METHODS,
  type InferParameter,
  type InferRequestMessage,
  type InferResponseMessage,
} from '../src/protocol/protos.js';
import { deferred, pair } from './harness.js';

const x = float32([2], Float32Array.of(1, 2));

/** A server that hands each request of its one stream to `onRequest`. */
function server(
  onRequest: (request: InferRequestMessage, stream: ServerDuplex, frame: Uint8Array) => Promise<void>,
): ServiceHandlers {
  const serve = (stream: ServerDuplex) =>
    stream.receive(frame => onRequest(codecs.inferRequest.decode(frame), stream, frame));
  return {
    unary: new Map(),
    clientStream: new Map(),
    duplex: new Map<MethodPath, typeof serve>([[METHODS.modelStreamInfer, serve]]),
  };
}

function echo(request: InferRequestMessage, stream: ServerDuplex): Promise<void> {
  const { id, inputs, raw_input_contents: raw } = request;
  const response = { id, model_name: request.model_name, outputs: inputs, raw_output_contents: raw };
  return stream.send(codecs.streamResponse.encode({ error_message: '', infer_response: response }));
}

describe('InferStream', () => {
  it('tells many requests apart on one stream, whatever the order of the replies', async () => {
    const held: (() => Promise<void>)[] = [];
    let streams = 0;
    const seen = new Set<ServerDuplex>();
    await using ends = await pair(
      server(async (request, stream) => {
        if (!seen.has(stream)) streams = seen.add(stream).size;
        held.push(() => echo(request, stream));
        if (held.length === 5) for (const reply of held.reverse()) await reply();
      }),
    );
    const stream = new InferStream(ends.channel, { canCancel: true });
    const replies = await Promise.all(
      [0, 1, 2, 3, 4].map(i =>
        stream.infer({ model: 'm', inputs: { x: float32([1], Float32Array.of(i)) }, timeoutMs: 5_000 }),
      ),
    );
    assert.deepEqual(
      replies.map(({ outputs }) => outputs['x']!.data[0]),
      [0, 1, 2, 3, 4],
    );
    assert.equal(streams, 1);
    assert.ok(replies.every(({ bytesSent, bytesReceived }) => bytesSent > 8 && bytesReceived > 8));
    stream.close();
    await assert.rejects(stream.infer({ model: 'm', inputs: { x } }), { code: 'CANCELLED' });
  });

  it('sends the timeout in microseconds and tells when the frame is written', async () => {
    const request = deferred<InferRequestMessage>();
    await using ends = await pair(
      server((message, stream) => {
        request.resolve(message);
        return echo(message, stream);
      }),
    );
    const stream = new InferStream(ends.channel, { canCancel: true });
    let writtenBytes = 0;
    const options = { onWritten: (bytes: number) => (writtenBytes = bytes) };
    const { bytesSent } = await stream.infer({ model: 'shard', inputs: { x }, timeoutMs: 1.5 }, options);
    const { parameters, model_name: model } = await request.promise;
    assert.equal(model, 'shard');
    assert.equal(Number(parameters['timeout']!.int64_param), 1500);
    assert.equal(writtenBytes, bytesSent);
    stream.close();
  });

  for (const canCancel of [true, false]) {
    it(`rejects at once on abort and ${canCancel ? 'cancels there' : 'sends a stock peer no cancel frame'}`, async () => {
      const arrived = deferred();
      const frames: InferRequestMessage[] = [];
      await using ends = await pair(
        server(async (request, stream) => {
          frames.push(request);
          if (frames.length === 1) return arrived.resolve();
          if (request.parameters['kofn_cancel']) return;
          await echo(frames[0]!, stream); // the reply that comes too late
          await echo(request, stream);
        }),
      );
      const stream = new InferStream(ends.channel, { canCancel });
      const controller = new AbortController();
      const call = stream.infer({ model: 'm', inputs: { x } }, { signal: controller.signal });
      const outcome = assert.rejects(call, { code: 'DEADLINE_EXCEEDED', message: 'too late' });
      await arrived.promise;
      controller.abort(new KofnError('DEADLINE_EXCEEDED', 'too late'));
      await outcome;
      await stream.infer({ model: 'm', inputs: { x } });
      assert.equal(stream.lateReplies, 1);
      const cancels = frames.filter(frame => frame.parameters['kofn_cancel']?.bool_param === true);
      assert.deepEqual(
        cancels.map(frame => frame.id),
        canCancel ? [frames[0]!.id] : [],
      );
      stream.close();
    });
  }

  it('tells how long a request ran that was cancelled, once, when its late reply says so', async () => {
    const frames: InferRequestMessage[] = [];
    const arrived = [deferred(), deferred()] as const;
    const reply = ({ id }: InferRequestMessage, stream: ServerDuplex, parameters: Record<string, InferParameter>) => {
      const said = { ...parameters, kofn_code: { string_param: 'CANCELLED' } };
      return stream.send(replyFrame({ error_message: 'cancelled', infer_response: { id, parameters: said } }));
    };
    await using ends = await pair(
      server(async (request, stream) => {
        frames.push(request);
        if (frames.length <= 2) return arrived[frames.length - 1]!.resolve();
        for (const times of [
          { queueMs: 1, engineMs: 2, workerMs: 4 },
          { queueMs: 5, engineMs: 5, workerMs: 5 },
        ]) {
          await reply(frames[0]!, stream, timesParameters(times)); // the second is nobody's any more
        }
        await reply(frames[1]!, stream, {}); // it had not begun
        await echo(request, stream);
      }),
    );
    const stream = new InferStream(ends.channel, { canCancel: false });
    const told: unknown[] = [];
    for (const [index, { promise }] of arrived.entries()) {
      const caller = new AbortController();
      const onLate = (times: WorkerTimes) => told.push([index, times]);
      const call = stream.infer({ model: 'm', inputs: { x } }, { signal: caller.signal, onLate });
      await promise;
      caller.abort();
      await assert.rejects(call, { code: 'CANCELLED' });
    }
    const onLate = () => told.push('was in time');
    await stream.infer({ model: 'm', inputs: { x } }, { signal: new AbortController().signal, onLate });
    assert.deepEqual(told, [[0, { queueMs: 1, engineMs: 2, workerMs: 4 }]]);
    assert.equal(stream.lateReplies, 3);
    stream.close();
  });

  it('rejects with the code and message of an error reply', async () => {
    await using ends = await pair(
      server((request, stream) => {
        const parameters = { kofn_code: { string_param: 'NOT_FOUND' } };
        const response = request.model_name === 'stock' ? { id: request.id } : { id: request.id, parameters };
        return stream.send(codecs.streamResponse.encode({ error_message: 'no such shard', infer_response: response }));
      }),
    );
    const stream = new InferStream(ends.channel, { canCancel: true });
    const message = 'no such shard';
    await assert.rejects(stream.infer({ model: 'm', inputs: { x } }), { code: 'NOT_FOUND', message });
    await assert.rejects(stream.infer({ model: 'stock', inputs: { x } }), { code: 'ENGINE', message });
    stream.close();
  });

  it('rejects a reply whose tensors lie, and only that one', async () => {
    let requests = 0;
    await using ends = await pair(
      server((request, stream) =>
        echo(++requests === 1 ? { ...request, raw_input_contents: [new Uint8Array(3)] } : request, stream),
      ),
    );
    const stream = new InferStream(ends.channel, { canCancel: true });
    await assert.rejects(stream.infer({ model: 'm', inputs: { x } }), { code: 'PROTOCOL', message: /"x"/ });
    const { outputs } = await stream.infer({ model: 'm', inputs: { x } });
    assert.deepEqual((outputs['x'] as Tensor).data, x.data);
    stream.close();
  });

  it('rejects all that is pending when the stream ends, and opens another for the next', async () => {
    let requests = 0;
    await using ends = await pair(
      server((request, stream) => {
        requests++;
        if (requests === 3) return Promise.reject(new KofnError('UNAVAILABLE', 'this worker is shutting down'));
        return requests > 3 ? echo(request, stream) : Promise.resolve();
      }),
    );
    const stream = new InferStream(ends.channel, { canCancel: true });
    const calls = [1, 2, 3].map(() =>
      assert.rejects(stream.infer({ model: 'm', inputs: { x } }), { code: 'UNAVAILABLE' }),
    );
    await Promise.all(calls);
    assert.equal((await stream.infer({ model: 'm', inputs: { x } })).outputs['x']!.dtype, 'float32');
    stream.close();
  });

  it('tells what lies ahead of the next frame, though nobody waits for it', async () => {
    await using ends = await pair(server(echo));
    const stream = new InferStream(ends.channel, { canCancel: true });
    await stream.infer({ model: 'm', inputs: { x } });
    const caller = new AbortController();
    const large = float32([2 ** 16], new Float32Array(2 ** 16));
    const cancelled = stream.infer({ model: 'm', inputs: { x: large } }, { signal: caller.signal });
    assert.equal(stream.abandonedBytes, 0);
    caller.abort();
    assert.ok(stream.abandonedBytes > 2 ** 18);
    await assert.rejects(cancelled, { code: 'CANCELLED' });
    await stream.infer({ model: 'm', inputs: { x } });
    assert.equal(stream.abandonedBytes, 0);
    stream.close();
  });

  it('refuses what is beyond its bound, and tells when there is room', async () => {
    const held: (() => Promise<void>)[] = [];
    const arrived = [deferred<void>(), deferred<void>()];
    await using ends = await pair(
      server((request, stream) => {
        arrived[held.push(() => echo(request, stream)) - 1]?.resolve();
        return Promise.resolve();
      }),
    );
    const stream = new InferStream(ends.channel, { canCancel: true, maxInFlight: 2 });
    const first = stream.infer({ model: 'm', inputs: { x } });
    const caller = new AbortController();
    const second = stream.infer({ model: 'm', inputs: { x } }, { signal: caller.signal });
    assert.ok(stream.isFull);
    await assert.rejects(stream.infer({ model: 'm', inputs: { x } }), {
      code: 'RESOURCE_EXHAUSTED',
      message: /has 2 requests under way already; send fewer at once/,
    });
    await Promise.all(arrived.map(({ promise }) => promise));
    const room = stream.room();
    await held[0]!();
    await first;
    await room;
    assert.ok(!stream.isFull);
    caller.abort();
    await assert.rejects(second, { code: 'CANCELLED' });
    const third = stream.infer({ model: 'm', inputs: { x } });
    const fourth = stream.infer({ model: 'm', inputs: { x } });
    assert.ok(stream.isFull);
    const last = stream.room();
    stream.close();
    await Promise.all([last, ...[third, fourth].map(each => assert.rejects(each, { code: 'CANCELLED' }))]);
    const waiting = new AbortController();
    const never = stream.room(waiting.signal);
    waiting.abort();
    await assert.rejects(never, { code: 'CANCELLED' });
  });

  it('takes no reply that is damaged, without a checksum, or to another request; the stream goes on', async () => {
    const framed = (reply: Partial<InferResponseMessage>, crc?: number) =>
      Buffer.concat(replyFrame({ infer_response: reply }, crc));
    const changed = (frame: Buffer, from: Uint8Array, to: Uint8Array) => {
      frame.set(to, frame.indexOf(from));
      return frame;
    };
    const damages: Record<string, (reply: Partial<InferResponseMessage>, crc: number) => Buffer> = {
      payload: (reply, crc) => {
        const [bytes] = reply.raw_output_contents!;
        return changed(
          framed(reply, crc),
          bytes!,
          bytes!.map((byte, i) => byte ^ (i === 5 ? 1 : 0)),
        );
      },
      datatype: (reply, crc) => changed(framed(reply, crc), Buffer.from('FP32'), Buffer.from('FP16')),
      missing: reply => framed(reply),
      'to another request': (reply, crc) => framed(reply, (crc ^ 1) >>> 0),
      none: (reply, crc) => framed(reply, crc),
    };
    await using ends = await pair(
      server((request, stream, frame) => {
        assert.ok(checksum.fits(frame));
        const { id, inputs, raw_input_contents: raw, model_name: model } = request;
        return stream.send(damages[model]!({ id, outputs: inputs, raw_output_contents: raw }, checksum.in(frame)!));
      }),
    );
    const stream = new InferStream(ends.channel, { canCancel: true, hasChecksums: true });
    for (const model of Object.keys(damages)) {
      const call = stream.infer({ model, inputs: { x } });
      if (model === 'none') assert.deepEqual((await call).outputs['x']!.data, x.data);
      else {
        const message = `a reply of ${ends.channel.address} was damaged on its way (its checksum does not match); check the link and the memory of that machine`;
        await assert.rejects(call, { code: 'DATA_LOSS', message }, model);
      }
    }
    assert.equal(stream.lateReplies, 0);
    stream.close();
  });

  it('sends checksums with cancel frames too, and none to a peer that does not know them', async () => {
    const checksums: boolean[] = [];
    const cancelled = deferred();
    await using ends = await pair(
      server((request, stream, frame) => {
        checksums.push(checksum.fits(frame));
        if (request.parameters['kofn_cancel']) cancelled.resolve();
        return request.model_name === 'stock' ? echo(request, stream) : Promise.resolve();
      }),
    );
    const stock = new InferStream(ends.channel, { canCancel: true });
    await stock.infer({ model: 'stock', inputs: { x } });
    const stream = new InferStream(ends.channel, { canCancel: true, hasChecksums: true });
    const call = assert.rejects(stream.infer({ model: 'm', inputs: { x } }), { code: 'UNAVAILABLE' });
    stream.abandon(new KofnError('UNAVAILABLE', 'given up'));
    await call;
    await cancelled.promise;
    assert.deepEqual(checksums, [false, true, true]);
    for (const each of [stock, stream]) each.close();
  });

  it('gives up all that is pending when the other end could not read one of the frames', async () => {
    let requests = 0;
    await using ends = await pair(
      server((request, stream) => {
        if (++requests > 2) return echo(request, stream);
        if (requests === 1) return Promise.resolve();
        return stream.send(
          codecs.streamResponse.encode({ error_message: 'no such message', infer_response: { id: '' } }),
        );
      }),
    );
    const stream = new InferStream(ends.channel, { canCancel: true });
    const calls = [1, 2].map(() =>
      assert.rejects(stream.infer({ model: 'm', inputs: { x } }), {
        code: 'DATA_LOSS',
        message: /a request to .*no such message/,
      }),
    );
    await Promise.all(calls);
    assert.deepEqual((await stream.infer({ model: 'm', inputs: { x } })).outputs['x']!.data, x.data);
    stream.close();
  });
});
