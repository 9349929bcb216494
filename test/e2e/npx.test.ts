/**
 * How servers are started decides whether they drain: by a unit of deploy/, and by npm. Servers that npm started (npx, npm run), and what becomes of them when npm is told to end: npm forwards a signal to its shell alone, which
 * may die of it and leave the server behind.
 */
import assert from 'node:assert/strict';
import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { before, describe, it } from 'mocha';
import { ended, MODEL, ROOT, Sandbox } from './command.js';

const WORKER = ['worker', '--listen', '127.0.0.1:0', '--json', '--engine', 'wasm'];
const SERVE = ['serve', MODEL, '--local', '2', '--grpc', 'off', '--http', '127.0.0.1:0', '--json'];

/** A command in a process group of its own, as a terminal starts it, and the first line that the server wrote. */
async function start(sandbox: Sandbox, command: readonly string[], { cwd = ROOT, shell = '/bin/sh' } = {}) {
  const [file, ...args] = command;
  const npm: ChildProcessByStdio<null, Readable, Readable> = spawn(file!, args, {
    cwd,
    detached: true,
    env: {
      ...process.env,
      ...{ TMPDIR: sandbox.folder, CI: '1', XDG_DATA_HOME: path.join(sandbox.files, 'data') },
      ...{ npm_config_script_shell: shell, npm_config_update_notifier: 'false', npm_config_loglevel: 'silent' },
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const lines = createInterface({ input: npm.stdout });
  const end = ended(npm); // once the server has closed the pipes too
  const line = await Promise.race([
    new Promise<string>(resolve => lines.on('line', text => text.includes('"pid"') && resolve(text))),
    end.then(({ stderr }) => assert.fail(`it ended before it served: ${stderr}`)),
  ]);
  const { pid, address, http } = JSON.parse(line) as { pid: number; address?: string; http?: string };
  return { npm, end, pid, port: Number((address ?? http)!.split(':')[1]) };
}

async function assertFree(port: number): Promise<void> {
  const server = createServer().listen(port, '127.0.0.1');
  await once(server, 'listening');
  server.close();
  await once(server, 'close');
}

/** The command of a unit, its paths and addresses replaced by those of a test. */
function execStart(unit: string, replaced: Readonly<Record<string, string>>): string[] {
  const text = readFileSync(path.join(ROOT, 'deploy', 'systemd', unit), 'utf8');
  const [, command] = /^ExecStart=(.+)$/m.exec(text) ?? [];
  assert.ok(command, `${unit} starts something`);
  const words = Object.entries(replaced).reduce((line, [from, to]) => {
    assert.ok(line.includes(from), `${unit}: ${from} in ${line}`);
    return line.replace(from, to);
  }, command);
  return words.split(' ');
}

describe('a unit of deploy/systemd', () => {
  it('starts a worker and a server that SIGTERM drains', async () => {
    using sandbox = new Sandbox();
    const config = path.join(sandbox.files, 'serve.yaml');
    writeFileSync(config, JSON.stringify({ models: [{ file: MODEL }], local: 2, grpc: 'off', http: '127.0.0.1:0' }));
    const worker = { '/opt/kofn': ROOT, '0.0.0.0:7453': '127.0.0.1:0', '${STATE_DIRECTORY}': sandbox.files };
    for (const [unit, replaced] of [
      ['kofn-worker.service', worker],
      ['kofn-serve.service', { '/opt/kofn': ROOT, '/etc/kofn/serve.yaml': config }],
    ] as const) {
      const { npm: main, end, pid, port } = await start(sandbox, [...execStart(unit, replaced), '--json']);
      assert.equal(main.pid, pid, 'what systemd signals is the server itself');
      main.kill('SIGTERM');
      const { code, stderr } = await end;
      assert.equal(code, 0, stderr);
      assert.match(stderr, /SIGTERM: [^]*finished after/);
      await sandbox.untilNoProcess();
      await assertFree(port);
    }
  });
});

describe('a server that npm started', function () {
  before(function () {
    if (process.platform !== 'linux') this.skip(); // it knows its npm by /proc
  });

  for (const [what, command, signal] of [
    ['npx kofn worker, SIGTERM to npx', ['npx', 'kofn', ...WORKER], 'SIGTERM'],
    ['npx kofn worker, SIGKILL to npx', ['npx', 'kofn', ...WORKER], 'SIGKILL'],
    ['npx kofn serve, SIGTERM to npx', ['npx', 'kofn', ...SERVE], 'SIGTERM'],
    ['npm exec kofn worker, SIGHUP to npm', ['npm', 'exec', '--', 'kofn', ...WORKER], 'SIGHUP'],
  ] as const) {
    it(`${what}: it drains, ends, and leaves its port`, async () => {
      using sandbox = new Sandbox();
      const { npm, end, pid, port } = await start(sandbox, command);
      assert.notEqual(npm.pid, pid);
      npm.kill(signal);
      const { stderr } = await end;
      assert.match(stderr, /npm has ended: [^]*finished after/);
      await sandbox.untilNoProcess();
      await assertFree(port);
    });
  }

  it('npm run, SIGTERM to npm: it drains, ends, and leaves its port', async () => {
    using sandbox = new Sandbox();
    const bin = path.join(ROOT, 'node_modules', '.bin', 'kofn');
    const scripts = { plain: `${bin} ${WORKER.join(' ')}`, exec: `exec ${bin} ${WORKER.join(' ')}` };
    writeFileSync(path.join(sandbox.files, 'package.json'), JSON.stringify({ private: true, scripts }));
    for (const [script, reason] of [
      ['plain', 'npm has ended'],
      ['exec', 'SIGTERM'], // npm's shell has become the server
    ] as const) {
      const { npm, end, port } = await start(sandbox, ['npm', 'run', '--silent', script], { cwd: sandbox.files });
      npm.kill('SIGTERM');
      const { stderr } = await end;
      assert.match(stderr, new RegExp(`${reason}: [^]*finished after`));
      await sandbox.untilNoProcess();
      await assertFree(port);
    }
  });

  for (const shell of ['/bin/sh', '/bin/bash']) {
    it(`Ctrl-C to all of the group drains it once, with ${shell} for npm's shell`, async function () {
      if (!existsSync(shell)) this.skip();
      using sandbox = new Sandbox();
      const { npm, end, port } = await start(sandbox, ['npx', 'kofn', ...WORKER], { shell });
      process.kill(-npm.pid!, 'SIGINT'); // where the shell has become the server, npm sends it a second one
      const { stderr } = await end;
      assert.match(stderr, /SIGINT: [^]*finished after/);
      await sandbox.untilNoProcess();
      await assertFree(port);
    });
  }

  it('lives on when a script of npm left it in the background', async () => {
    using sandbox = new Sandbox();
    const script = `(npm_config_loglevel=silent; exec node ${path.join(ROOT, 'packages/cli/bin/kofn.js')} ${WORKER.join(' ')}) &`;
    writeFileSync(
      path.join(sandbox.files, 'package.json'),
      JSON.stringify({ private: true, scripts: { back: script } }),
    );
    const { npm, end, pid } = await start(sandbox, ['npm', 'run', '--silent', 'back'], { cwd: sandbox.files });
    if (npm.exitCode === null) await once(npm, 'exit');
    process.kill(pid, 'SIGTERM');
    const { stderr } = await end;
    assert.match(stderr, /SIGTERM: [^]*finished after/, 'the signal was the first that asked it to end');
    await sandbox.untilNoProcess();
  });
});
