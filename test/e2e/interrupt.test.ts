/** However a command ends, no worker outlives it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, watch, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, it } from 'mocha';
import { ended, MODEL, ROOT, Sandbox } from './command.js';

/** A run of many requests, and the moment its first answer is written. */
async function running(sandbox: Sandbox) {
  const output = path.join(sandbox.files, 'answers');
  mkdirSync(output);
  const watcher = watch(output);
  const child = sandbox.start([
    ...['run', MODEL, '--local', '3', '--random', '1', '--requests', '100000', '--compare', '--output', output],
  ]);
  const end = ended(child);
  await Promise.race([
    once(watcher, 'change'),
    end.then(({ stderr }) => assert.fail(`it ended before its first answer: ${stderr}`)),
  ]);
  watcher.close();
  assert.ok(sandbox.processes().length >= 5, 'the command, three workers and the uncoded model run');
  return { child, end };
}

describe('no orphan workers', () => {
  for (const [signal, expected] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    it(`${signal} in the middle of a run: exit ${expected}, nothing left`, async () => {
      using sandbox = new Sandbox();
      const { child, end } = await running(sandbox);
      child.kill(signal);
      const { code, stdout, stderr } = await end;
      assert.equal(code, expected, stderr);
      assert.equal(stdout, '');
      sandbox.assertNothingLeft();
    });
  }

  it('Ctrl-C to all of them at once, as a terminal sends it', async () => {
    using sandbox = new Sandbox();
    const { end } = await running(sandbox);
    for (const pid of sandbox.processes()) process.kill(pid, 'SIGINT');
    const { code, stderr } = await end;
    assert.equal(code, 130, stderr);
    sandbox.assertNothingLeft();
  });

  it('Ctrl-C while the workers start', async () => {
    using sandbox = new Sandbox();
    const watcher = watch(sandbox.folder);
    const child = sandbox.start(['run', MODEL, '--local', '3', '--random', '1', '--layers', 'auto']);
    const end = ended(child);
    for (let started = ''; !started.startsWith('kofn-worker');) {
      [, started] = (await once(watcher, 'change')) as [string, string];
    }
    watcher.close();
    child.kill('SIGINT');
    const { code, stderr } = await end;
    assert.equal(code, 130, stderr);
    sandbox.assertNothingLeft();
  });

  it('a second Ctrl-C ends it at once, and the workers with it', async () => {
    using sandbox = new Sandbox();
    const { child, end } = await running(sandbox);
    child.kill('SIGINT');
    child.kill('SIGTERM');
    const { code, stderr } = await end;
    assert.ok(code === 130 || code === 143, `exit ${code}: ${stderr}`);
    await sandbox.untilNoProcess();
  });

  it('SIGKILL of the parent: the workers end by themselves', async () => {
    using sandbox = new Sandbox();
    const { child, end } = await running(sandbox);
    child.kill('SIGKILL');
    await end;
    await sandbox.untilNoProcess();
  });

  it('an exception that nobody catches: the workers are killed, their directories removed', async () => {
    using sandbox = new Sandbox();
    const script = path.join(sandbox.files, 'crash.mjs');
    const kofn = pathToFileURL(path.join(ROOT, 'packages', 'cli', 'dist', 'src', 'index.js')).href;
    writeFileSync(
      script,
      `import { startLocalWorkers } from ${JSON.stringify(kofn)};
       await startLocalWorkers(2);
       setImmediate(() => { throw new Error('nobody catches this'); });`,
    );
    const { code, stderr } = await ended(sandbox.start([], script));
    assert.equal(code, 1);
    assert.match(stderr, /nobody catches this/);
    await sandbox.untilNoProcess();
    sandbox.assertNothingLeft();
  });
});
