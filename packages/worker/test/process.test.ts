import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'mocha';
import type { KofnError } from '@kofn/core';
import { connectChannel, shardName, WorkerClient } from '@kofn/wire';
import { FsBlobStore } from '../src/store/fs-blob-store.js';
import { BIN, denseShard, startChild, type Child } from './support/child.js';
import { temporaryFolder } from './support/temporary.js';

async function addressOf(child: Child): Promise<string> {
  const [, address] = /^kofn worker listening on (127\.0\.0\.1:\d+) /.exec(await child.firstLine) ?? [];
  assert.ok(address, await child.firstLine);
  return address;
}

async function clientOf(address: string) {
  const channel = connectChannel(address);
  const client = await WorkerClient.open(channel);
  return { channel, client, [Symbol.asyncDispose]: () => channel[Symbol.asyncDispose]() };
}

/** Longer than DNS has labels: a resolver knows that without asking anybody. */
const NO_NAME = 'x'.repeat(64);

describe('kofn worker as a process', () => {
  it('runs an ONNX shard in ONNX Runtime', async () => {
    await using child = await startChild(['--engine', 'native']);
    await using t = await clientOf(await addressOf(child));
    const { shard, input, expected } = denseShard(64, 8, 11);
    await t.client.put(shard);
    const x = input(3);
    const { outputs } = await t.client.infer({ model: shard.name, inputs: { x } });
    const y = outputs['y']!;
    assert.deepEqual([y.dtype, ...y.shape], ['float32', 3, 8]);
    for (const [i, value] of expected(x.data).entries()) {
      const actual = (y.data as Float32Array)[i]!;
      assert.ok(Math.abs(actual - value) < 1e-4, `y[${i}] = ${actual}, expected ${value}`);
    }
    await assert.rejects(t.client.infer({ model: shard.name, inputs: { z: x } }), { code: 'INVALID_ARGUMENT' });
    assert.equal((await t.client.inventory()).engine, 'native');
  });

  it('refuses a shard that is no ONNX model, and lives on', async () => {
    await using child = await startChild();
    await using t = await clientOf(await addressOf(child));
    const [model, weights] = [Buffer.from('not a model'), Buffer.alloc(10)];
    const name = shardName(model, weights);
    await t.client.put({ name, model, weights });
    await assert.rejects(t.client.infer({ model: name, inputs: {} }), { code: 'INVALID_MODEL' });
    const { shard, input } = denseShard(4, 2, 1);
    await t.client.put(shard);
    await t.client.infer({ model: shard.name, inputs: { x: input(1) } });
  });

  it('with --json the first line is one JSON object', async () => {
    await using child = await startChild(['--json', '--engine', 'wasm']);
    const line = JSON.parse(await child.firstLine) as Record<string, unknown>;
    assert.deepEqual(Object.keys(line), ['address', 'pid', 'dataDir', 'engine', 'version']);
    assert.equal(line['pid'], child.process.pid);
    assert.equal(line['dataDir'], child.dataDir);
    assert.match(String(line['engine']), /^wasm \d/);
    await using t = await clientOf(String(line['address']));
    assert.equal(await t.client.live(), true);
  });

  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    it(`drains on ${signal}: what runs is answered, then it exits 0`, async () => {
      await using child = await startChild();
      await using t = await clientOf(await addressOf(child));
      const { shard, input } = denseShard(1024, 1024, 2);
      await t.client.put(shard);
      const broken = new Promise<KofnError>(resolve => t.channel.onBroken(resolve));
      await t.channel.ready({ deadlineMs: 10_000 });
      const running = t.client.infer({ model: shard.name, inputs: { x: input(256) } });
      await t.client.live(); // later on the same connection: the request has been read
      child.process.kill(signal);
      assert.deepEqual([...(await running).outputs['y']!.shape], [256, 1024]);
      await broken;
      const { code, stderr, stdout } = await child.ended;
      assert.equal(code, 0, stderr);
      assert.match(stderr, new RegExp(`${signal}: finishing what runs`));
      assert.equal(stdout.trim().split('\n').length, 1);
    });
  }

  it('ends at once on the second signal', async () => {
    await using child = await startChild();
    await using t = await clientOf(await addressOf(child));
    const { shard, input } = denseShard(1024, 2048, 3);
    await t.client.put(shard);
    const x = input(512);
    const running = [1, 2, 3, 4].map(() => t.client.infer({ model: shard.name, inputs: { x } }));
    const outcomes = Promise.allSettled(running);
    await t.client.live();
    const told = once(child.process.stderr, 'data');
    child.process.kill('SIGTERM');
    await told;
    child.process.kill('SIGINT');
    const { code, signal } = await child.ended;
    assert.deepEqual([code, signal], [null, 'SIGKILL']);
    await outcomes;
  });

  it('ends with its standard input when told to', async () => {
    await using child = await startChild(['--exit-with-parent']);
    await addressOf(child);
    child.process.stdin.end();
    assert.notEqual((await child.ended).code, 0);
  });

  it('leaves no orphan when its parent is killed with SIGKILL', async () => {
    await using folder = await temporaryFolder();
    const args = [
      BIN,
      '--listen',
      '127.0.0.1:0',
      '--data-dir',
      folder.path,
      '--exit-with-parent',
      '--json',
      '--log-level',
      'warn',
    ];
    const script = `require('node:child_process').spawn(process.execPath, ${JSON.stringify(args)}, {
      stdio: ['pipe', 'inherit', 'inherit'],
    });`;
    const parent = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = (await once(createInterface(parent.stdout), 'line')) as [string];
    const { pid, address } = JSON.parse(line) as { pid: number; address: string };
    const t = connectChannel(address);
    await t.ready({ deadlineMs: 10_000 });
    process.kill(pid, 0); // alive
    parent.kill('SIGKILL');
    await once(parent, 'close'); // the worker has the same standard output: it closes when both are gone
    await assert.rejects(t.unary('/inference.GRPCInferenceService/ServerLive', new Uint8Array()), {
      code: 'UNAVAILABLE',
    });
    await t[Symbol.asyncDispose]();
    // It may still be on its way out, and its entry stays, as a zombie, until somebody waits for it.
    const isThere = async () => !/\) Z /.test(await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') Z '));
    while (await isThere());
    await using again = await FsBlobStore.open(folder.path); // its lock binds nobody
    assert.equal(again.dataDir, folder.path);
  });

  it('says in one line what is wrong: exit 2 for how it was called, 1 for what went wrong', async () => {
    await using first = await startChild();
    const address = await addressOf(first);
    await using folder = await temporaryFolder();
    const file = path.join(folder.path, 'file');
    await writeFile(file, '');
    const cases: [string[], number, RegExp][] = [
      [['--threads', '0'], 2, /--threads 0: must be a whole number from 1/],
      [['--max-memory', 'plenty'], 2, /--max-memory plenty: .*512MB/],
      [['--listen', 'http://here'], 2, /--listen: "http:\/\/here" begins with a scheme; give here/],
      [['--listen', NO_NAME], 2, /cannot listen on x+:7453: the name x+ cannot be resolved: getaddrinfo E/],
      [['--bogus'], 2, /unknown option '--bogus'/],
      [['--data-dir', first.dataDir], 2, /process \d+ uses it/],
      [['--listen', address], 1, new RegExp(`${address} is taken.*choose another port`)],
      [['--data-dir', file], 1, /file: .*choose another --data-dir/],
    ];
    await Promise.all(
      cases.map(async ([args, code, message]) => {
        await using child = await startChild(args);
        const end = await child.ended;
        assert.equal(end.code, code, end.stderr);
        assert.match(end.stderr, /^kofn worker: [^\n]+\n$/);
        assert.match(end.stderr, message);
        assert.equal(end.stdout, '');
      }),
    );
  });

  it('warns when it listens beyond loopback', async () => {
    await using child = await startChild(['--listen', '0.0.0.0:0']);
    await child.firstLine;
    child.process.kill('SIGTERM');
    const { code, stderr } = await child.ended;
    assert.equal(code, 0);
    assert.match(stderr, /"level":"warn".*0\.0\.0\.0:\d+ is open to the network and there is no TLS yet/);
  });

  it('explains itself', async () => {
    await using child = await startChild(['--help']);
    const { code, stdout } = await child.ended;
    assert.equal(code, 0);
    for (const word of ['--listen', '--exit-with-parent', 'Examples:', 'SIGTERM']) assert.ok(stdout.includes(word));
  });
});
