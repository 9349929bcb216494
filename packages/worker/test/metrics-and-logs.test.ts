/** What a worker tells of itself: `--metrics` to Prometheus, `--log-level` to a log. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { request, type IncomingMessage } from 'node:http';
import { describe, it } from 'mocha';
import { connectChannel, EncodedInputs, WorkerClient } from '@kofn/wire';
import { createLogger } from '../src/process/logs.js';
import { resolveOptions } from '../src/options.js';
import { startWorker } from '../src/start.js';
import { denseShard, startChild } from './support/child.js';
import { temporaryFolder } from './support/temporary.js';

interface Line {
  readonly level: string;
  readonly time: string;
  readonly name: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

function linesOf(log: string): Line[] {
  return log
    .trim()
    .split('\n')
    .map(line => JSON.parse(line) as Line);
}

async function ask(url: string, method = 'GET') {
  const sent = request(url, { method, agent: false }).end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  return { status: response.statusCode, type: response.headers['content-type'], body: await text(response) };
}

describe('kofn worker --metrics --log-level', () => {
  it('answers GET /metrics until it has drained, and logs as JSON', async () => {
    await using child = await startChild(['--json', '--metrics', '127.0.0.1:0', '--log-level', 'debug']);
    const { address, metrics } = JSON.parse(await child.firstLine) as { address: string; metrics: string };
    await using channel = connectChannel(address);
    const client = await WorkerClient.open(channel);
    const { shard, input } = denseShard(64, 8, 11);
    await client.put(shard, { owner: { cluster: 'c', model: 'fashion', version: 1 } });
    await client.infer({ model: shard.name, inputs: new EncodedInputs({ x: input(3) }, { requestId: 'picture 7' }) });

    const { status, type, body } = await ask(`http://${metrics}/metrics`);
    assert.deepEqual([status, type], [200, 'text/plain; version=0.0.4; charset=utf-8']);
    for (const sample of [
      'kofn_worker_requests_total{outcome="finished"} 1',
      'kofn_worker_engine_duration_seconds_count 1',
      'kofn_worker_queue_duration_seconds_count 1',
      'kofn_worker_serving 1',
      'kofn_worker_queue_limit 64',
      `kofn_worker_shard_bytes ${shard.model.byteLength + shard.weights.byteLength}`,
    ]) {
      assert.ok(body.split('\n').includes(sample), `${sample}\n${body}`);
    }
    const bytesOf = (name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(body)?.[1]);
    const [free, size] = ['available', 'size'].map(what => bytesOf(`kofn_worker_disk_${what}_bytes`));
    assert.ok(free! > 0 && free! < size!, `${free} of ${size}`);
    assert.match(body, /^nodejs_eventloop_lag_p99_seconds \d/m);
    assert.equal((await ask(`http://${metrics}/`)).status, 404);
    assert.equal((await ask(`http://${metrics}/metrics`, 'POST')).status, 405);
    assert.deepEqual(await ask(`http://${metrics}/metrics`, 'HEAD'), { status, type, body: '' });

    await using folder = await temporaryFolder();
    await assert.rejects(startWorker({ listen: '127.0.0.1:0', dataDir: folder.path, metrics }), {
      code: 'ADDRESS_IN_USE',
      message: /^--metrics 127\.0\.0\.1:\d+: .*choose another address or port$/,
    });

    child.process.kill('SIGTERM');
    const { code, stderr } = await child.ended;
    assert.equal(code, 0, stderr);
    await assert.rejects(ask(`http://${metrics}/metrics`), { code: 'ECONNREFUSED' });
    const lines = linesOf(stderr);
    assert.ok(lines.every(({ name, time }) => name === 'kofn worker' && !Number.isNaN(Date.parse(time))));
    const [listening, took, inference, ...end] = lines;
    assert.deepEqual([listening!.msg, listening!['address'], listening!['shards']], ['listening', address, 0]);
    assert.deepEqual([took!.msg, took!['shard'], took!['model']], ['took a shard', shard.name, 'fashion']);
    assert.deepEqual([inference!.msg, inference!.level], ['inference', 'debug']);
    assert.deepEqual([inference!['request'], inference!['shard']], ['picture 7', shard.name]);
    assert.match(end.map(({ msg }) => msg).join(), /^SIGTERM: finishing what runs.*finished after \d+ ms$/);
  });

  it('says what is wrong with them', () => {
    assert.throws(() => resolveOptions({ metrics: 'here' }), {
      code: 'INVALID_ARGUMENT',
      message: /^--metrics: "here" has no port; give one port from 0 to 65535: here:PORT$/,
    });
    assert.throws(() => createLogger('test', 'loud'), {
      code: 'INVALID_ARGUMENT',
      message: /^--log-level loud: must be one of silent, .*debug/,
    });
  });

  it('logs no request at level info, and no secret ever', () => {
    let written = '';
    const sink = new Writable({ write: (chunk, _encoding, done) => done(void (written += String(chunk))) });
    const logger = createLogger('test', 'info', sink);
    logger.debug({ id: '1' }, 'inference');
    const headers = { authorization: 'Bearer hidden', host: 'here' };
    logger.info({ token: 'hidden', headers, request: { headers } }, 'secrets');
    const [line, ...others] = linesOf(written);
    assert.deepEqual(others, []);
    assert.deepEqual(
      [line!.msg, line!['token'], line!['headers']],
      ['secrets', '[Redacted]', { ...headers, authorization: '[Redacted]' }],
    );
    assert.ok(!written.includes('hidden'), written);
  });
});
