/** `kofn bench failure` as a user has it: a config, a fleet, faults, a report. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, it } from 'mocha';
import { itWhenLong } from '../support/form.js';
import { ended, json, Sandbox } from './command.js';

const WORKER = fileURLToPath(new URL('../../../packages/worker/bin/kofn-worker.js', import.meta.url));
const WAIT_MS = 60_000;

interface Result {
  complete: boolean;
  claims: { what: string; estimate: unknown }[];
  failedCells: { name: string; message: string }[];
  environment: { hosts: string[] };
  cells: {
    name: string;
    strategy: string;
    complete: boolean;
    requests: number;
    lost: number;
    wrong: number;
    computedHere: number;
    recovered: { lost: number; late: number };
    bytesPerRequest: { sent: number; received: number };
    cpuMsPerRequest: number;
    deviceMsPerRequest: number | null;
    emulated: string[];
    faults: { request: number; kind: string; workers: number[]; hit: boolean | null; nextAnswerMs: number | null }[];
    ratios: { uncoded: { cell: string } | null };
    failures: { code: string }[];
    phases: Record<'healthy' | 'hit' | 'degraded', { requests: number; lost: number }>;
  }[];
}

/** Writes `text` as a config of `sandbox`, and says where its report goes. */
function configOf(sandbox: Sandbox, text: string) {
  const config = path.join(sandbox.files, 'config.yaml');
  writeFileSync(config, text);
  return { config, output: path.join(sandbox.files, 'report') };
}

const SMALL = `
name: small
defaults: { workers: 3, workload: tiny, requests: 24, warmUp: 2, device: { gflops: 1 } }
workloads: { tiny: { fc: [48, 32], inputs: 3 } }
faults: { killed: { kind: kill, first: 6, every: 8, times: 2, lasts: 4 } }
`;

describe('kofn bench failure', () => {
  it('measures each strategy under the same kills, and leaves a report that is read again', async () => {
    using sandbox = new Sandbox();
    const { config, output } = configOf(
      sandbox,
      `${SMALL}
cells: [{ name: kill, strategy: [uncoded, failover, cdc-1], fault: killed }]
claims: [{ what: p50, of: kill cdc-1, to: kill uncoded, why: Because. }]`,
    );
    const outcome = await sandbox.run('bench', 'failure', '--config', config, '--output', output, '--json');
    assert.equal(outcome.code, 0, outcome.stderr);
    const result = json<Result>(outcome);
    const of = (strategy: string) => result.cells.find(cell => cell.strategy === strategy)!;
    assert.ok(result.complete);
    assert.deepEqual(
      result.cells.map(({ requests, wrong, faults }) => [requests, wrong, faults.map(({ request, workers }) => [request, workers])]), // prettier-ignore
      result.cells.map(() => [24, 0, of('cdc-1').faults.map(({ request, workers }) => [request, workers])]),
    );
    assert.deepEqual(of('cdc-1').faults.map(({ request, hit }) => [request, hit]), [[6, true], [14, true]]); // prettier-ignore
    // Held by a worker that dies, and until that is back.
    assert.equal(of('uncoded').lost, 8);
    assert.equal(of('uncoded').phases.hit.lost, 2);
    assert.deepEqual([of('failover').lost, of('cdc-1').lost], [0, 0]);
    assert.equal(of('cdc-1').recovered.lost >= 2, true);
    assert.ok(of('cdc-1').faults.every(({ nextAnswerMs }) => nextAnswerMs! >= 0));
    for (const cell of result.cells) {
      assert.ok(cell.bytesPerRequest.sent > 0 && cell.bytesPerRequest.received > 0 && cell.cpuMsPerRequest > 0);
      assert.ok(cell.deviceMsPerRequest! > 0);
      assert.ok(cell.emulated.some(sentence => sentence.includes('SIGKILL')));
    }
    assert.equal(of('cdc-1').ratios.uncoded?.cell, 'kill uncoded');
    assert.equal(result.claims.length, 1);
    assert.deepEqual(JSON.parse(readFileSync(path.join(output, 'result.json'), 'utf8')), result);
    for (const file of ['report.html', 'report.md']) assert.ok(existsSync(path.join(output, file)));
    const compared = await sandbox.run('bench', 'compare', output, path.join(output, 'report.html'));
    assert.equal(compared.code, 0, compared.stdout + compared.stderr);
    await sandbox.untilNoProcess();
    sandbox.assertNothingLeft();
  });

  itWhenLong(
    'is exact with two killed at once, by parity or by the master; in open loop, over Wi-Fi, and through flipped bits',
    async () => {
      using sandbox = new Sandbox();
      const { config, output } = configOf(
        sandbox,
        `${SMALL.split('\nfaults')[0]}
faults: { two: { kind: kill, workers: 2, first: 4, lasts: 8 }, bits: { kind: corrupt, rate: 0.1 } }
cells:
  - { name: two, strategy: [cdc-1, cdc-2], fault: two, workers: 4 }
  - { name: air, strategy: hedged, link: wifi, load: { everyMs: 20 } }
  - { name: bits, strategy: cdc-1, fault: bits }`,
      );
      const outcome = await sandbox.run('bench', 'failure', '--config', config, '--output', output, '--json');
      assert.equal(outcome.code, 0, outcome.stderr);
      const { cells } = json<Result>(outcome);
      assert.deepEqual(
        cells.map(({ name, lost, wrong }) => [name, lost, wrong]),
        ['two cdc-1', 'two cdc-2', 'air', 'bits'].map(name => [name, 0, 0]),
      );
      const [one, two] = cells as [Result['cells'][0], Result['cells'][0]];
      assert.ok(one.computedHere >= 8, 'fewer than k were left, and the master computed a block');
      assert.equal(two.computedHere, 0);
    },
  );

  itWhenLong('ends on Ctrl-C with a report of what was measured, and nothing else', async () => {
    using sandbox = new Sandbox();
    const { config, output } = configOf(
      sandbox,
      `${SMALL}
cells: [{ name: first, strategy: cdc-1 }, { name: endless, strategy: cdc-1, requests: 1000000 }, { name: never, strategy: uncoded }]`,
    );
    const command = sandbox.start(['bench', 'failure', '--config', config, '--output', output, '--json']);
    const outcome = ended(command);
    for await (const line of createInterface({ input: command.stderr })) if (line.includes('endless')) break;
    command.kill('SIGINT');
    const { code, stdout } = await outcome;
    assert.equal(code, 130);
    const { complete, cells } = JSON.parse(stdout) as Result;
    assert.equal(complete, false);
    assert.deepEqual(cells[0] && [cells[0].name, cells[0].complete, cells[0].requests], ['first', true, 24]);
    assert.ok(cells.length <= 2);
    assert.deepEqual(JSON.parse(readFileSync(path.join(output, 'result.json'), 'utf8')), JSON.parse(stdout));
    await sandbox.untilNoProcess();
    sandbox.assertNothingLeft();
  });

  it('refuses what cannot be before anything starts, by name', async () => {
    using sandbox = new Sandbox();
    const cases = [
      {
        text: `name: a\ncells: [{ strategy: cdc-1, wokers: 3 }]`,
        messages: [/cells\[0\]\.wokers: there is no such field/],
      },
      {
        text: `
name: a
links: { lab: { trace: no.csv } }
workloads: { m: { onnx: no.onnx } }
faults: { f: { kind: kill, workers: 9 } }
cells:
  - { name: few, strategy: cdc-4, workers: 4 }
  - { name: same, strategy: cdc-1, equal: compute }
  - { name: t, link: lab }
  - { name: o, workload: m }
  - { name: n, fault: f }`,
        messages: [
          /"few": cdc-4 takes 5 workers at least, it has 4/,
          /"same": equal compute takes a stated device/,
          /"t": link lab: .*no\.csv/,
          /"o": workload m: there is no file .*no\.onnx/,
          /"n": fault f meets 9 workers at once/,
        ],
      },
    ];
    for (const { text, messages } of cases) {
      const { config, output } = configOf(sandbox, text);
      const outcome = await sandbox.run('bench', 'failure', '--config', config, '--output', output, '--json');
      assert.equal(outcome.code, 2, text);
      for (const message of messages)
        assert.match(json<{ error: { message: string } }>(outcome).error.message, message);
      assert.equal(existsSync(path.join(output, 'result.json')), false);
    }
    const { config } = configOf(sandbox, `name: a\ncells: [{ name: r, strategy: cdc-1, fault: [restart, partition] }]`);
    const remote = await sandbox.run('bench', 'failure', '--config', config, '--workers', 'a:1,b:1,c:1,d:1,e:1');
    assert.equal(remote.code, 2);
    assert.match(remote.stderr, /fault restart \(restart\) cannot be brought about on a real cluster.*fault partition/);
    sandbox.assertNothingLeft();
  });

  it('lists what comes with kofn, and narrows it', async () => {
    using sandbox = new Sandbox();
    const outcome = await sandbox.run('bench', 'failure', '--config', 'full', '--cells', 'kill,wifi', '--list');
    assert.equal(outcome.code, 0, outcome.stderr);
    assert.match(outcome.stdout, /kill between/);
    assert.doesNotMatch(outcome.stdout, /vgg16/);
    const none = await sandbox.run('bench', 'failure', '--config', 'quick', '--cells', 'teleport', '--list');
    assert.equal(none.code, 2);
    assert.match(none.stderr, /--cells teleport: there is no such cell; there are kill uncoded/);
  });

  itWhenLong('runs on workers that are there already, and tells them their faults', async () => {
    using sandbox = new Sandbox();
    const addresses: string[] = [];
    for (let i = 0; i < 3; i++) {
      const args = [
        '--listen',
        '127.0.0.1:0',
        '--data-dir',
        path.join(sandbox.files, `${i}`),
        '--allow-faults',
        '--json',
      ];
      const worker = sandbox.start(args, WORKER);
      worker.stderr.resume();
      const lines = createInterface({ input: worker.stdout });
      const [line] = (await once(lines, 'line', { signal: AbortSignal.timeout(WAIT_MS) })) as [string];
      addresses.push((JSON.parse(line) as { address: string }).address);
    }
    const { config, output } = configOf(
      sandbox,
      `
name: remote
defaults: { workers: 3, workload: tiny, requests: 12, warmUp: 2 }
workloads: { tiny: { fc: [48, 32], inputs: 3 } }
faults:
  slow: { kind: slow, first: 3, lasts: 5, factor: 5 }
  stall: { kind: stalls, rate: 0.2, minMs: 5, maxMs: 20 }
  bits: { kind: corrupt, first: 2, every: 3, times: 3 }
  lost: { kind: loss, first: 2, every: 3, times: 3 }
  pause: { kind: pause, first: 4, lasts: 2, pauseMs: 50 }
  kill: { kind: kill, first: 4, lasts: forever }
cells: [{ name: far, strategy: cdc-1, fault: [slow, stall, bits, lost, pause, kill] }]`,
    );
    const args = ['bench', 'failure', '--config', config, '--output', output, '--workers', addresses.join()];
    const outcome = await sandbox.run(...args, '--json');
    assert.equal(outcome.code, 0, outcome.stderr);
    const { cells, environment } = json<Result>(outcome);
    assert.deepEqual(environment.hosts, addresses);
    assert.deepEqual(cells.map(({ lost, wrong }) => [lost, wrong]), cells.map(() => [0, 0])); // prettier-ignore
    assert.equal(cells.length, 6);
    assert.ok(cells.every(({ faults }) => faults.length > 0));
  });
});
