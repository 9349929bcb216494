import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'mocha';
import { float32, KofnError } from '@kofn/core';
import {
  checksum,
  codecs,
  connectChannel,
  EncodedInputs,
  METHODS,
  WorkerClient,
  type InferRequestMessage,
  type WorkerTimes,
} from '@kofn/wire';
import { startWorker } from '../src/start.js';
import { scaleShard, ScaleEngine } from './support/scale-engine.js';
import { startRunning, valuesOf, x } from './support/running.js';

const double = scaleShard(2, new Uint8Array(3 * 2 ** 20));
const triple = scaleShard(3);

describe('worker over gRPC', () => {
  it('takes shards, runs them, lists them and lets them go', async () => {
    await using t = await startRunning();
    const { client } = t;
    assert.deepEqual([...client.metadata.extensions].sort(), ['kofn.cancel', 'kofn.checksum', 'kofn.shard_store']);
    assert.equal(await client.live(), true);
    const progress: number[] = [];
    assert.deepEqual(await client.put(double, { onProgress: sent => progress.push(sent) }), { present: false });
    const bytes = double.model.byteLength + double.weights.byteLength;
    assert.equal(progress.length, 4);
    assert.equal(progress.at(-1), bytes);
    assert.deepEqual(await client.put(double), { present: true });
    await client.put(triple);
    assert.deepEqual(await t.infer(double.name), [2, 4]);
    assert.deepEqual(await t.infer(triple.name), [3, 6]);
    const inventory = await client.inventory();
    assert.match(inventory.workerId, /^[0-9a-f-]{36}$/);
    assert.deepEqual(
      [...inventory.shards].sort((a, b) => b.bytes - a.bytes).map(shard => [shard.name, shard.bytes]),
      [
        [double.name, bytes],
        [triple.name, triple.model.byteLength],
      ],
    );
    assert.equal(inventory.diskUsedBytes, bytes + triple.model.byteLength);
    assert.deepEqual([inventory.engine, inventory.engineVersion], ['simulated', '1']);
    assert.ok(inventory.memoryLimitBytes > 0 && inventory.diskLimitBytes > bytes && inventory.cores >= 1);
    assert.ok(inventory.sessionBytes > 0);
    assert.deepEqual(await client.remove([double.name, 'f'.repeat(64)]), [double.name]);
    await assert.rejects(t.infer(double.name), { code: 'NOT_FOUND', message: /put it first/ });
    assert.deepEqual(t.engine.closed, [double.name]);
    assert.deepEqual(
      (await client.inventory()).events.map(({ text }) => text),
      ['started, with 0 shards on its disk', 'took 2 shards', 'dropped 1 shard'],
    );
  });

  it('does not run what was cancelled or expired while it waited, and says so', async () => {
    await using t = await startRunning();
    await t.client.put(double);
    await t.client.put(triple);
    await t.infer(double.name);
    t.engine.hold();
    const running = t.infer(double.name);
    await t.engine.started(2);
    const controller = new AbortController();
    const cancelled = assert.rejects(t.infer(triple.name, { signal: controller.signal }), { code: 'CANCELLED' });
    await assert.rejects(t.infer(triple.name, { timeoutMs: 1 }), { code: 'DEADLINE_EXCEEDED' });
    controller.abort();
    await cancelled;
    await t.client.live(); // by now the cancel frame, sent before on the same connection, has been read
    t.engine.release();
    assert.deepEqual(await running, [2, 4]);
    assert.deepEqual(t.engine.runs, [2, 2]);
    const { cancelledBeforeStart, expiredBeforeStart, started } = t.worker.server.queue.counters;
    assert.deepEqual([cancelledBeforeStart, expiredBeforeStart, started], [1, 1, 2]);
    const text = await t.worker.server.metrics.metrics();
    assert.match(text, /kofn_worker_requests_total\{outcome="cancelledBeforeStart"\} 1/);
  });

  it('tells how long a cancelled request ran that had begun, and what it ran lately', async () => {
    await using t = await startRunning();
    await t.client.put(double);
    await t.infer(double.name); // says nothing of its size
    assert.deepEqual((await t.client.inventory()).recent, { runs: 0, macs: 0, engineMs: 0 });
    t.engine.hold();
    const caller = new AbortController();
    const late = new Promise<WorkerTimes>(onLate => {
      const inputs = new EncodedInputs({ x }, { macs: 4e12 });
      const running = t.client.infer({ model: double.name, inputs }, { signal: caller.signal, onLate });
      void assert.rejects(running, { code: 'CANCELLED' });
    });
    await t.engine.started(2);
    caller.abort();
    await t.client.live();
    t.engine.release();
    const { queueMs, engineMs, workerMs } = await late;
    assert.ok(engineMs > 0 && workerMs >= engineMs && workerMs >= queueMs + engineMs);
    const { runs, macs, engineMs: sumMs } = (await t.client.inventory()).recent;
    assert.deepEqual([runs, macs], [1, 4e12]);
    assert.ok(sumMs > 0 && Math.abs(sumMs - engineMs) < 0.01);
  });

  it('drops what waits when the caller is gone', async () => {
    await using t = await startRunning();
    await t.client.put(double);
    t.engine.hold();
    const running = t.infer(double.name);
    await using other = connectChannel(t.worker.address);
    const client = await WorkerClient.open(other);
    const waiting = assert.rejects(client.infer({ model: double.name, inputs: { x } }), { code: 'CANCELLED' });
    const { queue } = t.worker.server;
    const until = async (holds: () => boolean) => {
      while (!holds()) await t.client.live();
    };
    await until(() => queue.waiting === 1);
    await other[Symbol.asyncDispose]();
    await waiting;
    await until(() => queue.waiting === 0);
    t.engine.release();
    await running;
    assert.equal(queue.counters.cancelledBeforeStart, 1);
  });

  it('takes many requests at once on one stream, without a warning', async () => {
    const warnings: string[] = [];
    const onWarning = ({ message }: Error) => warnings.push(message);
    process.on('warning', onWarning);
    try {
      await using t = await startRunning();
      await t.client.put(double);
      await t.infer(double.name); // opens the session, which a held engine would not
      t.engine.hold();
      const answers = Array.from({ length: 30 }, () => t.infer(double.name));
      while (t.worker.server.queue.waiting < 29) await t.client.live();
      t.engine.release();
      for (const answer of await Promise.all(answers)) assert.deepEqual(answer, [2, 4]);
      await new Promise(resolve => setImmediate(resolve)); // warnings come in a tick of their own
    } finally {
      process.off('warning', onWarning);
    }
    assert.deepEqual(warnings, []);
  });

  it('refuses more than the queue holds', async () => {
    await using t = await startRunning({ maxQueue: 1 });
    await t.client.put(double);
    t.engine.hold();
    const [first, second] = [t.infer(double.name), t.infer(double.name)];
    await assert.rejects(t.infer(double.name), { code: 'RESOURCE_EXHAUSTED', message: /--max-queue/ });
    t.engine.release();
    assert.deepEqual(
      [await first, await second],
      [
        [2, 4],
        [2, 4],
      ],
    );
  });

  it('answers malformed frames and lives on', async () => {
    await using t = await startRunning();
    await t.client.put(double);
    const replies: { error: string; code: string | undefined; id: string | undefined }[] = [];
    let wake = () => {};
    const call = t.channel.duplex(METHODS.modelStreamInfer, {
      onMessage: message => {
        const { error_message: error, infer_response: response } = codecs.streamResponse.decode(message);
        replies.push({ error, code: response?.parameters?.['kofn_code']?.string_param, id: response?.id });
        wake();
      },
      onEnd: () => wake(),
    });
    const reply = async () => {
      while (replies.length === 0) await new Promise<void>(resolve => (wake = resolve));
      return replies.shift()!;
    };
    const input = { name: 'x', datatype: 'FP32', shape: [1, 2] };
    const base = { model_name: double.name, id: '5', inputs: [input], raw_input_contents: [new Uint8Array(8)] };
    const timeout = { timeout: { string_param: 'soon' } };
    const bad: [Uint8Array, string, string][] = [
      [Uint8Array.of(0x3a, 0x05, 0x61), 'PROTOCOL', ''],
      [codecs.inferRequest.encode({ ...base, raw_input_contents: [new Uint8Array(7)] }), 'PROTOCOL', '5'],
      [codecs.inferRequest.encode({ ...base, parameters: timeout }), 'INVALID_ARGUMENT', '5'],
      [codecs.inferRequest.encode({ ...base, model_version: '9' }), 'NOT_FOUND', '5'],
      [codecs.inferRequest.encode({ ...base, outputs: [{ name: 'z' }] }), 'INVALID_ARGUMENT', '5'],
      [codecs.inferRequest.encode({ ...base, inputs: [], raw_input_contents: [] }), 'INVALID_ARGUMENT', '5'],
      [codecs.inferRequest.encode({ ...base, model_name: '' }), 'NOT_FOUND', '5'],
    ];
    for (const [frame, code, id] of bad) {
      await call.send(frame);
      const answer = await reply();
      assert.deepEqual([answer.code, answer.id], [code, id], answer.error);
      assert.notEqual(answer.error, '');
    }
    t.engine.hold();
    await call.send(codecs.inferRequest.encode(base));
    await call.send(codecs.inferRequest.encode(base));
    const twice = await reply();
    assert.deepEqual([twice.code, twice.id], ['INVALID_ARGUMENT', '5']);
    await call.send(codecs.inferRequest.encode({ id: 'unknown', parameters: { kofn_cancel: { bool_param: true } } }));
    t.engine.release();
    assert.deepEqual(await reply(), { error: '', code: undefined, id: '5' });
    call.end();
  });

  it('runs no damaged request of a stream, and ties the reply to an intact one', async () => {
    await using t = await startRunning();
    await t.client.put(double);
    const input = { name: 'x', datatype: 'FP32', shape: [1, 2] };
    const bytes = new Uint8Array(Float32Array.of(1, 2).buffer);
    const base = { model_name: double.name, id: '5', inputs: [input], raw_input_contents: [bytes] };
    const crc = checksum.of(codecs.inferRequest.encode(base));
    const sealed = (message: Partial<InferRequestMessage>) =>
      Buffer.concat([codecs.inferRequest.encode(message), checksum.seal(crc)]);
    const damaged: Partial<InferRequestMessage>[] = [
      { raw_input_contents: [bytes.map((byte, i) => byte ^ (i === 0 ? 1 : 0))] },
      { model_name: 'f'.repeat(64) },
      { inputs: [{ ...input, shape: [2, 1] }] },
      { parameters: { timeout: { int64_param: 1 } } },
    ];
    await t.infer(double.name);

    const replies: { code: string | undefined; id: string | undefined; fits: boolean }[] = [];
    let wake = () => {};
    const call = t.channel.duplex(METHODS.modelStreamInfer, {
      onMessage: message => {
        const { infer_response: response } = codecs.streamResponse.decode(message);
        const code = response?.parameters?.['kofn_code']?.string_param;
        replies.push({ code, id: response?.id, fits: checksum.fits(message, crc) });
        wake();
      },
      onEnd: () => wake(),
    });
    const replied = async (count: number) => {
      while (replies.length < count) await new Promise<void>(resolve => (wake = resolve));
    };
    for (const [index, change] of damaged.entries()) {
      await call.send(sealed({ ...base, ...change }));
      await replied(index + 1);
    }
    t.engine.hold();
    await call.send(sealed(base));
    await t.engine.started(2);
    await call.send(sealed({ id: '5', parameters: { kofn_cancel: { bool_param: true } } })); // not its checksum
    await t.client.live(); // by now the cancel frame, sent before on the same connection, has been read
    t.engine.release();
    await replied(5);
    const error = { code: 'DATA_LOSS', id: '5', fits: false };
    assert.deepEqual(replies, [error, error, error, error, { code: undefined, id: '5', fits: true }]);
    assert.equal(t.engine.runs.length, 2);
    call.end();
  });

  it('keeps nothing of a put that stops half-way', async () => {
    await using t = await startRunning();
    const controller = new AbortController();
    const stopped = t.client.put(double, {
      signal: controller.signal,
      onProgress: sent => {
        if (sent > 2 ** 20) controller.abort(new KofnError('CANCELLED', 'changed my mind'));
      },
    });
    await assert.rejects(stopped, { code: 'CANCELLED', message: 'changed my mind' });
    await assert.rejects(t.client.put({ ...double, name: triple.name }), { code: 'DATA_LOSS' });
    await assert.rejects(t.channel.clientStream(METHODS.put, only(codecs.putRequest.encode({ data: Buffer.of(1) }))), {
      code: 'PROTOCOL',
    });
    // The store writes to disk; its folder is empty once the last of the aborted put is undone.
    const left = async () => (await readdir(t.worker.dataDir, { recursive: true })).sort();
    while ((await left()).some(file => file.startsWith(`tmp${path.sep}`))) await t.client.live();
    assert.deepEqual(await left(), ['shards', 'tmp', 'worker-id', 'worker.pid']);
    assert.deepEqual((await t.client.inventory()).shards, []);
  });

  it('never runs a shard with a flipped bit, and takes it again', async () => {
    await using t = await startRunning();
    await t.client.put(double);
    const file = path.join(t.worker.dataDir, 'shards', double.name, 'weights.bin');
    const bytes = await readFile(file);
    bytes[1000]! ^= 0x10;
    await writeFile(file, bytes);
    await assert.rejects(t.infer(double.name), { code: 'DATA_LOSS', message: /put it again/ });
    assert.deepEqual([(await t.client.inventory()).shards, t.engine.opened], [[], []]);
    await t.client.put(double);
    assert.deepEqual(await t.infer(double.name), [2, 4]);
  });

  it('answers over its limits with RESOURCE_EXHAUSTED and lives on', async () => {
    await using t = await startRunning({ maxMessageBytes: 2 ** 21, maxDiskBytes: 6e6, maxMemoryBytes: 6e6 });
    await t.client.put(double);
    const large = float32([2 ** 20], new Float32Array(2 ** 20));
    await assert.rejects(t.client.infer({ model: double.name, inputs: { x: large } }), { code: 'RESOURCE_EXHAUSTED' });
    const other = scaleShard(7, new Uint8Array(3 * 2 ** 20));
    await assert.rejects(t.client.put(other), { code: 'RESOURCE_EXHAUSTED', message: /--max-disk/ });
    await t.client.remove([double.name]);
    const unopenable = scaleShard(7, new Uint8Array(4 * 2 ** 20));
    await assert.rejects(t.client.put(unopenable), { code: 'RESOURCE_EXHAUSTED', message: /--max-memory/ });
    await t.client.put(triple);
    assert.deepEqual(await t.infer(triple.name), [3, 6]);
  });

  it('drains: answers what it took, refuses what is new, ends the streams', async () => {
    await using t = await startRunning();
    await t.client.put(double);
    await t.infer(double.name);
    t.engine.hold();
    const [running, waiting] = [t.infer(double.name), t.infer(double.name)];
    await t.engine.started(2);
    while (t.worker.server.queue.waiting === 0) await t.client.live();
    const closed = t.worker.close();
    // On the stream that is open, while it drains: an answer at once, not when the drain is over.
    await assert.rejects(t.infer(double.name), { code: 'UNAVAILABLE', message: /ask another/ });
    t.engine.release();
    assert.deepEqual(
      [await running, await waiting],
      [
        [2, 4],
        [2, 4],
      ],
    );
    await closed;
    await assert.rejects(t.infer(double.name), { code: 'UNAVAILABLE' });
  });

  it('keeps its shards and its id when it starts again', async () => {
    await using t = await startRunning();
    await t.client.put(double);
    const before = await t.client.inventory();
    const { dataDir } = t.worker;
    await t.worker.close();
    await using again = await startWorker({ listen: '127.0.0.1:0', dataDir }, { engine: new ScaleEngine() });
    await using channel = connectChannel(again.address);
    const client = await WorkerClient.open(channel);
    const after = await client.inventory();
    assert.deepEqual([after.shards, after.workerId], [before.shards, before.workerId]);
    assert.deepEqual(valuesOf((await client.infer({ model: double.name, inputs: { x } })).outputs), [2, 4]);
  });

  it('says which port is taken', async () => {
    await using t = await startRunning();
    const dataDir = path.join(t.worker.dataDir, 'second');
    const second = startWorker({ listen: t.worker.address, dataDir }, { engine: new ScaleEngine() });
    await assert.rejects(second, { code: 'ADDRESS_IN_USE', message: new RegExp(t.worker.address) });
    assert.deepEqual((await readdir(dataDir)).sort(), ['shards', 'tmp', 'worker-id']); // the lock is given back
  });
});

async function* only(message: Uint8Array): AsyncGenerator<Uint8Array> {
  yield await Promise.resolve(message);
}
