import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { tensor } from '@kofn/core';
import { startLocalWorkers } from 'kofn';
import { describe, it } from 'mocha';
import { makeModel, quantizedDense } from '../support/onnx-models.js';
import { json, MODEL, ROOT, Sandbox } from './command.js';

interface Summary {
  requests: number;
  lost: number;
  wrong: number | null;
  recovered: { lost: number; late: number };
  computedHere: number;
  resent: number;
  hedge: number | 'p95' | null;
  segments: string;
  segmentsAnswered: { workers: number; master: number };
  maxRelError: number | null;
  p50Ms: number | null;
  p99Ms: number | null;
  codedLayers: { name: string; k: number; r: number; code: string }[];
  kills: { worker: number; request: number; hit: boolean; ms: number | null }[];
  outputs: {
    name: string;
    maxAbsError: number;
    maxRelError: number;
    referenceRelDifference: number | null;
    allowedRelError: number | null;
  }[];
  referenceSettings: string[];
  plan: { speeds: { source: string }; layers: { decision: string }[]; segments: { decision: string }[] };
  workers: { state: string }[];
  failures: { request: number; code: string; message: string }[];
}

describe('kofn run', () => {
  it('is exact through a kill: five workers, one parity', async () => {
    using sandbox = new Sandbox();
    const outcome = await sandbox.run(
      ...['run', MODEL, '--local', '5', '--parity', '1', '--random', '7', '--requests', '6'],
      ...['--kill', '2@2', '--compare', '--json'],
    );
    assert.equal(outcome.code, 0, outcome.stderr);
    const summary = json<Summary>(outcome);
    assert.deepEqual([summary.requests, summary.lost, summary.wrong], [6, 0, 0]);
    assert.ok(summary.maxRelError! > 0 && summary.maxRelError! < 1e-5, `error ${summary.maxRelError}`);
    assert.deepEqual(
      summary.outputs.map(({ name, maxRelError }) => [name, maxRelError]),
      [['logits', summary.maxRelError]],
    );
    assert.equal(summary.codedLayers.length, 6);
    for (const { k, r, code } of summary.codedLayers) assert.deepEqual([k, r, code], [4, 1, 'sum']);
    const [{ worker, request, hit, ms } = assert.fail('no kill'), ...more] = summary.kills;
    assert.deepEqual([worker, request, hit, more.length], [2, 2, true, 0]);
    assert.ok(ms! > 0);
    const { lost, late } = summary.recovered;
    assert.ok(lost + late >= 4 * 6, `recovered ${lost} and ${late}`);
    assert.ok(lost >= 2 * 6, `lost ${lost}`); // in the request of the kill, and the one behind it, others may answer before the loss is known
    assert.ok(summary.p50Ms! > 0 && summary.p99Ms! >= summary.p50Ms!);
    assert.deepEqual(
      summary.workers.map(({ state }) => state === 'ready'),
      [true, true, false, true, true],
    );
    sandbox.assertNothingLeft();
  });

  it('two parities outlive two kills, the second in a later request', async () => {
    using sandbox = new Sandbox();
    const outcome = await sandbox.run(
      ...['run', MODEL, '--local', '5', '--parity', '2', '--random', '1', '--requests', '4'],
      ...['--kill', '0@1', '--kill', '3@2', '--compare', '--json'],
    );
    assert.equal(outcome.code, 0, outcome.stderr);
    const { lost, wrong, kills, codedLayers, computedHere } = json<Summary>(outcome);
    assert.deepEqual([lost, wrong, computedHere, kills.map(({ hit }) => hit)], [0, 0, 0, [true, true]]);
    assert.equal(codedLayers[0]!.code, 'rotation');
    sandbox.assertNothingLeft();
  });

  it('computes here what too few workers cannot, or loses requests and says so (--on-loss fail)', async () => {
    using sandbox = new Sandbox();
    const args = ['run', MODEL, '--local', '2', '--parity', '0', '--random', '1', '--requests', '3', '--kill', '1@1'];
    const local = await sandbox.run(...args, '--compare', '--json');
    assert.equal(local.code, 0, local.stderr);
    const kept = json<Summary>(local);
    assert.deepEqual([kept.lost, kept.wrong], [0, 0]);
    assert.ok(kept.computedHere >= 11, `computed here ${kept.computedHere}`);

    const fail = await sandbox.run(...args, '--on-loss', 'fail', '--json');
    assert.equal(fail.code, 1);
    const { lost, wrong, failures, kills } = json<Summary>(fail);
    assert.deepEqual([lost, wrong, kills[0]!.hit], [2, null, true]);
    assert.deepEqual(
      failures.map(({ request, code }) => [request, code]),
      [
        [1, 'NOT_ENOUGH_WORKERS'],
        [2, 'NOT_ENOUGH_WORKERS'],
      ],
    );
    assert.match(fail.stderr, /request 1 was lost: .*worker 1/);
    sandbox.assertNothingLeft();
  });

  it('without parity outlives a kill with --hedge, and has two workers run what is not coded with --segments', async () => {
    using sandbox = new Sandbox();
    const outcome = await sandbox.run(
      ...[
        'run',
        MODEL,
        '--local',
        '3',
        '--parity',
        '0',
        '--hedge',
        '5000',
        '--segments',
        'replicated',
        '--on-loss',
        'fail',
      ],
      ...['--random', '1', '--requests', '3', '--kill', '1@1', '--compare', '--json'],
    );
    assert.equal(outcome.code, 0, outcome.stderr);
    const { lost, wrong, computedHere, resent, hedge, segments, segmentsAnswered, plan } = json<Summary>(outcome);
    assert.deepEqual([lost, wrong, computedHere, hedge, segments], [0, 0, 0, 5000, 'replicated']);
    assert.ok(resent >= 6, `resent ${resent}`);
    const replicated = plan.segments.filter(({ decision }) => decision === 'replicated').length;
    assert.equal(segmentsAnswered.workers + segmentsAnswered.master, 3 * replicated);
    sandbox.assertNothingLeft();
  });

  it('a kill that finds no coded layer did not hit: exit 1', async () => {
    using sandbox = new Sandbox();
    const args = ['--local', '2', '--layers', 'auto', '--random', '1', '--kill', '0@0', '--json'];
    const outcome = await sandbox.run('run', small(sandbox), ...args);
    assert.equal(outcome.code, 1, outcome.stderr);
    const { codedLayers, kills, lost } = json<Summary>(outcome);
    assert.deepEqual([codedLayers, lost, kills[0]!.hit], [[], 0, false]);
    assert.match(outcome.stderr, /does not pay: .* ms here, .* ms coded/, 'auto prints both sides');
    assert.match(outcome.stderr, /--layers all/, 'and suggests what to do');
    assert.match(outcome.stderr, /kill of worker 0 at request 0 did not hit/);
    sandbox.assertNothingLeft();
  });

  it('runs a picture on workers that run already, and writes the answer as .npy', async () => {
    using sandbox = new Sandbox();
    await using workers = await startLocalWorkers(3);
    const output = path.join(sandbox.files, 'answers');
    const picture = path.join(ROOT, 'models', 'sample-ankle-boot.png');
    const { code, stdout, stderr } = await sandbox.run(
      ...['run', MODEL, '--workers', workers.addresses.join(','), '--input', `image=${picture}`],
      ...['--layers', 'conv2,fc1', '--check-finite', '--output', output],
    );
    assert.equal(code, 0, stderr);
    assert.match(stdout, /lost +│ 0/);
    assert.match(stdout, /fc1 +│ sum 2\+1/);
    assert.deepEqual(readdirSync(output), ['logits.npy']);
    const file = readFileSync(path.join(output, 'logits.npy'));
    const logits = new Float32Array(new Uint8Array(file.subarray(-40)).buffer);
    const labels = readFileSync(path.join(ROOT, 'models', 'fashion-labels.txt'), 'utf8')
      .trim()
      .split('\n');
    assert.equal(labels[logits.indexOf(Math.max(...logits))], 'Ankle boot');
    assert.ok(
      workers.workers.every(({ pid }) => process.kill(pid, 0)),
      'workers that it did not start go on',
    );
    sandbox.assertNothingLeft();
  });

  it('holds int8 weights to what ONNX Runtime computes with them before it fuses them, and tells what it differs from itself', async () => {
    using sandbox = new Sandbox();
    const file = path.join(sandbox.files, 'int8.onnx');
    writeFileSync(file, quantizedDense(64, 32).model);
    const args = ['run', file, '--local', '2', '--parity', '0', '--random', '1', '--compare'];
    const { code, stdout, stderr } = await sandbox.run(...args);
    assert.equal(code, 0, stderr);
    const cell = /error of "y" +│ (\S+) of its largest element \(ONNX Runtime from itself: (\S+); allowed: (\S+)\)/;
    const [error, itself, allowed] = (cell.exec(stdout) ?? assert.fail(stdout)).slice(1).map(Number);
    assert.ok(error! < 1e-6 && itself! > 1e-3, `${error} and ${itself}`);
    assert.ok(Math.abs(allowed! / itself! - 3) < 0.3, `allowed ${allowed}`);

    const strict = await sandbox.run(...args, '--atol', '1e-30', '--json');
    assert.equal(strict.code, 1, 'as exact as asked for');
    const { wrong, outputs, referenceSettings } = json<Summary>(strict);
    assert.deepEqual([wrong, outputs[0]!.allowedRelError], [1, null]);
    assert.ok(outputs[0]!.referenceRelDifference! > 1e-3);
    assert.deepEqual(referenceSettings, ['disabled, 1 thread', 'all, 1 thread', 'basic, 4 threads']);
    const alone = await sandbox.run('run', file, '--local', '2', '--random', '1', '--rtol', '1e-3');
    assert.deepEqual([alone.code, alone.stderr.includes('--compare')], [2, true]);
    sandbox.assertNothingLeft();
  });

  it('gives each request of --random its own inputs and its own file', async () => {
    using sandbox = new Sandbox();
    const output = path.join(sandbox.files, 'answers');
    const args = ['--local', '2', '--random', '3', '--requests', '2', '--output', output, '--engine', 'wasm'];
    const { code, stderr } = await sandbox.run('run', small(sandbox), ...args);
    assert.equal(code, 0, stderr);
    assert.deepEqual(readdirSync(output).sort(), ['y.0.npy', 'y.1.npy']);
    const [first, second] = ['y.0.npy', 'y.1.npy'].map(name => readFileSync(path.join(output, name)));
    assert.notDeepEqual(first, second);
    sandbox.assertNothingLeft();
  });
});

/** A dense layer of 3 to 4, far too small to pay. */
function small(sandbox: Sandbox): string {
  const file = path.join(sandbox.files, 'small.onnx');
  const { model } = makeModel({
    nodes: [{ op: 'Gemm', inputs: ['x', 'w'], outputs: ['y'], name: 'fc' }],
    inputs: { x: { dtype: 'float32', shape: [1, 3] } },
    outputs: { y: { dtype: 'float32', shape: [1, 4] } },
    initializers: {
      w: tensor(
        'float32',
        [3, 4],
        Float32Array.from({ length: 12 }, (_, i) => i - 5),
      ),
    },
  });
  writeFileSync(file, model);
  return file;
}
