/** Faults of a worker's whole process: what another process sees of it. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, it } from 'mocha';
import { connectChannel, FaultControlClient, WorkerClient } from '@kofn/wire';
import { denseShard, startChild } from './support/child.js';

const { shard, input } = denseShard(16, 4, 9);
const x = input(1);

async function startFaulty() {
  const child = await startChild(['--json', '--allow-faults']);
  const { address, pid } = JSON.parse(await child.firstLine) as { address: string; pid: number };
  const channel = connectChannel(address);
  const client = await WorkerClient.open(channel);
  await client.put(shard);
  await client.infer({ model: shard.name, inputs: { x } });
  return {
    child,
    client,
    control: new FaultControlClient(channel),
    infer: async () => (await client.infer({ model: shard.name, inputs: { x } })).outputs['y']!,
    /** Returns once the process is, or is no more, in state T: stopped. */
    async untilStopped(wanted: boolean): Promise<void> {
      while (/\) T /.test(await readFile(`/proc/${pid}/stat`, 'latin1')) !== wanted);
    },
    async [Symbol.asyncDispose]() {
      await channel[Symbol.asyncDispose]();
      await child[Symbol.asyncDispose]();
    },
  };
}

describe('kofn worker --allow-faults as a process', () => {
  it('stands still for its time and goes on by itself, at once or with the next inference; and kills itself', async function () {
    if (process.platform !== 'linux') this.skip(); // no /proc
    await using t = await startFaulty();
    const y = await t.infer();
    let start = performance.now();
    await t.control.act({ kind: 'pause', ms: 300 });
    await t.untilStopped(true);
    const held = t.infer();
    await t.untilStopped(false);
    assert.deepEqual(await held, y);
    assert.ok(performance.now() - start >= 300);

    await t.control.act({ kind: 'pauseOnNext', ms: 300 });
    assert.deepEqual((await t.control.status()).armed, { kind: 'pauseOnNext', ms: 300 });
    start = performance.now();
    const met = t.infer();
    await t.untilStopped(true);
    assert.deepEqual(await met, y);
    assert.ok(performance.now() - start >= 300);
    assert.equal((await t.control.status()).armed, undefined);
    assert.deepEqual(await t.infer(), y); // once

    await t.control.act({ kind: 'kill' }); // is answered
    const { signal, stderr } = await t.child.ended;
    assert.equal(signal, 'SIGKILL');
    const line = JSON.parse(await t.child.firstLine) as { allowFaults?: boolean; address: string };
    assert.equal(line.allowFaults, true);
    const warning = new RegExp(
      `"level":"warn".*--allow-faults: whoever reaches ${line.address} can slow, stop and kill`,
    );
    assert.match(stderr, warning);
  });

  it('kills itself when the next inference arrives, before it is answered', async () => {
    await using t = await startFaulty();
    await t.control.act({ kind: 'killOnNext' });
    assert.deepEqual((await t.control.status()).armed, { kind: 'killOnNext' });
    assert.equal(await t.client.live(), true);
    await assert.rejects(t.infer(), { code: 'UNAVAILABLE' });
    assert.equal((await t.child.ended).signal, 'SIGKILL');
  });
});
