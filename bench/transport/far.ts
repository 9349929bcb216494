/**
 * transport/far: a coded layer call over links as they are between machines, 5 ms each way at 100 Mbit/s and at 1 Gbit/s
 * (harness/rate-link.ts): four of five workers with engines that answer at once, each behind a link of its own. The layer is a
 * convolution 1x1 on 50x50, whose input or whose blocks have many channels of 10 kB and the others one: large there and small
 * back, or the other way.
 *
 * The baseline is computed, not measured: the round trip, and the bytes of one worker's link over its rate, by the same numbers
 * that its link is given. So what the emulation adds counts against kofn, and so does the time that five workers, their links and
 * the master wait for each other on the cores of one machine, most of all at 1 Gbit/s, where 20 MB pass in 32 ms.
 *
 * Invariants
 * 1. A round begins when nothing is on its way any more.
 * 2. Master and workers have been warmed up without links, as a far link gives too few rounds for that.
 */
import { elementCount, float32, seededRng, type Float32Tensor } from '@kofn/core';
import { codedLayer, connect, type Cluster, type CodedLayer } from 'kofn';
import { figure, type Bench, type Figure } from '../bench.js';
import { Child, startAll } from '../harness/child.js';
import type { InstantWorkerQuestion, InstantWorkerReady } from '../harness/instant-worker.js';
import type { LinksData, LinksReady } from '../harness/links.js';
import { serialisationMs } from '../harness/rate-link.js';
import { interleaved, timed } from '../statistics.js';

const WORKERS = 5;
const PARITY = 1;
const DATA_BLOCKS = WORKERS - PARITY;
const DELAY_MS = 5;
const RATES = [
  { name: '100 Mbit/s', megabitsPerSecond: 100, rounds: 12 },
  { name: '1 Gbit/s', megabitsPerSecond: 1000, rounds: 40 },
] as const;
const WARM_UP_CALLS = 300;
const WARM_UP_ROUNDS = 2;
const LINKS = new URL('../harness/links.js', import.meta.url);
/** 10 kB a channel. */
const SIDE = 50;
const SMALL = 1;
const LARGE = [
  { name: '150 kB', channels: 15 },
  { name: '1 MB', channels: 100 },
  { name: '4 MB', channels: 400 },
] as const;
const CASES = LARGE.flatMap(({ name, channels }) => [
  { name: `${name} there`, input: channels, reply: SMALL },
  { name: `${name} back`, input: SMALL, reply: channels },
]);

type Case = (typeof CASES)[number];

export const far: Bench = {
  name: 'transport/far',
  what: '150 kB, 1 MB, 4 MB over 5 ms each way at 100 Mbit/s and 1 Gbit/s, 4 of 5',
  baseline: 'round trip and bytes over the rate, computed',
  async run({ progress }) {
    const figures: Figure[] = [];
    await using workers = await startAll<InstantWorkerReady>(
      WORKERS,
      new URL('../harness/instant-worker.js', import.meta.url),
      { replyShape: shapeOf(SMALL), delayMs: 0 },
    );
    const targets = workers.ready.map(({ address }) => address);
    const answer = async (reply: number) => {
      const question: InstantWorkerQuestion = { replyShape: shapeOf(reply) };
      await Promise.all(workers.children.map(child => child.ask(question)));
    };
    {
      await using cluster = await connect({ workers: targets });
      await using layer = await layerOf(CASES[0]!, cluster);
      const input = random(shapeOf(CASES[0]!.input));
      for (let call = 0; call < WARM_UP_CALLS; call++) await layer.run(input);
    }
    for (const rate of RATES) {
      const { megabitsPerSecond, rounds } = rate;
      const data: LinksData = { targets, delayMs: DELAY_MS, megabitsPerSecond };
      await using links = await Child.start<LinksReady>(LINKS, data);
      await using cluster = await connect({ workers: links.ready.addresses });
      for (const each of CASES) {
        await answer(each.reply);
        await using layer = await layerOf(each, cluster);
        const input = random(shapeOf(each.input));
        const call = timed(() => layer.run(input));
        const done = figures.length;
        const samples = await interleaved(
          {
            value: async () => {
              await links.ask('idle');
              return call();
            },
            baseline: () => Promise.resolve(idealMs(each, megabitsPerSecond)),
          },
          {
            rounds,
            warmUp: WARM_UP_ROUNDS,
            progress: (round, of) => progress(done + round / of, RATES.length * CASES.length),
          },
        );
        figures.push(figure({ name: `${rate.name}, ${each.name}`, unit: 'ms', target: { atMost: 1.5 } }, samples));
      }
    }
    return figures;
  },
};

function layerOf({ input, reply }: Case, cluster: Cluster): Promise<CodedLayer> {
  const weights = random([DATA_BLOCKS * reply, input, 1, 1]);
  return codedLayer({ type: 'conv', weights }, { cluster, parity: PARITY });
}

function idealMs({ input, reply }: Case, megabitsPerSecond: number): number {
  const bytes = 4 * (elementCount(shapeOf(input)) + elementCount(shapeOf(reply)));
  return 2 * DELAY_MS + serialisationMs(bytes, megabitsPerSecond);
}

function shapeOf(channels: number): number[] {
  return [1, channels, SIDE, SIDE];
}

function random(shape: readonly number[]): Float32Tensor {
  const rng = seededRng(1);
  return float32(
    shape,
    Float32Array.from({ length: elementCount(shape) }, () => rng.normal()),
  );
}
