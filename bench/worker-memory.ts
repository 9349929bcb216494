/**
 * Memory of a worker, and what the memory arena of ONNX Runtime is worth (docs/adr/0002-memory.md).
 *   node bench/dist/worker-memory.js MODEL...    five local workers, all layers coded, parity 1, three requests (Linux)
 *   node bench/dist/worker-memory.js --time      shards of a few sizes with and without the arena, interleaved
 * Not measured: boards other than this machine, batches.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { elementCount, float32, seededRng, type Shape } from '@kofn/core';
import { imageOfFiles, saveModel, shardModel, type ShardPart } from '@kofn/graph';
import { codedModel, connect, startLocalWorkers } from 'kofn';
import ort from 'onnxruntime-node';

const REQUESTS = 3;
const ROUNDS = 200;

const args = process.argv.slice(2);
if (args[0] === '--time') await compareTimes();
else for (const model of args) await measureMemory(model);

async function measureMemory(model: string): Promise<void> {
  const workers = await startLocalWorkers(5);
  const cluster = await connect({ workers: workers.addresses });
  const coded = await codedModel(model, { cluster, parity: 1, layers: 'all' });
  const rng = seededRng(1);
  const inputs = Object.fromEntries(
    coded.inputs.map(({ name, shape }) => {
      const sizes = shape.map(size => (typeof size === 'number' ? size : 1));
      return [
        name,
        float32(
          sizes,
          Float32Array.from({ length: elementCount(sizes) }, () => rng.normal()),
        ),
      ];
    }),
  );
  for (let request = 0; request < REQUESTS; request++) await coded.run(inputs);
  const shardBytes = coded.plan.layers.reduce((sum, layer) => sum + (layer.coded?.shardBytes ?? 0), 0);
  const [first] = workers.workers;
  console.log(
    `${model}: shards ${mega(shardBytes)}, worker peak ${status(first!.pid, 'VmHWM')}, ` +
      `anonymous ${status(first!.pid, 'RssAnon')}; master peak ${status(process.pid, 'VmHWM')}`,
  );
  await cluster.close();
  await workers.close();
}

function status(pid: number, field: string): string {
  const line = new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'latin1'));
  return mega(1024 * Number(line?.[1] ?? NaN));
}

function mega(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`;
}

async function compareTimes(): Promise<void> {
  const conv = (channels: number, units: number, size: number): [string, ShardPart, Shape] => [
    `conv 3x3 ${channels}→${units}, ${size}x${size}`,
    {
      layer: {
        operator: 'Conv',
        fanIn: 9 * channels,
        conv: { groups: 1, kernel: [3, 3], strides: [1, 1], dilations: [1, 1], pads: [1, 1, 1, 1], autoPad: 'NOTSET' },
      },
      weights: Float32Array.from({ length: units * 9 * channels }, (_, i) => Math.sin(i)),
      units,
    },
    [1, channels, size, size],
  ];
  const dense = Float32Array.from({ length: 1024 * 4096 }, (_, i) => Math.sin(i));
  const cases: [string, ShardPart, Shape][] = [
    conv(24, 6, 28),
    conv(64, 16, 56),
    conv(512, 128, 14),
    conv(64, 16, 224),
    ['FC 4096→1024, 1 row', { layer: { operator: 'Gemm', fanIn: 4096 }, weights: dense, units: 1024 }, [1, 4096]],
  ];
  console.log('| shard | with arena, ms | without, ms | ratio |\n|---|---|---|---|');
  for (const [name, part, shape] of cases) {
    const folder = mkdtempSync(path.join(tmpdir(), 'kofn-memory-'));
    await saveModel(imageOfFiles(shardModel([part])), folder);
    const sessions = await Promise.all(
      [true, false].map(enableCpuMemArena =>
        ort.InferenceSession.create(path.join(folder, 'model.onnx'), {
          intraOpNumThreads: 1,
          interOpNumThreads: 1,
          enableCpuMemArena,
          extra: { session: { disable_prepacking: '1' } },
        }),
      ),
    );
    rmSync(folder, { recursive: true });
    const x = new ort.Tensor('float32', new Float32Array(elementCount(shape)).fill(0.5), [...shape]);
    const times: number[][] = [[], []];
    for (let round = 0; round < ROUNDS; round++) {
      for (const which of round % 2 === 0 ? [0, 1] : [1, 0]) {
        const start = performance.now();
        await sessions[which]!.run({ x });
        times[which]!.push(performance.now() - start);
      }
    }
    const [arena, none] = times.map(list => list.sort((a, b) => a - b)[ROUNDS / 2]!) as [number, number];
    console.log(`| ${name} | ${arena.toFixed(2)} | ${none.toFixed(2)} | ${(none / arena).toFixed(2)} |`);
  }
}
