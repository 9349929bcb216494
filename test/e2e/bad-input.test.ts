/** Bad input, as it is met at the command line: one line that names the thing, exit code 2, nothing started, nothing left. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, readFileSync, watch, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import path from 'node:path';
import { tensor } from '@kofn/core';
import { after, before, describe, it } from 'mocha';
import { makeModel } from '../support/onnx-models.js';
import { json, MODEL, ROOT, Sandbox, type Ended } from './command.js';

const LOCAL = ['--local', '3', '--random', '1'];

describe('bad input', () => {
  let sandbox: Sandbox;
  const file = (name: string) => path.join(sandbox.files, name);
  before(() => {
    sandbox = new Sandbox();
    writeFileSync(file('text.onnx'), 'This is not a model.');
    writeFileSync(file('cut.onnx'), readFileSync(MODEL).subarray(0, 100_000));
    writeFileSync(file('empty.onnx'), '');
    const { model } = makeModel({
      nodes: [{ op: 'Gemm', inputs: ['x', 'w'], outputs: ['y'] }],
      inputs: { x: { dtype: 'float32', shape: [1, 8] } },
      outputs: { y: { dtype: 'float32', shape: [1, 8] } },
      initializers: { w: tensor('float32', [8, 8], new Float32Array(64)) },
      external: true,
    });
    for (const [folder, weights] of [
      ['without', undefined],
      ['short', new Uint8Array(100)],
    ] as const) {
      mkdirSync(file(folder));
      writeFileSync(path.join(file(folder), 'model.onnx'), model);
      if (weights !== undefined) writeFileSync(path.join(file(folder), 'weights.bin'), weights);
    }
    writeFileSync(file('drawing.png'), '<svg xmlns="http://www.w3.org/2000/svg" width="28" height="28"/>');
    const boot = readFileSync(path.join(ROOT, 'models', 'sample-ankle-boot.png'));
    writeFileSync(file('cut.png'), boot.subarray(0, boot.length >> 1));
    writeNpy(file('bytes.npy'), '|u1', [1, 1, 28, 28], new Uint8Array(784));
    writeNpy(file('wide.npy'), '<f4', [1, 1, 28, 30], new Uint8Array(4 * 840));
    const nan = new Float32Array(784).fill(NaN);
    writeNpy(file('nan.npy'), '<f4', [1, 1, 28, 28], new Uint8Array(nan.buffer));
  });
  after(() => sandbox[Symbol.dispose]());

  const cases: [what: string, args: () => string[], ...messages: RegExp[]][] = [
    ['a file that is not ONNX', () => ['run', file('text.onnx'), ...LOCAL], /text\.onnx .*not a usable ONNX model/],
    ['a truncated file', () => ['run', file('cut.onnx'), ...LOCAL], /cut\.onnx .*cut off/],
    ['an empty file', () => ['plan', file('empty.onnx')], /empty\.onnx .*empty/],
    ['a file that is not there', () => ['run', file('none.onnx'), ...LOCAL], /none\.onnx does not exist/],
    ['missing external data', () => ['run', path.join(file('without'), 'model.onnx'), ...LOCAL], /weights\.bin/],
    ['external data cut off', () => ['run', path.join(file('short'), 'model.onnx'), ...LOCAL], /weights\.bin/],
    [
      'a wrong input name',
      () => ['run', MODEL, '--local', '3', '--input', `picture=${file('wide.npy')}`],
      /no input "picture"; it takes image: float32 \[\w+,1,28,28\]/,
    ],
    [
      'a wrong input shape',
      () => ['run', MODEL, '--local', '3', '--input', `image=${file('wide.npy')}`],
      /"image" has shape \[\w+,1,28,28\].*\[1,1,28,30\]/,
    ],
    [
      'a wrong input element type',
      () => ['run', MODEL, '--local', '3', '--input', `image=${file('bytes.npy')}`],
      /"image" is float32 in the model, got uint8.*astype/,
    ],
    [
      'a non-finite input, with --check-finite',
      () => ['run', MODEL, '--local', '3', '--check-finite', '--input', `image=${file('nan.npy')}`],
      /nan\.npy.*NaN/,
    ],
    [
      'a picture without pixels, whatever its name',
      () => ['run', MODEL, '--local', '3', '--input', `image=${file('drawing.png')}`],
      /drawing\.png is SVG, .*render it to a PNG/,
    ],
    [
      'a picture that is cut off',
      () => ['run', MODEL, '--local', '3', '--input', `image=${file('cut.png')}`],
      /cut\.png is a damaged PNG picture/,
    ],
    ['a missing input', () => ['run', MODEL, '--local', '3'], /"image" is missing.*--input image=FILE.*--random/],
    [
      'as many parities as workers',
      () => ['run', MODEL, ...LOCAL, '--parity', '3'],
      /parity: 3 with 3 workers.*below 3/,
    ],
    ['sum with two parities', () => ['plan', MODEL, '--code', 'sum', '--parity', '2'], /sum has exactly 1.*rotation/],
    ['a layer that is not there', () => ['run', MODEL, ...LOCAL, '--layers', 'fc9'], /no linear layer "fc9".*fc1/],
    ['a kill of no worker', () => ['run', MODEL, ...LOCAL, '--kill', '3@0'], /--kill 3@0: there is no worker 3/],
    ['a kill in no request', () => ['run', MODEL, ...LOCAL, '--kill', '1@1'], /--kill 1@1: there is no request 1/],
    [
      'a kill of a remote worker',
      () => ['run', MODEL, '--workers', '127.0.0.1:1,127.0.0.1:2', '--random', '1', '--kill', '1@0'],
      /only local workers/,
    ],
    ['no workers', () => ['run', MODEL, '--random', '1'], /--workers .* or --local/],
    ['a shape that is none', () => ['run', MODEL, ...LOCAL, '--shape', 'image'], /--shape image: give INPUT=SIZES/],
    [
      'a shape that the model has not',
      () => ['plan', MODEL, '--shape', 'image=1,3,28,28'],
      /--shape image=.* takes image/,
    ],
    [
      'a worker that is a URL',
      () => ['run', MODEL, '--workers', 'pi1,http://pi2:7453/', '--random', '1'],
      /--workers: "http:\/\/pi2:7453\/" begins with a scheme; give pi2:7453/,
    ],
    ['a comma too many', () => ['plan', MODEL, '--workers', 'pi1,pi2,'], /--workers: address 3 of 3 is empty.*comma/],
    [
      'an IPv6 address without brackets',
      () => ['serve', MODEL, '--local', '3', '--http', '::1:8000'],
      /--http: "::1:8000" is an IPv6 address without brackets; give \[::1\]:8000/,
    ],
    ['an unknown option', () => ['run', MODEL, '--colour'], /unknown option '--colour'/],
    ['an unknown command', () => ['fly'], /unknown command 'fly'/],
    ['no model', () => ['run'], /missing required argument 'model'/],
    ['a number out of range', () => ['demo', '--requests', '2'], /--requests 2: give a whole number from 3 to 500/],
    ['an output that is a file', () => ['run', MODEL, ...LOCAL, '--output', file('nan.npy')], /--output .*nan\.npy/],
    ['a worker with an impossible engine', () => ['worker', '--engine', 'gpu'], /gpu/],
  ];
  for (const [what, args, ...messages] of cases) {
    it(`${what}: says so and starts nothing`, async () => {
      const started: string[] = [];
      const watcher = watch(sandbox.folder, (_, name) => started.push(String(name)));
      const outcome = await sandbox.run(...args());
      watcher.close();
      const storage = what === 'an output that is a file';
      assert.equal(outcome.code, storage ? 1 : 2, outcome.stderr);
      assert.equal(outcome.stdout, '');
      assert.match(outcome.stderr, /^kofn/);
      assert.doesNotMatch(outcome.stderr, /\n\s+at /, 'no stack');
      for (const message of messages) assert.match(outcome.stderr, message);
      assert.deepEqual(
        started.filter(name => name.startsWith('kofn-worker')),
        [],
        'no worker was started',
      );
      sandbox.assertNothingLeft();
    });
  }

  it('is a JSON object too, with --json', async () => {
    const outcome = await sandbox.run('plan', file('text.onnx'), '--json');
    assert.equal(outcome.code, 2);
    const { error } = json<{ error: { code: string; message: string } }>(outcome);
    assert.equal(error.code, 'INVALID_MODEL');
    assert.equal(outcome.stderr.trim(), `kofn plan: ${error.message}`);
  });

  it('an unreachable worker is named: exit 1', async () => {
    const outcome = await sandbox.run('run', MODEL, '--workers', await freeAddress(), '--parity', '0', '--random', '1');
    assert.equal(outcome.code, 1);
    lastLine(outcome, /^kofn run: .*127\.0\.0\.1:\d+/);
    sandbox.assertNothingLeft();
  });

  it('a port in use is named: exit 1', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    try {
      const outcome = await sandbox.run('worker', '--listen', `127.0.0.1:${port}`, '--data-dir', file('worker'));
      assert.equal(outcome.code, 1);
      lastLine(outcome, new RegExp(`^kofn worker: .*127\\.0\\.0\\.1:${port}`));
    } finally {
      server.close();
    }
    sandbox.assertNothingLeft();
  });

  it('a data directory that cannot be one is named: exit 1', async () => {
    const folder = path.join(file('nan.npy'), 'shards');
    const outcome = await sandbox.run('worker', '--listen', '127.0.0.1:0', '--data-dir', folder);
    assert.equal(outcome.code, 1);
    lastLine(outcome, /^kofn worker: .*nan\.npy/);
    sandbox.assertNothingLeft();
  });
});

/** The last word is one line that names the thing; libraries may have said something before it. */
function lastLine({ stdout, stderr }: Ended, message: RegExp): void {
  assert.equal(stdout, '');
  assert.match(stderr.trim().split('\n').at(-1)!, message);
}

/** An address of this machine where nobody listens. */
async function freeAddress(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return `127.0.0.1:${port}`;
}

/** Written by hand, so that no reader and writer of ours agree on something wrong. */
function writeNpy(target: string, descriptor: string, shape: number[], body: Uint8Array): void {
  const header = `{'descr': '${descriptor}', 'fortran_order': False, 'shape': (${shape.join(', ')}), }\n`;
  const prefix = Buffer.from([0x93, ...Buffer.from('NUMPY'), 1, 0, header.length, 0]);
  writeFileSync(target, Buffer.concat([prefix, Buffer.from(header), body]));
}
