/**
 * memory: whether anything is kept of a request that has ended. What master and workers hold after ten thousand requests of a
 * small coded layer, against what they held after the first thousand, each read when garbage has been collected and nothing
 * runs.
 */
import { codedLayer } from 'kofn';
import { figure, type Bench, type Figure } from './bench.js';
import { memoryAfterGc, type Memory } from './harness/held-memory.js';
import { randomTensors } from './harness/random.js';
import { Workers } from './harness/workers.js';

const WORKERS = 5;
const PARITY = 1;
const FIRST = 1_000;
const REQUESTS = 10_000;
const WEIGHTS = [256, 256];
/** Little is held outside the heap, so that a buffer more or less would be a large part of it. */
const EXTERNAL_ADDED_MB = 1;

export const memory: Bench = {
  name: 'memory',
  what: 'memory of master and workers after 10,000 requests of a small coded layer',
  baseline: 'the same after the first 1,000',
  async run({ progress }) {
    await using workers = await Workers.start(WORKERS);
    const random = randomTensors(1);
    await using layer = await codedLayer(
      { type: 'dense', weights: random(WEIGHTS) },
      { cluster: workers.cluster, parity: PARITY },
    );
    const input = random([1, WEIGHTS[1]!]);
    let done = 0;
    const request = async (count: number) => {
      for (let i = 0; i < count; i++) {
        await layer.run(input);
        progress(++done, FIRST + REQUESTS);
      }
      await workers.settle();
      return { master: await memoryAfterGc(), workers: await workers.memory() };
    };
    const before = await request(FIRST);
    const after = await request(REQUESTS);
    const worker = {
      rssMB: mostGrown(before.workers, after.workers, 'rssMB'),
      externalMB: mostGrown(before.workers, after.workers, 'externalMB'),
    };
    return [
      rss('master', after.master.rssMB, before.master.rssMB),
      rss('worker', ...worker.rssMB),
      external('master', after.master.externalMB, before.master.externalMB),
      external('worker', ...worker.externalMB),
    ];
  },
};

/** After and before, of the worker that has grown most. */
function mostGrown(before: readonly Memory[], after: readonly Memory[], what: keyof Memory): [number, number] {
  const pairs = before.map((memory, worker): [number, number] => [after[worker]![what], memory[what]]);
  return pairs.reduce((most, pair) => (pair[0] - pair[1] > most[0] - most[1] ? pair : most));
}

function rss(whose: string, after: number, before: number): Figure {
  return once(`${whose}'s resident memory`, 'MB', 1.1, after, before);
}

function external(whose: string, after: number, before: number): Figure {
  const unit = `MB (with ${EXTERNAL_ADDED_MB} added)`;
  return once(`${whose}'s external memory`, unit, 1.05, after + EXTERNAL_ADDED_MB, before + EXTERNAL_ADDED_MB);
}

function once(name: string, unit: string, atMost: number, value: number, baseline: number): Figure {
  return figure({ name, unit, target: { atMost } }, { value: [value], baseline: [baseline] });
}
