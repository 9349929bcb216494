/**
 * Opening and running a shard with and without ONNX Runtime's weight prepacking (docs/adr/0001-prepacking.md).
 *   npm run build && node bench/dist/prepacking.js
 * One thread, weights in an external file, Linux. Runs are interleaved; each opening has a process of its own; medians.
 * Not measured: other machines, more than one thread, other element types, a file that is not cached.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { elementCount, seededRng, type Rng } from '@kofn/core';
import { layerModel, type ConvAttributes } from '@kofn/graph';
import { InferenceSession, Tensor } from 'onnxruntime-node';

const RUNS = 60;
const OPENINGS = 5;

interface Case {
  name: string;
  units: number;
  /** Weights of one unit. */
  fanIn: number;
  input: number[];
  conv?: ConvAttributes;
}

const cases: Case[] = [
  { name: 'FC 4096→4096, 1 row', units: 4096, fanIn: 4096, input: [1, 4096] },
  { name: 'FC 4096→1024, 1 row', units: 1024, fanIn: 4096, input: [1, 4096] },
  { name: 'FC 4096→1024, 4 rows', units: 1024, fanIn: 4096, input: [4, 4096] },
  { name: 'FC 4096→1024, 16 rows', units: 1024, fanIn: 4096, input: [16, 4096] },
  { name: 'conv 3x3 256→384, 13x13', units: 384, fanIn: 2304, conv: same3(2), input: [1, 256, 13, 13] },
  { name: 'conv 3x3 64→64, 56x56', units: 64, fanIn: 576, conv: same3(2), input: [1, 64, 56, 56] },
  { name: 'conv 3 64→64, 1024', units: 64, fanIn: 192, conv: same3(1), input: [1, 64, 1024] },
  { name: 'conv 3x3x3 32→32, 14x14x14', units: 32, fanIn: 864, conv: same3(3), input: [1, 32, 14, 14, 14] },
];

type Packing = 'with' | 'without';

interface Opening {
  openMs: number;
  /** Private memory that the session holds after one run. */
  openMB: number;
}

const [folder, packing, input] = process.argv.slice(2);
if (folder === undefined) await main();
else {
  const opening = await measureOpening(folder, packing as Packing, JSON.parse(input!) as number[]);
  console.log(JSON.stringify(opening));
}

async function main(): Promise<void> {
  const rng = seededRng(1);
  console.log('| layer | open, ms | private memory, MB | run, ms |');
  console.log('|---|---|---|---|');
  for (const one of cases) {
    const folder = await mkdtemp(path.join(tmpdir(), 'kofn-bench-'));
    try {
      const weightsMB = await write(folder, one, rng);
      const packed = { ...(await opening(folder, 'with', one.input)), runMs: 0 };
      const plain = { ...(await opening(folder, 'without', one.input)), runMs: 0 };
      [packed.runMs, plain.runMs] = await running(folder, one.input);
      const cells = [
        pair(packed.openMs, plain.openMs),
        pair(packed.openMB, plain.openMB, 0),
        pair(packed.runMs, plain.runMs, 2),
      ];
      console.log(`| ${one.name} (${weightsMB.toFixed(1)} MB) | ${cells.join(' | ')} |`);
    } finally {
      await rm(folder, { recursive: true });
    }
  }
  console.log('\nEach cell: with prepacking / without.');
}

async function write(folder: string, { name, units, fanIn, conv }: Case, rng: Rng): Promise<number> {
  const weights = Float32Array.from({ length: units * fanIn }, () => rng.normal());
  const files = layerModel({
    name,
    units,
    fanIn,
    weights,
    ...(conv === undefined ? { operator: 'Gemm' } : { operator: 'Conv', conv }),
  });
  await writeFile(path.join(folder, 'model.onnx'), files.model);
  await writeFile(path.join(folder, 'weights.bin'), files.weights);
  return files.weights.byteLength / 1e6;
}

/** Medians of milliseconds per run, interleaved so that other work on the machine meets both alike. */
async function running(folder: string, input: number[]): Promise<[number, number]> {
  const sessions = [await open(folder, 'with'), await open(folder, 'without')] as const;
  const x = filled(input);
  const times: [number[], number[]] = [[], []];
  for (let run = 0; run < RUNS; run++) {
    for (const i of [0, 1] as const) times[i].push((await timed(() => sessions[i].run({ x }))).ms);
  }
  for (const session of sessions) await session.release();
  return [median(times[0]), median(times[1])];
}

async function opening(folder: string, packing: Packing, input: number[]): Promise<Opening> {
  const all: Opening[] = [];
  for (let i = 0; i < OPENINGS; i++) {
    const script = fileURLToPath(import.meta.url);
    const { stdout } = await promisify(execFile)(process.execPath, [script, folder, packing, JSON.stringify(input)]);
    all.push(JSON.parse(stdout) as Opening);
  }
  return { openMs: median(all.map(one => one.openMs)), openMB: median(all.map(one => one.openMB)) };
}

/** The second opening is timed, when the runtime has started and the file is cached; the first one is weighed. */
async function measureOpening(folder: string, packing: Packing, input: number[]): Promise<Opening> {
  const before = await privateMB();
  const first = await open(folder, packing);
  await first.run({ x: filled(input) });
  const openMB = (await privateMB()) - before;
  await first.release();
  const { ms: openMs, value: second } = await timed(() => open(folder, packing));
  await second.release();
  return { openMs, openMB };
}

/** Resident memory without mapped files, whose pages the kernel can drop. */
async function privateMB(): Promise<number> {
  const status = await readFile('/proc/self/status', 'utf8');
  return (Number(/RssAnon:\s+(\d+) kB/.exec(status)![1]) * 1024) / 1e6;
}

function open(folder: string, packing: Packing): Promise<InferenceSession> {
  return InferenceSession.create(path.join(folder, 'model.onnx'), {
    intraOpNumThreads: 1,
    executionMode: 'sequential',
    graphOptimizationLevel: 'all',
    extra: { session: { disable_prepacking: packing === 'with' ? '0' : '1' } },
  });
}

function filled(shape: number[]): Tensor {
  return new Tensor('float32', new Float32Array(elementCount(shape)).fill(0.5), shape);
}

async function timed<T>(work: () => Promise<T>): Promise<{ ms: number; value: T }> {
  const start = performance.now();
  const value = await work();
  return { ms: performance.now() - start, value };
}

function same3(dimensions: number): ConvAttributes {
  const each = (value: number) => Array<number>(dimensions).fill(value);
  return {
    groups: 1,
    kernel: each(3),
    strides: each(1),
    dilations: each(1),
    pads: [...each(1), ...each(1)],
    autoPad: 'NOTSET',
  };
}

function pair(packed: number, plain: number, digits = 1): string {
  return `${packed.toFixed(digits)} / ${plain.toFixed(digits)}`;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}
