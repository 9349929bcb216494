/** A part of a processor for a process, where this machine can; elsewhere the reason is said. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { isKofnError } from '@kofn/core';
import { after, before, describe, it } from 'mocha';
import { CpuQuota } from '../../src/failure/fleet/cgroup.js';

describe('a CPU quota', () => {
  let busy: ChildProcess;
  before(async () => {
    busy = spawn(process.execPath, ['-e', `console.log('on'); for (;;);`], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(busy.stdout!, 'data');
  });
  after(async () => {
    busy.kill('SIGKILL');
    await once(busy, 'exit');
  });

  const reason = CpuQuota.available();
  const here = (work: () => void | Promise<void>) => async () => {
    if (reason === undefined) return work();
    assert.match(reason, /^a process cannot be slowed down by its CPU quota here: ./);
    assert.throws(
      () => CpuQuota.open(busy.pid!, 0.5),
      (error: unknown) => isKofnError(error, 'UNSUPPORTED'),
    );
  };
  const groupsOf = (pid: number) => readFileSync(`/proc/${pid}/cgroup`, 'latin1');
  const cpuMs = () => Number(readFileSync(`/proc/${busy.pid}/schedstat`, 'latin1').split(' ')[0]) / 1e6;
  const ownGroups = (pid: number) => {
    const roots = ['/sys/fs/cgroup', '/sys/fs/cgroup/cpu', '/sys/fs/cgroup/unified', '/sys/fs/cgroup/cpu,cpuacct'];
    const names = (root: string) => {
      try {
        return readdirSync(root);
      } catch {
        return [];
      }
    };
    return roots.flatMap(names).filter(name => name.startsWith(`kofn-${pid}-`));
  };

  it('rejects what is no part of a processor', () => {
    for (const fraction of [0, -1, NaN, 65]) {
      assert.throws(() => CpuQuota.open(busy.pid!, fraction), /of a processor: must be from 0.001 to 64/);
    }
  });

  it(
    'holds the process to its part, can be changed, and leaves it as it was',
    here(async () => {
      const before = groupsOf(busy.pid!);
      const quota = CpuQuota.open(busy.pid!, 0.2);
      assert.match(groupsOf(busy.pid!), new RegExp(`kofn-${process.pid}-`));
      assert.equal(ownGroups(process.pid).length, 1);
      /** Until the process has run for `goalMs`, however long that takes. */
      const part = async (goalMs: number) => {
        const [start, startCpuMs] = [performance.now(), cpuMs()];
        while (cpuMs() - startCpuMs < goalMs) await new Promise(resolve => setTimeout(resolve, 5));
        return (cpuMs() - startCpuMs) / (performance.now() - start);
      };
      assert.ok((await part(100)) < 0.3);
      quota.set(0.05);
      assert.ok((await part(25)) < 0.1);
      quota.set(null);
      assert.ok((await part(100)) > 0.1); // as much as there is on a busy machine
      await quota[Symbol.asyncDispose]();
      await quota[Symbol.asyncDispose]();
      assert.equal(groupsOf(busy.pid!), before);
      assert.deepEqual(ownGroups(process.pid), []);
      assert.throws(() => quota.set(0.5), /is disposed/);
    }),
  );

  it(
    'goes with a process that is killed, and says of one that is not there',
    here(async () => {
      const child = spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' });
      const quota = CpuQuota.open(child.pid!, 0.1);
      child.kill('SIGKILL');
      await quota[Symbol.asyncDispose]();
      assert.deepEqual(ownGroups(process.pid), []);
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      assert.throws(
        () => CpuQuota.open(child.pid!, 0.1),
        (error: unknown) => isKofnError(error, 'NOT_FOUND'),
      );
      assert.deepEqual(ownGroups(process.pid), []);
    }),
  );

  it(
    'goes when its owner exits, and with the next run when that was killed',
    here(async () => {
      const url = new URL('../../src/failure/fleet/cgroup.js', import.meta.url).href;
      const run = async (last: string) => {
        const script = `import { CpuQuota } from '${url}'; CpuQuota.open(${busy.pid}, 0.5); ${last}`;
        const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: 'inherit' });
        await once(child, 'exit');
        return child.pid!;
      };
      const before = groupsOf(busy.pid!);
      assert.deepEqual(ownGroups(await run('process.exit();')), []);
      assert.equal(groupsOf(busy.pid!), before);
      const killed = await run(`process.kill(process.pid, 'SIGKILL');`);
      assert.equal(ownGroups(killed).length, 1);
      // What is in it goes on, unlimited, where new processes are.
      assert.equal(CpuQuota.available(), undefined);
      assert.deepEqual(ownGroups(killed), []);
      assert.doesNotMatch(groupsOf(busy.pid!), /kofn-/);
    }),
  );
});
