/** Who may use a server: token, TLS, pages of other sites, and where it may listen at all. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { credentials, type ServiceError } from '@grpc/grpc-js';
import type { ServerOptions } from '@kofn/master/serve';
import { after, before, describe, it } from 'mocha';
import { needDebian } from '../support/debian.js';
import { inferenceClient } from '../support/inference-client.js';
import { mlp, ModelFolder } from '../support/served-models.js';
import { serving, type Serving } from '../support/serving.js';

const TOKEN = 'correct-horse-battery-staple';

describe('access to a server', () => {
  const folder = new ModelFolder();
  let t: Serving;
  let model: ServerOptions['models'][number];

  before(async () => {
    model = { name: 'mlp', version: '1', file: folder.write('mlp.onnx', mlp(1)) };
    t = await serving({ models: [model], token: TOKEN }, 2);
  });
  after(async () => {
    await t[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  it('asks for its token over HTTP, but where only health is asked for', async () => {
    const ask = async (authorization?: string, path = '/v2') => {
      const headers = authorization === undefined ? {} : { authorization };
      const response = await fetch(`http://${t.http}${path}`, { headers });
      return { status: response.status, text: await response.text(), asks: response.headers.get('www-authenticate') };
    };
    assert.equal((await ask(`Bearer ${TOKEN}`)).status, 200);
    for (const wrong of [undefined, TOKEN, `Bearer ${TOKEN}x`, 'Bearer', `Basic ${TOKEN}`]) {
      const { status, text, asks } = await ask(wrong);
      assert.deepEqual([status, asks, text.includes(TOKEN)], [401, 'Bearer', false], String(wrong));
    }
    assert.equal((await ask(undefined, '/v2/repository/models/mlp/unload')).status, 401); // also where there is no such route
    assert.equal((await ask(undefined, '/v2/health/ready')).status, 200);
    const statusOf = async (method: string, path: string) =>
      (await fetch(`http://${t.http}${path}`, { method })).status;
    assert.equal(await statusOf('HEAD', '/v2/health/ready'), 200);
    for (const method of ['HEAD', 'OPTIONS', 'DELETE']) assert.equal(await statusOf(method, '/v2'), 401, method);
  });

  it('asks for its token over gRPC, on calls and streams, but where only health is asked for', async () => {
    const client = inferenceClient(t.grpc);
    try {
      assert.equal((await client.call('serverLive', {}, { authorization: `Bearer ${TOKEN}` }))['live'], true);
      for (const wrong of [{}, { authorization: TOKEN }, { authorization: 'Bearer wrong' }]) {
        const error = await client
          .call('repositoryModelUnload', { modelName: 'mlp' }, wrong as Record<string, string>)
          .then(
            () => assert.fail('it was let in'),
            (failure: ServiceError) => failure,
          );
        assert.deepEqual([error.code, error.message.includes(TOKEN)], [16, false]);
      }
      const stream = client.stream();
      const failed = new Promise<ServiceError>(resolve => stream.on('error', resolve));
      stream.write({ modelName: 'mlp' });
      assert.equal((await failed).code, 16);
    } finally {
      client.close();
    }
    assert.equal(t.running.server.isModelReady('mlp', ''), true);
  });

  it('has headers that keep a page to itself, and lets no page of another site in', async () => {
    const html = await serving({ models: [], grpc: undefined }, 1, app => {
      app.get('/', (_request, reply) => reply.type('text/html').send('<!doctype html>'));
    });
    try {
      const ask = (headers: Record<string, string>) => fetch(`http://${html.http}/v2`, { headers });
      const own = await ask({ origin: `http://${html.http}` });
      assert.deepEqual([own.status, own.headers.get('x-content-type-options')], [200, 'nosniff']);
      const page = await fetch(`http://${html.http}/`);
      assert.match(page.headers.get('content-security-policy')!, /^default-src 'none'; .*frame-ancestors 'none'$/);
      for (const origin of ['http://evil.example', 'null']) assert.equal((await ask({ origin })).status, 403);
      const rebound = await new Promise<string>((resolve, reject) =>
        httpRequest(`http://${html.http}/v2`, { headers: { host: 'evil.example' } }, reply =>
          reply.setEncoding('utf8').once('data', resolve),
        )
          .on('error', reject)
          .end(),
      );
      assert.match(rebound, /"error":"this server listens on 127\.0\.0\.1 and is not evil\.example/);
    } finally {
      await html[Symbol.asyncDispose]();
    }
  });

  it('listens beyond loopback only with token and TLS, or when told that it is meant', async () => {
    const open = { host: '0.0.0.0', port: 0 };
    const start = (options: Partial<ServerOptions>) => serving({ models: [], grpc: undefined, ...options }, 1);
    await assert.rejects(start({ http: open }), {
      code: 'INVALID_ARGUMENT',
      message: /--http 0\.0\.0\.0 is open.*--token-file.*--tls-cert.*--insecure/,
    });
    await assert.rejects(start({ grpc: open, token: TOKEN }), {
      code: 'INVALID_ARGUMENT',
      message: /--grpc 0\.0\.0\.0.*takes TLS/,
    });
    await assert.rejects(start({ token: 'short' }), { message: /5 characters/ });
    const warnings: string[] = [];
    await using _insecure = await start({ http: open, insecure: true, onWarning: text => warnings.push(text) });
    assert.match(
      warnings.join(),
      /--http 0\.0\.0\.0 is open to the network without a token.*whoever reaches it can use it/,
    );
  });

  it('speaks TLS on both ports', async function () {
    needDebian(this, { openssl: spawnSync('openssl', ['version']).status === 0 });
    const [key, cert] = [folder.path('key.pem'), folder.path('cert.pem')];
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1', '-keyout', key, '-out', cert, ...subject], { stdio: 'ignore' }); // prettier-ignore
    const tls = { cert: readFileSync(cert), key: readFileSync(key) };
    await using secure = await serving({ models: [], tls, token: TOKEN }, 1);
    const headers = { authorization: `Bearer ${TOKEN}` };
    const local = (address: string) => address.replace('127.0.0.1', 'localhost');
    const status = await new Promise((resolve, reject) =>
      httpsRequest(`https://${local(secure.http)}/v2`, { ca: tls.cert, headers }, reply =>
        resolve(reply.resume().statusCode),
      )
        .on('error', reject)
        .end(),
    );
    assert.equal(status, 200);
    const client = inferenceClient(local(secure.grpc), credentials.createSsl(tls.cert));
    assert.equal((await client.call('serverLive', {}, headers))['live'], true);
    client.close();
    await assert.rejects(fetch(`http://${secure.http}/v2`)); // nothing in the clear
  });
});
