/** Real rates in network namespaces, where this machine can; elsewhere the reason is said. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { isKofnError } from '@kofn/core';
import { before, describe, it } from 'mocha';
import { namespacesAvailable, NetworkNamespaces } from '../../src/failure/links/namespaces.js';
import { startLocalWorkers } from '../../src/workers/local-workers.js';

const namesOf = (pid: number) =>
  existsSync('/run/netns') ? readdirSync('/run/netns').filter(name => name.startsWith(`kofn-${pid}-`)) : [];
const devicesOf = (pid: number) => readdirSync('/sys/class/net').filter(name => name.startsWith(`kf${pid}-`));

describe('network namespaces', () => {
  let reason: string | undefined;
  before(async () => (reason = await namespacesAvailable()));
  const here = (work: () => Promise<void>) => async () => {
    if (reason === undefined) return work();
    assert.match(reason, /^network namespaces are not possible here: ./);
    await assert.rejects(NetworkNamespaces.open(1), (error: unknown) => isKofnError(error, 'UNSUPPORTED'));
  };

  it('a trial leaves nothing', () => {
    assert.deepEqual([namesOf(process.pid), process.platform === 'linux' ? devicesOf(process.pid) : []], [[], []]);
  });

  it('reject what cannot be', async () => {
    await assert.rejects(NetworkNamespaces.open(0), /0 network namespaces: give a whole number/);
  });

  it(
    'have the rate that was asked for, each way, and are gone afterwards',
    here(async () => {
      const namespaces = await NetworkNamespaces.open(2);
      await assert.rejects(namespaces.setRate(0), /megabitsPerSecond is 0: must be from/);
      await namespaces.setRate(1000);
      await namespaces.setRate(undefined);
      await namespaces.setRate(40);
      const bytes = 500_000;
      const script = `
        const server = require('node:net').createServer({ allowHalfOpen: true }, socket => {
          let size = 0;
          socket.on('data', bytes => (size += bytes.length));
          socket.on('end', () => socket.end(Buffer.alloc(size)));
        });
        server.listen(0, () => console.log(server.address().port));`;
      const [command, ...args] = [...namespaces.command(1), process.execPath, '-e', script];
      const server = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
      const [port] = (await once(createInterface({ input: server.stdout }), 'line')) as [string];
      assert.match(
        readFileSync(`/proc/${server.pid}/cmdline`, 'latin1'),
        /^[^\0]*node\0-e/,
        'the pid is the command’s own',
      );
      const socket = connect({ port: Number(port), host: namespaces.address(1), allowHalfOpen: true });
      await once(socket, 'connect');
      const start = performance.now();
      socket.end(Buffer.alloc(bytes));
      let size = 0;
      for await (const part of socket) size += (part as Buffer).length;
      const tookMs = performance.now() - start;
      assert.equal(size, bytes);
      const leastMs = (2 * (bytes - 10_000)) / 5000; // what the bucket holds passes at once
      assert.ok(tookMs >= leastMs && tookMs < 3 * leastMs + 1000, `${tookMs} ms, where ${leastMs} ms are due`);
      await namespaces[Symbol.asyncDispose](); // with a process in it still
      server.kill('SIGKILL');
      await once(server, 'exit');
      assert.deepEqual([namesOf(process.pid), devicesOf(process.pid)], [[], []]);
      assert.throws(() => namespaces.address(0), /there is no network namespace 0/);
    }),
  );

  it(
    'hold local workers, under their own pids',
    here(async () => {
      await using namespaces = await NetworkNamespaces.open(1);
      const listen = (index: number) => `${namespaces.address(index)}:0`;
      await using workers = await startLocalWorkers(1, { listen, command: index => namespaces.command(index) });
      const [{ address, pid }] = workers.workers as [{ address: string; pid: number }];
      assert.ok(address.startsWith(`${namespaces.address(0)}:`), address);
      assert.match(readFileSync(`/proc/${pid}/cmdline`, 'latin1'), /^[^\0]*node\0.*kofn-worker/s);
      const socket = connect(Number(address.split(':')[1]), namespaces.address(0));
      await once(socket, 'connect');
      socket.destroy();
      await workers.kill(0);
    }),
  );

  it(
    'go when their process exits, and with the next run when it was killed',
    here(async () => {
      const url = new URL('../../src/failure/links/namespaces.js', import.meta.url).href;
      const run = async (last: string) => {
        const script = `
          import { NetworkNamespaces } from '${url}';
          const namespaces = await NetworkNamespaces.open(1);
          ${last}`;
        const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: 'inherit' });
        await once(child, 'exit');
        return child.pid!;
      };
      const exited = await run('process.exit();');
      assert.deepEqual([namesOf(exited), devicesOf(exited)], [[], []]);
      const killed = await run(`process.kill(process.pid, 'SIGKILL');`);
      assert.equal(namesOf(killed).length, 1);
      assert.equal(await namespacesAvailable(), undefined);
      assert.deepEqual([namesOf(killed), devicesOf(killed)], [[], []]);
      assert.equal(execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' }).includes(`kofn-${killed}-`), false);
    }),
  );
});
