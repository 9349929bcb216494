/**
 * transport/gather: what a coded layer call costs beside its transport. 150 kB to five worker processes, 4 kB back from each,
 * four of five: `codedLayer().run()` with the production client and server and engines that answer at once, against bare
 * grpc-js that writes the same bytes to one open stream each.
 */
import { codedLayer, connect } from 'kofn';
import { figure, type Bench } from '../bench.js';
import { BareClients } from '../harness/bare.js';
import { startAll } from '../harness/child.js';
import { randomTensors } from '../harness/random.js';
import { allHaveRead } from '../harness/workers.js';
import type { BareServerReady } from '../harness/bare-server.js';
import type { InstantWorkerReady } from '../harness/instant-worker.js';
import { interleaved, settled, timed } from '../statistics.js';

const WORKERS = 5;
const PARITY = 1;
const ROUNDS = 2000;
const WARM_UP = 300;
/** Of a convolution whose input is 150 kB and whose blocks are 4 kB: [1,12,56,56] to 16 channels of 8x8 a worker. */
const INPUT = [1, 12, 56, 56];
const REPLY = [1, 16, 8, 8];
const WEIGHTS = [64, 12, 7, 7];
const REPLY_BYTES = 4 * 16 * 8 * 8;

export const gather: Bench = {
  name: 'transport/gather',
  what: '150 kB to 5 workers, 4 kB back, 4 of 5; engines that answer at once',
  baseline: 'bare grpc-js, one raw stream each',
  async run({ progress }) {
    const random = randomTensors(1);
    await using workers = await startAll<InstantWorkerReady>(
      WORKERS,
      new URL('../harness/instant-worker.js', import.meta.url),
      { replyShape: REPLY, delayMs: 0 },
    );
    await using servers = await startAll<BareServerReady>(
      WORKERS,
      new URL('../harness/bare-server.js', import.meta.url),
      { replyBytes: REPLY_BYTES },
    );
    await using cluster = await connect({ workers: workers.ready.map(({ address }) => address) });
    await using layer = await codedLayer(
      { type: 'conv', weights: random(WEIGHTS), strides: [7, 7] },
      { cluster, parity: PARITY },
    );
    using bare = new BareClients(servers.ready.map(({ address }) => address));
    const input = random(INPUT);
    const message = Buffer.from(input.data.buffer);
    const samples = await interleaved(
      {
        value: settled(
          timed(() => layer.run(input)),
          () => allHaveRead(cluster),
        ),
        baseline: settled(
          timed(() => bare.gather(message, WORKERS - PARITY)),
          () => bare.idle(),
        ),
      },
      { rounds: ROUNDS, warmUp: WARM_UP, progress },
    );
    return [
      figure({ name: 'p50', unit: 'ms', target: { atMost: 1.3 } }, samples),
      figure({ name: 'p99', unit: 'ms', target: { atMost: 1.5 }, percent: 99 }, samples),
    ];
  },
};
