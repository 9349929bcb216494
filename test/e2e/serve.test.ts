/** `kofn serve` as its user sees it: addresses, what is wrong with how it was called, and how it ends. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it } from 'mocha';
import { loadDemoData } from 'kofn/measure';
import { ended, json, MODEL, Sandbox } from './command.js';

const ANY = ['--grpc', '127.0.0.1:0', '--http', '127.0.0.1:0'];

describe('kofn serve', () => {
  it('serves, prints its addresses, names a port that is taken, and on SIGTERM answers what it took and exits with 0', async () => {
    using sandbox = new Sandbox();
    const data = await loadDemoData();
    const child = sandbox.start(['serve', `fashion:2=${MODEL}`, '--local', '3', ...ANY, '--json']);
    const end = ended(child);
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    const { http, grpc, pid, models } = JSON.parse(line) as {
      http: string;
      grpc: string;
      pid: number;
      models: unknown;
    };
    assert.deepEqual([pid, models], [child.pid, [{ name: 'fashion', version: '2' }]]);

    const taken = await sandbox.run(
      'serve',
      MODEL,
      '--workers',
      '127.0.0.1:1',
      '--http',
      http,
      '--grpc',
      'off',
      '--json',
    );
    assert.ok(/"code":"(UNAVAILABLE|ADDRESS_IN_USE)"/.test(taken.stdout), taken.stdout);
    const twice = await sandbox.run(
      'serve',
      MODEL,
      '--local',
      '1',
      '--parity',
      '0',
      '--http',
      'off',
      '--grpc',
      grpc,
      '--json',
    );
    assert.equal(twice.code, 1);
    assert.match(json<{ error: { message: string } }>(twice).error.message, /^--grpc: .* is taken/);

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

  it('takes flags before the environment before the file, and says what it comes to', async () => {
    using sandbox = new Sandbox();
    const config = path.join(sandbox.files, 'serve.yaml');
    const text =
      'local: 3\nmaxQueue: 7\nmaxBatch: 4\ndeadline: 100\nmodels:\n  - name: m\n    file: m.onnx\n    parity: 2\n';
    writeFileSync(config, text);
    process.env['KOFN_MAX_BATCH'] = '8';
    process.env['KOFN_DEADLINE'] = '200';
    try {
      const printed = await sandbox.run('serve', '--config', config, '--deadline', '300', '--print-config');
      assert.equal(printed.code, 0, printed.stderr);
      for (const words of [
        'maxQueue: 7',
        'maxBatch: 8',
        'deadline: 300',
        `file: ${path.join(sandbox.files, 'm.onnx')}`,
      ]) {
        assert.ok(printed.stdout.includes(words), `${words} in ${printed.stdout}`);
      }
    } finally {
      delete process.env['KOFN_MAX_BATCH'];
      delete process.env['KOFN_DEADLINE'];
    }
    writeFileSync(config, 'models:\n  - file: m.onnx\n    paritty: 2\nmaxQueue: 0\n');
    const refused = await sandbox.run('serve', '--config', config);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /models\[0\]\.paritty: there is no such field/);
    assert.match(refused.stderr, /maxQueue: /);
  });

  const wrong: [string, string[], RegExp][] = [
    ['no model', ['--local', '2'], /nothing to serve/],
    [
      'a queue of none',
      [MODEL, '--local', '2', '--max-queue', '0'],
      /--max-queue 0: give a whole number from 1 to 65536/,
    ],
  ];
  it('says what is wrong before it starts anything', async () => {
    using sandbox = new Sandbox();
    await Promise.all(
      wrong.map(async ([what, args, words]) => {
        const { code, stderr } = await sandbox.run('serve', ...args);
        assert.deepEqual([code, words.test(stderr)], [2, true], `${what}: ${stderr}`);
      }),
    );
    sandbox.assertNothingLeft();
  });
});
