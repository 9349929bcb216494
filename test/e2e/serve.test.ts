/** `kofn serve` as its user sees it: addresses, what is wrong with how it was called, and how it ends. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { describe, it } from 'mocha';
import { loadDemoData } from 'kofn/measure';
import { ended, MODEL, Sandbox } from './command.js';

const ANY = ['--grpc', '127.0.0.1:0', '--http', '127.0.0.1:0'];

describe('kofn serve', () => {
  it('serves, prints its addresses, and on SIGTERM answers what it took and exits with 0', async () => {
    using sandbox = new Sandbox();
    const data = await loadDemoData();
    const child = sandbox.start(['serve', `fashion:2=${MODEL}`, '--local', '3', ...ANY, '--json']);
    const end = ended(child);
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    const { http, pid, models } = JSON.parse(line) as {
      http: string;
      grpc: string;
      pid: number;
      models: unknown;
    };
    assert.deepEqual([pid, models], [child.pid, [{ name: 'fashion', version: '2' }]]);

    const { data: image } = data.inputs(0)['image']!;
    const body = JSON.stringify({
      inputs: [{ name: 'image', datatype: 'FP32', shape: [1, 1, 28, 28], data: [...image] }],
    });
    const reply = await fetch(`http://${http}/v2/models/fashion/infer`, { method: 'POST', body });
    const { outputs } = (await reply.json()) as { outputs: { data: number[] }[] };
    const [{ data: logits }] = outputs as [{ data: number[] }];
    assert.equal(logits.indexOf(Math.max(...logits)), data.label(0));

    child.kill('SIGTERM');
    const { code, stderr } = await end;
    assert.equal(code, 0, stderr);
    assert.match(stderr, /SIGTERM: answering what was taken[^]*finished after/);
    await sandbox.untilNoProcess();
    sandbox.assertNothingLeft();
  });

  it('says what is wrong before it starts anything', async () => {
    using sandbox = new Sandbox();
    const { code, stderr } = await sandbox.run('serve', MODEL, '--local', '2', '--max-queue', '0');
    assert.deepEqual([code, stderr], [2, 'kofn serve: --max-queue 0: give a whole number from 1 to 65536\n']);
    sandbox.assertNothingLeft();
  });
});
