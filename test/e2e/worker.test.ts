/** `kofn worker` as an operator meets it: its first line, its limits, its shards across restarts, its end. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { startLocalWorkers } from 'kofn';
import { describe, it } from 'mocha';
import { ended, json, MODEL, Sandbox } from './command.js';

async function startWorker(sandbox: Sandbox, ...args: string[]) {
  const dataDir = path.join(sandbox.files, 'data');
  const child = sandbox.start(['worker', '--listen', '127.0.0.1:0', '--data-dir', dataDir, ...args]);
  const lines = createInterface({ input: child.stdout });
  const end = ended(child);
  const [line] = (await once(lines, 'line')) as [string];
  return { child, end, line, dataDir };
}

describe('kofn worker', () => {
  it('says its address first, as JSON with --json, and ends with 0 on SIGTERM', async () => {
    using sandbox = new Sandbox();
    const { child, end, line } = await startWorker(sandbox, '--json');
    const { address, pid } = JSON.parse(line) as { address: string; pid: number };
    assert.match(address, /^127\.0\.0\.1:\d+$/);
    assert.equal(pid, child.pid);
    const outcome = await sandbox.run(
      'run',
      MODEL,
      '--workers',
      address,
      '--parity',
      '0',
      '--random',
      '1',
      '--compare',
    );
    assert.equal(outcome.code, 0, outcome.stderr);
    child.kill('SIGTERM');
    const { code, stderr } = await end;
    assert.equal(code, 0, stderr);
    sandbox.assertNothingLeft();
  });

  for (const [option, limit, what] of [
    ['--max-disk', '10kB', /disk|max-disk|stor/i],
    ['--max-message', '2kB', /message/i],
  ] as const) {
    it(`${option} ${limit}: a model over it fails typed, and no half of a shard stays`, async () => {
      using sandbox = new Sandbox();
      const { child, end, line, dataDir } = await startWorker(sandbox, '--json', option, limit);
      const { address } = JSON.parse(line) as { address: string };
      const outcome = await sandbox.run(
        ...['run', MODEL, '--workers', address, '--parity', '0', '--random', '1', '--layers', 'fc1', '--json'],
        ...['--on-loss', 'fail'],
      );
      assert.equal(outcome.code, 1, outcome.stderr);
      assert.match(outcome.stdout, /RESOURCE_EXHAUSTED|NOT_ENOUGH_WORKERS/);
      assert.match(outcome.stderr, what);
      const left = filesBelow(dataDir).filter(file => statSync(file).size > 10_000);
      if (option === '--max-disk') assert.deepEqual(left, []);
      assert.equal(child.exitCode, null, 'the worker goes on');
      child.kill('SIGTERM');
      assert.equal((await end).code, 0);
      sandbox.assertNothingLeft();
    });
  }

  it('keeps shards across restarts; one with a flipped bit is never run, and the answer is exact all the same', async () => {
    using sandbox = new Sandbox();
    const dataDir = path.join(sandbox.files, 'kept');
    const args = ['--random', '1', '--requests', '2', '--compare', '--json'];
    {
      await using workers = await startLocalWorkers(3, { dataDir });
      const first = await sandbox.run('run', MODEL, '--workers', workers.addresses.join(), ...args);
      assert.equal(first.code, 0, first.stderr);
    }
    const weights = filesBelow(path.join(dataDir, 'worker-0')).filter(file => file.endsWith('weights.bin'));
    assert.equal(weights.length, 6, 'one shard of each layer');
    for (const file of weights) {
      const bytes = readFileSync(file);
      bytes[bytes.length >> 1]! ^= 1;
      writeFileSync(file, bytes);
    }
    await using workers = await startLocalWorkers(3, { dataDir });
    const again = await sandbox.run('run', MODEL, '--workers', workers.addresses.join(), ...args);
    assert.equal(again.code, 0, again.stderr);
    const { lost, wrong } = json<{ lost: number; wrong: number }>(again);
    assert.deepEqual([lost, wrong], [0, 0]);
  });
});

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map(name => path.join(folder, name))
    .filter(file => statSync(file).isFile());
}
