import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { isKofnError, KofnError } from '@kofn/core';
import { after, before, describe, it } from 'mocha';
import { startLocalWorkers } from '../src/workers/local-workers.js';

describe('local workers', () => {
  const originalTmp = process.env['TMPDIR'];
  let folder: string;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'kofn-test-local-'));
    process.env['TMPDIR'] = folder; // what os.tmpdir() says, here and in the workers
  });
  after(() => {
    if (originalTmp === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = originalTmp;
    rmSync(folder, { recursive: true });
  });

  const alive = (pid: number) => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };

  it('start, answer, and are gone after close, with their directories', async () => {
    const workers = await startLocalWorkers(2);
    const pids = workers.workers.map(({ pid }) => pid);
    assert.equal(new Set(workers.addresses).size, 2);
    assert.equal(readdirSync(folder).length, 2, 'a data directory each');
    assert.ok(
      pids.every(pid => alive(-pid)),
      'a process group each, so that Ctrl-C in a terminal does not reach them',
    );
    for (const address of workers.addresses) {
      const socket = connectTcp(Number(address.split(':')[1]), '127.0.0.1');
      await once(socket, 'connect');
      socket.destroy();
    }
    await workers.close();
    assert.deepEqual(pids.map(alive), [false, false]);
    assert.deepEqual(readdirSync(folder), []);
    assert.equal(workers.pidOf(0), undefined);
    await workers.close();
  });

  it('one can be killed, paused and resumed; a paused one is closed as well', async () => {
    await using workers = await startLocalWorkers(2);
    const [first, second] = workers.workers;
    await workers.kill(0);
    assert.equal(alive(first!.pid), false);
    assert.equal(workers.pidOf(0), undefined);
    assert.equal(readdirSync(folder).length, 1, 'its directory went with it');
    workers.pause(1);
    if (process.platform === 'linux') await untilState(second!.pid, 'T');
    workers.resume(1);
    if (process.platform === 'linux') await untilState(second!.pid, 'S');
    workers.pause(1);
    assert.throws(() => workers.pause(2), /there is no local worker 2; there are 2/);
    await workers.close();
    assert.equal(alive(second!.pid), false);
  });

  it('leave nothing when their parent exits just as one has', async () => {
    const script = `
      import { startLocalWorkers } from '${new URL('../src/workers/local-workers.js', import.meta.url).href}';
      const workers = await startLocalWorkers(2);
      void workers.kill(0);
      const look = () => (workers.pidOf(0) === undefined ? process.exit(7) : setImmediate(look));
      look();`;
    const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: 'inherit' });
    assert.deepEqual(await once(child, 'exit'), [7, null]);
    assert.deepEqual(readdirSync(folder), []);
  });

  it('keep their shards where they are told to', async () => {
    const dataDir = path.join(folder, 'kept');
    await using workers = await startLocalWorkers(1, { dataDir });
    await workers.close();
    assert.deepEqual(readdirSync(dataDir), ['worker-0']);
    rmSync(dataDir, { recursive: true });
  });

  it('one starts again where it was, with a command before its own and arguments behind', async () => {
    await using workers = await startLocalWorkers(1);
    const address = workers.addresses[0]!;
    await workers.kill(0);
    const options = { listen: () => address, command: (index: number) => ['nice', '-n', String(5 + index)] };
    await using again = await startLocalWorkers(1, options);
    assert.deepEqual(again.addresses, [address]);
    if (process.platform === 'linux') {
      const status = readFileSync(`/proc/${again.pidOf(0)}/stat`, 'latin1');
      assert.equal(
        status.slice(status.lastIndexOf(')') + 2).split(' ')[16],
        '5',
        'the pid is the worker’s, and it is nice',
      );
    }
    await assert.rejects(startLocalWorkers(1, { extraArgs: ['--no-such-option'] }), /ended .*--no-such-option/s);
  });

  it('one that ends before it is ready fails the start with what it said, and none is left', async () => {
    const file = path.join(folder, 'file');
    writeFileSync(file, '');
    await assert.rejects(startLocalWorkers(2, { dataDir: file }), (error: unknown) => {
      assert.ok(isKofnError(error, 'UNAVAILABLE'), String(error));
      assert.match(error.message, /local worker \d ended \(exit code 1\) before it was ready: .*file/s);
      return true;
    });
    assert.deepEqual(readdirSync(folder), ['file']);
    rmSync(file);
  });

  it('a start can be cancelled or end by its deadline, and leaves nothing', async () => {
    const controller = new AbortController();
    const starting = startLocalWorkers(1, { signal: controller.signal });
    controller.abort(new KofnError('CANCELLED', 'enough'));
    await assert.rejects(starting, /enough/);
    await assert.rejects(startLocalWorkers(1, { startDeadlineMs: 1 }), (error: unknown) =>
      isKofnError(error, 'DEADLINE_EXCEEDED'),
    );
    await assert.rejects(startLocalWorkers(0), (error: unknown) => isKofnError(error, 'INVALID_ARGUMENT'));
    assert.deepEqual(readdirSync(folder), []);
  });
});

/** Reads the state until it is that; the test's own time limit bounds it. */
async function untilState(pid: number, state: string): Promise<void> {
  for (;;) {
    const status = readFileSync(`/proc/${pid}/stat`, 'latin1');
    if (status[status.lastIndexOf(')') + 2] === state) return;
    await new Promise(resolve => setImmediate(resolve));
  }
}
