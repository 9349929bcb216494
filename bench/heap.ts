/**
 * What the heap's first size is worth (docs/adr/0004-heap.md): processor time of a coded call with V8's own and with ours, master
 * and five workers.
 *   npm run build && node bench/dist/heap.js
 * Each is measured in processes of its own, in turn. Not measured: memory, which bench/worker-memory.ts says.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { codedLayer, type LayerSpec } from 'kofn';
import { HEAP, percentile } from 'kofn/measure';
import { cpuMs } from './harness/cpu.js';
import { randomTensors } from './harness/random.js';
import { Workers } from './harness/workers.js';

const RUNS = 3;
const WARM_UP = 100;
const REQUESTS = 200;
const random = randomTensors(1);
const CASES: readonly { name: string; spec: () => LayerSpec; input: readonly number[] }[] = [
  {
    name: 'conv 3x3 64→64, 56x56',
    spec: () => ({ type: 'conv', pads: [1, 1, 1, 1], weights: random([64, 64, 3, 3]) }),
    input: [1, 64, 56, 56],
  },
  {
    name: 'conv 3x3 256→384, 13x13',
    spec: () => ({ type: 'conv', pads: [1, 1, 1, 1], weights: random([384, 256, 3, 3]) }),
    input: [1, 256, 13, 13],
  },
  { name: 'FC 4096→4096', spec: () => ({ type: 'dense', weights: random([4096, 4096]) }), input: [1, 4096] },
];

/** Milliseconds of a call, by case. */
type Measured = readonly { readonly master: number; readonly workers: number }[];

if (process.send !== undefined) {
  process.send(await measure());
  process.disconnect();
} else await compare();

async function measure(): Promise<Measured> {
  await using workers = await Workers.start(5);
  const measured: Measured[number][] = [];
  for (const { spec, input: shape } of CASES) {
    await using layer = await codedLayer(spec(), { cluster: workers.cluster, parity: 1 });
    const input = random(shape);
    for (let request = 0; request < WARM_UP; request++) await layer.run(input);
    await workers.settle();
    const before = { master: cpuMs(), workers: await workers.cpuMs() };
    for (let request = 0; request < REQUESTS; request++) await layer.run(input);
    const master = (cpuMs() - before.master) / REQUESTS;
    await workers.settle();
    measured.push({ master, workers: ((await workers.cpuMs()) - before.workers) / REQUESTS });
  }
  return measured;
}

async function compare(): Promise<void> {
  const runs: Record<'own' | 'ours', Measured[]> = { own: [], ours: [] };
  for (let run = 0; run < RUNS; run++) {
    for (const which of ['own', 'ours'] as const) {
      const child = fork(new URL(import.meta.url), { execArgv: which === 'ours' ? [...HEAP] : [] });
      const [measured] = (await once(child, 'message')) as [Measured];
      runs[which].push(measured);
      await once(child, 'exit');
    }
  }
  console.log(`| layer | V8's own: master, workers, ms | ${HEAP.join(' ')}: master, workers, ms |\n|---|---|---|`);
  for (const [index, { name }] of CASES.entries()) {
    const cell = (which: 'own' | 'ours') =>
      (['master', 'workers'] as const)
        .map(who =>
          percentile(
            runs[which].map(run => run[index]![who]),
            50,
          )!.toFixed(1),
        )
        .join(', ');
    console.log(`| ${name} | ${cell('own')} | ${cell('ours')} |`);
  }
}
