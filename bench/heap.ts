/**
 * What the heap's first size is worth (docs/adr/0004-heap.md): processor time of a coded call with V8's own and with ours, master
 * and five workers.
 *   npm run build && node bench/dist/heap.js
 * Each is measured in processes of its own, in turn. Not measured: memory, which bench/worker-memory.ts says.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { codedLayer } from 'kofn';
import { HEAP, percentile } from 'kofn/measure';
import { cpuMs } from './harness/cpu.js';
import { LAYERS, specOf } from './harness/layers.js';
import { randomTensors } from './harness/random.js';
import { Workers } from './harness/workers.js';

const RUNS = 3;
const WARM_UP = 100;
const REQUESTS = 200;
/** The two fully connected layers are alike in this: one of them. */
const [, ...MEASURED] = LAYERS;

/** Milliseconds of a call, by layer. */
type Measured = readonly { readonly master: number; readonly workers: number }[];

if (process.send !== undefined) {
  process.send(await measure());
  process.disconnect();
} else await compare();

async function measure(): Promise<Measured> {
  await using workers = await Workers.start(5);
  const random = randomTensors(1);
  const measured: Measured[number][] = [];
  for (const { weights, input: shape } of MEASURED) {
    await using layer = await codedLayer(specOf(random(weights)), { cluster: workers.cluster, parity: 1 });
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
  for (const [index, { name }] of MEASURED.entries()) {
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
