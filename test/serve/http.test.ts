/** HTTP itself, on every route of a server: methods, codings of bodies and answers, and what is said before a body is read. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect as dial } from 'node:net';
import { brotliCompressSync, brotliDecompressSync, deflateSync, gunzipSync, gzipSync, inflateSync } from 'node:zlib';
import type { Tensor } from '@kofn/core';
import { registerPage } from '@kofn/master/serve';
import { after, before, describe, it } from 'mocha';
import { mlp, ModelFolder, rows } from '../support/served-models.js';
import { serving, type Serving } from '../support/serving.js';

const MAX_BYTES = 100_000;
/** As long as a name may be. */
const LONG = 'm'.repeat(128);

interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

describe('a server over HTTP', () => {
  const folder = new ModelFolder();
  const { x } = rows(100, 7) as { x: Tensor };
  const inputs = [{ name: 'x', datatype: 'FP32', shape: [100, 16], data: [...x.data] }];
  const json = Buffer.from(JSON.stringify({ inputs }));
  let t: Serving;
  /** Of every GET that there is. */
  const paths: string[] = [];

  before(async () => {
    const file = folder.write('mlp.onnx', mlp(1));
    const models = [
      { name: 'mlp', version: '1', file },
      { name: LONG, version: '1', file },
    ];
    t = await serving({ models, maxMessageBytes: MAX_BYTES }, 3, (app, view) => {
      app.addHook('onRoute', ({ method, url }) => {
        if (method === 'GET') paths.push(url.replace(':model', 'mlp').replace(':version', '1'));
      });
      registerPage(app, view, { faults: { act: () => Promise.resolve() } });
    });
    paths.push('/metrics'); // it was there before
  });
  after(async () => {
    await t[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  /** As it comes: fetch would undo codings, and asks for some by itself. */
  async function ask(
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body?: Buffer,
  ): Promise<Answer> {
    const [host, port] = t.http.split(':');
    const sent = httpRequest({ host, port, method, path, headers, agent: false });
    sent.end(body);
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    return { status: response.statusCode!, headers: response.headers, body: Buffer.concat(chunks) };
  }
  const infer = (headers: Record<string, string>, body: Buffer) => ask('POST', '/v2/models/mlp/infer', headers, body);
  const errorOf = ({ body }: Answer) => (JSON.parse(body.toString()) as { error: string }).error;

  it('answers HEAD as GET, without the body, wherever GET is', async () => {
    assert.ok(
      ['/', '/kofn/v1/events', '/v2/models/mlp/ready'].every(path => paths.includes(path)),
      paths.join(),
    );
    assert.ok(paths.length > 12, paths.join());
    for (const path of paths) {
      const head = await ask('HEAD', path);
      assert.deepEqual([head.status, head.body.length], [200, 0], path);
      if (path === '/kofn/v1/events') {
        assert.match(head.headers['content-type']!, /event-stream/);
        continue; // a GET of it has no end
      }
      const get = await ask('GET', path);
      assert.equal(get.status, 200, path);
      for (const name of ['content-type', 'cache-control', 'content-security-policy']) {
        assert.equal(head.headers[name], get.headers[name], `${path}: ${name}`);
      }
      // What grows from one to the next is as long as it was then.
      if (!['/metrics', '/kofn/v1/state'].includes(path)) {
        assert.equal(head.headers['content-length'], String(get.body.length), path);
      }
    }
    for (const path of ['/nothing', '/v2/models/none', '/v2/models/mlp/versions/7']) {
      assert.deepEqual([(await ask('HEAD', path)).status, (await ask('GET', path)).status], [404, 404]);
    }
  });

  it('says which methods a path takes', async () => {
    const cases: [string, string, string][] = [
      ['POST', '/v2', 'GET, HEAD, OPTIONS'],
      ['DELETE', '/v2/models/mlp', 'GET, HEAD, OPTIONS'],
      ['PUT', '/metrics', 'GET, HEAD, OPTIONS'],
      ['POST', '/', 'GET, HEAD, OPTIONS'],
      ['GET', '/v2/models/mlp/versions/1/infer', 'POST, OPTIONS'],
      ['HEAD', '/v2/models/mlp/infer', 'POST, OPTIONS'],
      ['GET', '/v2/repository/index', 'POST, OPTIONS'],
      ['GET', '/kofn/v1/faults?x=1', 'POST, OPTIONS'],
    ];
    for (const [method, path, allow] of cases) {
      const refused = await ask(method, path, { 'content-type': 'text/none' });
      assert.deepEqual([refused.status, refused.headers.allow], [405, allow], `${method} ${path}`);
      if (method !== 'HEAD') assert.match(errorOf(refused), new RegExp(`there is no ${method} .*; it takes ${allow}`));
      const options = await ask('OPTIONS', path);
      assert.deepEqual([options.status, options.headers.allow, options.body.length], [204, allow, 0]);
    }
    assert.equal((await ask('OPTIONS', '*')).headers.allow, 'GET, HEAD, POST, OPTIONS');
    for (const method of ['GET', 'POST', 'OPTIONS', 'PROPFIND']) {
      const none = await ask(method, '/v2/models/mlp/nothing', { 'content-type': 'text/none' });
      assert.deepEqual([none.status, none.headers.allow], [404, undefined], method);
      assert.match(errorOf(none), /there is no/);
    }
  });

  it('has every error as JSON, whatever is in the path', async () => {
    assert.equal((await ask('GET', `/v2/models/${LONG}`)).status, 200);
    assert.match(errorOf(await ask('GET', `/v2/models/${'n'.repeat(5000)}`)), /there is no model "n{128}"/);
    const bad = await ask('GET', '/v2/models/%zz');
    assert.deepEqual([bad.status, /not a valid url/.test(errorOf(bad))], [400, true]);
    const expected = await ask('POST', '/v2/models/mlp/infer', { expect: 'a miracle' }, json);
    assert.deepEqual([expected.status, /Expect a miracle/.test(errorOf(expected))], [417, true]);
    const transferred = await infer({ 'transfer-encoding': 'gzip, chunked' }, gzipSync(json));
    assert.deepEqual([transferred.status, /Transfer-Encoding gzip, chunked/.test(errorOf(transferred))], [501, true]);
    assert.equal((await infer({ 'transfer-encoding': 'chunked' }, json)).status, 200);
  });

  it('reads bodies in gzip, deflate and br, one upon the other, on every route that takes one', async () => {
    const plain = (await infer({}, json)).body.length;
    const cases: [string, Buffer][] = [
      ['gzip', gzipSync(json)],
      ['x-gzip', gzipSync(json)],
      ['deflate', deflateSync(json)],
      ['br', brotliCompressSync(json)],
      ['identity', json],
      ['gzip, deflate', deflateSync(gzipSync(json))],
    ];
    for (const [coding, body] of cases) {
      const { status, body: answer } = await infer({ 'content-encoding': coding }, body);
      assert.equal(status, 200, `${coding}: ${answer.toString()}`);
      assert.ok(Math.abs(answer.length - plain) < 200);
    }
    // The length of the JSON is that of what was compressed.
    const head = Buffer.from(
      JSON.stringify({ inputs: [{ ...inputs[0], data: undefined, parameters: { binary_data_size: 6400 } }] }),
    );
    const whole = gzipSync(Buffer.concat([head, Buffer.from((x.data as Float32Array).buffer)]));
    const headers = { 'content-encoding': 'gzip', 'inference-header-content-length': String(head.length) };
    assert.equal((await infer(headers, whole)).status, 200);
    const ready = gzipSync('{"ready": true}');
    assert.equal((await ask('POST', '/v2/repository/index', { 'content-encoding': 'gzip' }, ready)).status, 200);
    const fault = { 'content-encoding': 'gzip', 'content-type': 'application/json' };
    const killed = await ask('POST', '/kofn/v1/faults', fault, gzipSync('{"worker": 0, "action": "kill"}'));
    assert.deepEqual([killed.status, killed.body.toString()], [200, '{"worker":0,"action":"kill"}']);
  });

  it('refuses codings that it does not read, and what is not in them, or too large when it is out of them', async () => {
    const zeros = gzipSync(Buffer.alloc(50_000_000));
    const cases: [number, RegExp, string, Buffer][] = [
      [415, /Content-Encoding zstd is not read here.*gzip, deflate, br/, 'zstd', json],
      [415, /is not read here/, 'gzip, compress', json],
      [400, /Content-Encoding says: gzip: incorrect header check/, 'gzip', json],
      [400, /Content-Encoding says: gzip: unexpected end/, 'gzip', gzipSync(json).subarray(0, 100)],
      [400, /no JSON/, 'gzip', gzipSync('no JSON')],
      [413, /too large/, 'gzip', zeros],
      [413, /too large/, 'gzip, gzip', gzipSync(zeros)],
      [413, /too large/, 'identity', Buffer.alloc(MAX_BYTES + 1)],
    ];
    for (const [status, words, coding, body] of cases) {
      const refused = await infer({ 'content-encoding': coding }, body);
      assert.deepEqual(
        [refused.status, words.test(errorOf(refused))],
        [status, true],
        `${coding}: ${errorOf(refused)}`,
      );
      assert.equal(refused.headers['accept-encoding'], status === 415 ? 'gzip, deflate, br' : undefined);
    }
  });

  it('answers in the coding that the client prefers', async () => {
    const decoders = { gzip: gunzipSync, deflate: inflateSync, br: brotliDecompressSync };
    const shape = (bytes: Buffer) =>
      (JSON.parse(bytes.toString()) as { outputs: { shape: number[] }[] }).outputs[0]!.shape;
    for (const [coding, decode] of Object.entries(decoders)) {
      const answer = await infer({ 'accept-encoding': `${coding}, identity;q=0.5` }, json);
      assert.deepEqual([answer.status, answer.headers['content-encoding']], [200, coding]);
      assert.equal(answer.headers['content-length'], String(answer.body.length));
      assert.equal(answer.headers.vary, 'accept-encoding');
      assert.deepEqual(shape(decode(answer.body)), [100, 16]);
      for (const path of ['/metrics', '/kofn/v1/state']) {
        const { headers, body } = await ask('GET', path, { 'accept-encoding': coding });
        assert.equal(headers['content-encoding'], coding);
        assert.ok(decode(body).length > body.length);
      }
    }
    const bytes = Buffer.from((x.data as Float32Array).buffer);
    const binary = await infer({ 'accept-encoding': 'gzip', 'inference-header-content-length': '0' }, bytes);
    const raw = gunzipSync(binary.body);
    const length = Number(binary.headers['inference-header-content-length']); // of what was compressed
    assert.deepEqual([shape(raw.subarray(0, length)), raw.length - length], [[100, 16], 6400]);
    const small = await ask('GET', '/v2', { 'accept-encoding': 'gzip' });
    assert.equal(small.headers['content-encoding'], undefined);
    const forced = await ask('GET', '/v2/models/none', { 'accept-encoding': 'gzip, identity;q=0' });
    assert.match(gunzipSync(forced.body).toString(), /^\{"error":"there is no model/);
    const head = await ask('HEAD', '/', { 'accept-encoding': 'gzip, identity;q=0' });
    const get = await ask('GET', '/', { 'accept-encoding': 'gzip, identity;q=0' });
    assert.deepEqual(
      [head.headers['content-encoding'], head.headers['content-length']],
      ['gzip', String(get.body.length)],
    );
    const none = await infer({ 'accept-encoding': 'zstd, *;q=0' }, json);
    assert.deepEqual([none.status, /leaves no answer/.test(errorOf(none))], [406, true]);
  });

  it('asks for a body, and reads it, only when the rest of the request is good', async () => {
    const [host, port] = t.http.split(':');
    const waiting = async (path: string, length: number, headers = '') => {
      const socket = dial({ host: host!, port: Number(port) });
      try {
        socket.write(
          `POST ${path} HTTP/1.1\r\nHost: ${t.http}\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n${headers}\r\n`,
        );
        const [first] = (await once(socket, 'data')) as [Buffer];
        if (!first.toString().startsWith('HTTP/1.1 100')) return first.toString();
        socket.write(json);
        let text = '';
        while (!text.includes('"outputs"')) text += String((await once(socket, 'data'))[0]);
        return `${first.toString()}${text}`;
      } finally {
        socket.destroy();
      }
    };
    assert.match(
      await waiting('/v2/models/mlp/infer', json.length),
      /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK/,
    );
    for (const [path, length, headers, status] of [
      ['/v2/models/none/infer', 9, '', 404],
      ['/v2/models/mlp/versions/7/infer', 9, '', 404],
      ['/v2/repository/models/none/load', 9, '', 404],
      ['/v2/nothing', 9, '', 404],
      ['/v2', 9, '', 405],
      ['/v2/models/mlp/infer', 9, 'Content-Encoding: zstd\r\n', 415],
      ['/v2/models/mlp/infer', MAX_BYTES + 1, '', 413],
    ] as const) {
      const refused = await waiting(path, length, headers);
      assert.match(refused, new RegExp(`^HTTP/1\\.1 ${status} `));
      assert.match(refused, /\r\nconnection: close\r\n/i);
    }
  });
});
