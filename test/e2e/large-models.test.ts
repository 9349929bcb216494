/**
 * Networks of the usual shapes and sizes with random weights, through the command: exact through a kill, within their memory, and
 * never sent twice.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, watch } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { sleep, systemClock } from '@kofn/core';
import { startLocalWorkers } from 'kofn';
import { after, before, describe, it } from 'mocha';
import { isLong, itWhenLong } from '../support/form.js';
import { ended, json, ROOT, Sandbox } from './command.js';

const MiB = 2 ** 20;

interface Summary {
  requests: number;
  lost: number;
  wrong: number;
  maxRelError: number;
  shardBytesSent: number;
  kills: { hit: boolean }[];
  codedLayers: { name: string }[];
  plan: { layers: { name: string; operator: string; coded?: { shardBytes: number } }[] };
}

describe('large models', function () {
  this.timeout(240_000);
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-large-'));
  after(() => rmSync(folder, { recursive: true }));

  const model = (network: string) => path.join(folder, network, 'model.onnx');
  const generate = async (network: string) => {
    await promisify(execFile)(process.execPath, [
      path.join(ROOT, 'models', 'generate.mjs'),
      network,
      path.join(folder, network),
    ]);
  };

  const networks = [
    ['resnet18', 21],
    ['alexnet', 8],
    ['resnet50', 54],
    ['vgg16', 16],
  ] as const;
  for (const [network, linear] of isLong ? networks : networks.slice(0, 1)) {
    it(`${network}: all of its ${linear} linear layers coded, exact through a kill, within its memory`, async () => {
      await generate(network);
      using sandbox = new Sandbox();
      const flags = ['--local', '5', '--parity', '1', '--layers', 'all', '--random', '1', '--requests', '3'];
      const child = sandbox.start(['run', model(network), ...flags, '--compare', '--kill', '1@2', '--json']);
      const [outcome, peaks] = await Promise.all([ended(child), peaksOf(sandbox, child)]);
      assert.equal(outcome.code, 0, outcome.stderr);
      const summary = json<Summary>(outcome);
      assert.deepEqual([summary.requests, summary.lost, summary.wrong], [3, 0, 0]);
      assert.deepEqual(
        summary.kills.map(({ hit }) => hit),
        [true],
      );
      assert.equal(summary.codedLayers.length, linear);
      assert.ok(summary.maxRelError < 1e-4, String(summary.maxRelError));
      sandbox.assertNothingLeft();

      if (process.platform !== 'linux') return;
      const modelBytes = statSync(model(network)).size + statSync(path.join(folder, network, 'weights.bin')).size;
      const shardBytes = summary.plan.layers.reduce((sum, { coded }) => sum + (coded?.shardBytes ?? 0), 0);
      assert.ok(peaks.master < modelBytes + 1024 * MiB, `master: ${mib(peaks.master)} for ${mib(modelBytes)}`);
      assert.ok(peaks.workers.length >= 5);
      for (const peak of peaks.workers) {
        assert.ok(peak < 1.5 * shardBytes + 200 * MiB, `a worker: ${mib(peak)} for ${mib(shardBytes)} of shards`);
      }
      rmSync(path.join(folder, network), { recursive: true });
    });
  }

  describe('on workers that keep their shards', () => {
    let allBytes = 0;
    before(() => generate('resnet18'));

    itWhenLong('a second deployment sends nothing', async () => {
      using sandbox = new Sandbox();
      await using workers = await startLocalWorkers(3);
      const args = ['run', model('resnet18'), '--workers', workers.addresses.join(), '--random', '1', '--json'];
      allBytes = json<Summary>(await sandbox.run(...args)).shardBytesSent;
      // Three workers, one parity: half of the weights on each.
      assert.ok(allBytes > 1.5 * 46.7e6 && allBytes < 1.6 * 46.7e6, `${allBytes} bytes`);
      assert.equal(json<Summary>(await sandbox.run(...args)).shardBytesSent, 0);
    });

    itWhenLong('one killed half-way and repeated sends the rest only', async () => {
      using sandbox = new Sandbox();
      const dataDir = path.join(folder, 'data');
      await using workers = await startLocalWorkers(3, { dataDir });
      const args = ['run', model('resnet18'), '--workers', workers.addresses.join(), '--random', '1', '--json'];
      const shards = path.join(dataDir, 'worker-0', 'shards');
      const halfWay = new Promise<void>(resolve => {
        const watcher = watch(shards, () => {
          if (readdirSync(shards).length < 10) return;
          watcher.close();
          resolve();
        });
      });
      const child = sandbox.start(args);
      const killed = ended(child);
      await halfWay;
      child.kill('SIGKILL');
      await killed;
      const { shardBytesSent } = json<Summary>(await sandbox.run(...args));
      assert.ok(shardBytesSent > 0 && shardBytesSent < 0.95 * allBytes, `${shardBytesSent} of ${allBytes} bytes`);
      assert.equal(json<Summary>(await sandbox.run(...args)).shardBytesSent, 0);
    });
  });
});

/** Largest resident sizes in bytes that the kernel tells while `child` runs: its own, and its workers'. */
async function peaksOf(
  sandbox: Sandbox,
  child: { readonly pid?: number | undefined; readonly exitCode: number | null },
) {
  const peaks = new Map<number, number>();
  while (child.exitCode === null && process.platform === 'linux') {
    for (const pid of sandbox.processes()) {
      const isCounted = pid === child.pid || textOf(pid, 'cmdline').includes('kofn-worker');
      const kibibytes = Number(/VmHWM:\s+(\d+)/.exec(textOf(pid, 'status'))?.[1] ?? 0);
      if (isCounted) peaks.set(pid, Math.max(peaks.get(pid) ?? 0, 1024 * kibibytes));
    }
    await sleep(systemClock, 50);
  }
  const master = peaks.get(child.pid!) ?? 0;
  peaks.delete(child.pid!);
  return { master, workers: [...peaks.values()] };
}

function textOf(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1');
  } catch {
    return ''; // it has ended
  }
}

function mib(bytes: number): string {
  return `${Math.round(bytes / MiB)} MiB`;
}
