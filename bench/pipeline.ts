/**
 * pipeline: what requests in flight at once gain. Three coded layers in a row, each four of five, over links of 5 ms each way
 * (harness/rate-link.ts, without a rate) to engines that take 5 ms a run; requests a second with sixteen under way, against
 * one at a time.
 *
 * One request takes three times a round trip and a run, 45 ms. A worker runs one request after another (wire/src/server/request-queue.ts), so
 * on five workers that hold all three layers no more than one request in 15 ms could pass, three times as many. So each layer
 * stands on five workers of its own, as `workers` of a model's options has it: a request a run, 5 ms, nine times as many.
 *
 * Not measured: arithmetic, bytes (256 a message), and a machine for each: the 15 workers, their links and the master share this
 * one's cores, which is what limits the rate when they are few. The links therefore spin for nothing and take up to 2 ms more, on both
 * sides.
 */
import { systemClock, type Float32Tensor } from '@kofn/core';
import { codedLayer, connect, type CodedLayer } from 'kofn';
import { figure, type Bench } from './bench.js';
import { Child, startAll } from './harness/child.js';
import type { InstantWorkerData, InstantWorkerReady } from './harness/instant-worker.js';
import type { LinksData, LinksReady } from './harness/links.js';
import { randomTensors } from './harness/random.js';
import { interleaved, type Sample } from './statistics.js';

const LAYERS = 3;
const WORKERS = 5;
const PARITY = 1;
const DELAY_MS = 5;
const RUN_MS = 5;
const IN_FLIGHT = 16;
/** Of a sample: enough that filling and draining the pipeline are little of it. */
const REQUESTS = { one: 8, many: 128 } as const;
const ROUNDS = 15;
const WARM_UP = 4;
const WIDTH = 64;

const random = randomTensors(1);

export const pipeline: Bench = {
  name: 'pipeline',
  what: 'requests a second through three layers, 5 ms links, 5 ms runs, 16 in flight',
  baseline: 'one in flight',
  async run({ progress }) {
    const data: InstantWorkerData = { replyShape: [1, WIDTH / (WORKERS - PARITY)], delayMs: RUN_MS };
    await using workers = await startAll<InstantWorkerReady>(
      LAYERS * WORKERS,
      new URL('./harness/instant-worker.js', import.meta.url),
      data,
    );
    const targets = workers.ready.map(({ address }) => address);
    await using links = await Child.start<LinksReady>(new URL('./harness/links.js', import.meta.url), {
      targets,
      delayMs: DELAY_MS,
      isCoarse: true,
    } satisfies LinksData);
    await using cluster = await connect({ workers: links.ready.addresses });
    const layers: CodedLayer[] = []; // closed with the cluster
    for (let layer = 0; layer < LAYERS; layer++) {
      const own = Array.from({ length: WORKERS }, (_, worker) => layer * WORKERS + worker);
      const options = { cluster, parity: PARITY, workers: own };
      layers.push(await codedLayer({ type: 'dense', weights: random([WIDTH, WIDTH]) }, options));
    }
    const input = random([1, WIDTH]);
    const request = async () => {
      let value: Float32Tensor = input;
      for (const layer of layers) value = (await layer.run(value)).output;
    };
    const samples = await interleaved(
      {
        value: requestsPerSecond(request, { requests: REQUESTS.many, inFlight: IN_FLIGHT }),
        baseline: requestsPerSecond(request, { requests: REQUESTS.one, inFlight: 1 }),
      },
      { rounds: ROUNDS, warmUp: WARM_UP, progress },
    );
    return [figure({ name: `${IN_FLIGHT} in flight`, unit: 'requests/s', target: { atLeast: 6 } }, samples)];
  },
};

function requestsPerSecond(
  request: () => Promise<void>,
  { requests, inFlight }: { requests: number; inFlight: number },
): Sample {
  return async () => {
    let begun = 0;
    const lane = async () => {
      while (begun++ < requests) await request();
    };
    const start = systemClock.now();
    await Promise.all(Array.from({ length: inFlight }, lane));
    return requests / ((systemClock.now() - start) / 1000);
  };
}
