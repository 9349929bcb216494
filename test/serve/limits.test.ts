/** Too much, too late, too slow: what a server does with requests that it cannot take, and with clients that are no good. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect as dial, type Socket } from 'node:net';
import type { ServiceError } from '@grpc/grpc-js';
import type { Tensor } from '@kofn/core';
import type { EndedRequest } from '@kofn/master/serve';
import { after, before, describe, it } from 'mocha';
import { inferenceClient } from '../support/inference-client.js';
import { mlp, ModelFolder, rows } from '../support/served-models.js';
import { serving, type Serving } from '../support/serving.js';

const HALF_OPEN = 1_000;

describe('a server at its limits', () => {
  const folder = new ModelFolder();
  const { x } = rows(1, 7) as { x: Tensor };
  const body = { inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 16], data: [...x.data] }] };
  const message = {
    modelName: 'mlp',
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1, 16], contents: { fp32Contents: [...x.data] } }],
  };
  let t: Serving;
  let ended: EndedRequest[];

  before(async () => {
    const models = [{ name: 'mlp', version: '1', file: folder.write('mlp.onnx', mlp(1)) }];
    t = await serving({ models, maxRunning: 1, maxQueue: 1, clientTimeoutMs: 1_000 });
    ended = [];
    t.running.server.onEnded(request => ended.push(request));
  });
  after(async () => {
    await t[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const infer = (more: object = {}, signal?: AbortSignal) =>
    t.post('/v2/models/mlp/infer', { ...body, ...more }, {}, signal);

  /** Workers stand still: requests wait. */
  function hold(): Disposable {
    for (const worker of [0, 1, 2]) t.workers.pause(worker);
    return { [Symbol.dispose]: () => [0, 1, 2].forEach(worker => t.workers.resume(worker)) };
  }

  async function until(isIt: () => boolean): Promise<void> {
    while (!isIt()) await new Promise(resolve => setImmediate(resolve));
  }
  const load = () => t.running.server.load();

  it('refuses what the queue cannot take, says when to come again, and answers what it took', async () => {
    const client = inferenceClient(t.grpc);
    let taken: Promise<unknown>[];
    {
      using _held = hold();
      taken = [infer(), infer()];
      await until(() => load().running === 1 && load().queued === 1);
      const refused = await infer();
      assert.equal(refused.status, 429, refused.body.toString());
      assert.match(String(refused.json['error']), /1 requests wait already.*--max-queue/);
      assert.ok(Number(refused.headers['retry-after']) >= 1);
      const error = await client.call('modelInfer', message).then(
        () => assert.fail('it was taken'),
        (failure: ServiceError) => failure,
      );
      assert.equal(error.code, 8);
      assert.ok(Number(error.metadata.get('grpc-retry-pushback-ms')[0]) >= 100);
    }
    for (const reply of await Promise.all(taken)) assert.equal((reply as { status: number }).status, 200);
    client.close();
  });

  it('ends requests by their deadline, in the queue and under way, and has those go whose client is gone', async () => {
    using _held = hold();
    const late = infer({ id: 'late', parameters: { timeout: 50_000 } });
    await until(() => load().running === 1);
    const queued = infer({ id: 'queued', parameters: { timeout: 20_000 } });
    assert.deepEqual([(await queued).status, (await late).status], [504, 504]);
    const controller = new AbortController();
    const cancelled = infer({ id: 'cancelled' }, controller.signal).catch(() => undefined);
    await until(() => load().running === 1);
    controller.abort();
    await cancelled;
    await until(() => load().running === 0);
    const errors = new Map(ended.map(({ id, error }) => [id, error]));
    assert.deepEqual(
      ['queued', 'late', 'cancelled'].map(id => errors.get(id)),
      ['DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED', 'CANCELLED'],
    );
  });

  it('has a request of a stream cancelled by its id, and refuses an id that is taken', async () => {
    using _held = hold();
    const client = inferenceClient(t.grpc);
    const stream = client.stream();
    const replies: { errorMessage: string; inferResponse: { id: string } }[] = [];
    stream.on('data', (reply: (typeof replies)[number]) => replies.push(reply));
    stream.write({ ...message, id: 'a' });
    await until(() => load().running === 1);
    stream.write({ ...message, id: 'a' });
    stream.write({ id: 'a', parameters: { kofn_cancel: { boolParam: true } } });
    stream.end();
    await once(stream, 'end');
    assert.deepEqual(
      replies.map(({ errorMessage, inferResponse }) => [inferResponse.id, /taken|cancelled/.exec(errorMessage)?.[0]]),
      [
        ['a', 'taken'],
        ['a', 'cancelled'],
      ],
    );
    client.close();
  });

  it('lets a thousand half-open connections and clients that never read hold up nobody', async () => {
    const sockets: Socket[] = [];
    const open = async (address: string, first: string) => {
      const [host, port] = address.split(':');
      const socket = dial({ host: host!, port: Number(port) });
      sockets.push(socket);
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      socket.write(first);
      return socket;
    };
    try {
      const cut = await open(
        t.http,
        `POST /v2/models/mlp/infer HTTP/1.1\r\nHost: ${t.http}\r\nContent-Length: 99\r\n\r\n{`,
      );
      const answered = once(cut, 'data') as Promise<[Buffer]>;
      await Promise.all(
        Array.from({ length: HALF_OPEN - 2 }, (_, i) =>
          i % 2 === 0
            ? open(t.http, 'POST /v2/models/mlp/infer HTTP/1.1\r\nHost: ')
            : open(t.grpc, 'PRI * HTTP/2.0\r\n'),
        ),
      );
      // Each asks for hundreds of answers and reads none.
      const silent = await open(t.http, '');
      silent.pause();
      silent.write(`GET /v2/models/mlp HTTP/1.1\r\nHost: ${t.http}\r\n\r\n`.repeat(2_000));
      const deaf = inferenceClient(t.grpc);
      const unread = deaf.stream();
      unread.on('error', () => undefined);
      for (let i = 0; i < 400; i++) unread.write({ modelName: `none ${i}` });
      const client = inferenceClient(t.grpc);
      for (let request = 0; request < 5; request++) {
        assert.equal((await infer()).status, 200);
        await client.call('modelInfer', message);
      }
      client.close();
      unread.cancel();
      deaf.close();
      const [reply] = await answered;
      assert.match(reply.toString(), /^HTTP\/1\.1 408 [^]*\{"error":"the request did not come in time"\}$/);
      assert.ok(cut.destroyed || (await once(cut, 'close')));
    } finally {
      for (const socket of sockets) socket.destroy();
    }
  });

  it('refuses what is no HTTP, and answers the next', async () => {
    const [host, port] = t.http.split(':');
    const cases: [string, RegExp][] = [
      ['hello\r\n\r\n', /^HTTP\/1\.1 400 [^]*\{"error":"this is not HTTP\/1\.1: Invalid method encountered"\}$/],
      ['POST /v2 HTTP/1.1\r\nContent-Length: -2\r\n\r\n{}', /^HTTP\/1\.1 400 [^]*Invalid character in Content-Length/],
      [
        'POST /v2 HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n',
        /^HTTP\/1\.1 400 [^]*Transfer-Encoding/,
      ],
      ['POST /v2 HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}', /^HTTP\/1\.1 400 [^]*Content-Length/],
      [`GET /v2 HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, /^HTTP\/1\.1 431 [^]*"the headers are too large"/],
    ];
    for (const [text, words] of cases) {
      const socket = dial({ host: host!, port: Number(port) });
      socket.write(text);
      const [reply] = (await once(socket, 'data')) as [Buffer];
      assert.match(reply.toString(), words);
      socket.destroy();
    }
    assert.equal((await infer()).status, 200);
  });

  it('is not ready while a layer has fewer than k workers', async () => {
    assert.equal((await t.get('/v2/health/ready')).status, 200);
    const lost = new Promise<void>(resolve => {
      const stop = t.cluster.onFleetChange(fleet => {
        if (fleet.filter(({ state }) => state !== 'ready').length < 2) return;
        stop();
        resolve();
      });
    });
    await Promise.all([t.workers.kill(0), t.workers.kill(1)]);
    await lost;
    assert.equal((await t.get('/v2/health/ready')).status, 503);
    assert.equal((await t.get('/v2/models/mlp/ready')).status, 503);
    assert.equal((await infer()).status, 200); // the master computes what is missing
  });

  it('drains: answers what it took, refuses the rest, and says so', async () => {
    const client = inferenceClient(t.grpc);
    let taken: Promise<{ status: number }>;
    let drained: Promise<void>;
    t.workers.pause(2);
    try {
      taken = infer();
      await until(() => load().running === 1);
      drained = t.running.drain();
      const error = await client.call('modelInfer', message).then(
        () => assert.fail('it was taken'),
        (failure: ServiceError) => failure,
      );
      assert.equal(error.code, 14);
    } finally {
      t.workers.resume(2);
    }
    assert.equal((await taken).status, 200);
    await drained;
    await assert.rejects(t.get('/v2/health/live'));
    client.close();
  });
});
