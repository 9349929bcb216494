/**
 * transport/bulk: large messages through the production client and server, against a node:http2 stream of the same bytes between
 * processes of the same kind and with windows as wide.
 *
 *   replies  `WorkerClient.infer` with a reply of 4 MB and of 16 MB, one at a time, from an engine that answers at once. The
 *            baseline's client counts the bytes and lets them go; ours has checked and put them into one piece.
 *   upload   `WorkerClient.put` of a shard of 100 MB to a worker as `startLocalWorkers` makes it. It hashes and writes to a
 *            disk, and so does the first baseline; the second lets the bytes go.
 *   memory   by how much the worker and this process grow, at their peak during such an upload, beyond what they had before the
 *            first, against the 100 MB: an upload is meant to need a few pieces of it, and not a copy. From /proc, so on Linux.
 *
 * Not measured: a network, a disk that is slower than its cache.
 */
import { float32, sleep, systemClock } from '@kofn/core';
import { connectChannel, shardName, WorkerClient, type ShardFiles } from '@kofn/wire';
import { startLocalWorkers } from 'kofn';
import { figure, type Bench, type BenchContext, type Figure } from '../bench.js';
import { Child } from '../harness/child.js';
import { Http2Client } from '../harness/http2-client.js';
import type { Http2ServerReady } from '../harness/http2-server.js';
import type { InstantWorkerData, InstantWorkerQuestion, InstantWorkerReady } from '../harness/instant-worker.js';
import { peakMb } from '../harness/peak-memory.js';
import { interleaved, timed, type Sample } from '../statistics.js';

const MB = 1e6;
const REPLIES = [
  { mb: 4, rounds: 120 },
  { mb: 16, rounds: 40 },
] as const;
const REPLY_WARM_UP = 20;
const UPLOAD_BYTES = 100 * MB;
const UPLOAD_ROUNDS = 8;
const UPLOAD_WARM_UP = 2;
/** What a transfer of any size may leave uncollected at its peak is the same for one of twice the size. */
const LARGER = 2;
const MEMORY_ROUNDS = 4;
/** What is collected is given back by another thread, a little later. */
const SWEEP_MS = 100;
/** As packages/wire/src/client/shard-transfer.ts has it. */
const PIECE_BYTES = 2 ** 20;
const THROUGHPUT = { unit: 'MB/s', target: { atLeast: 0.8 } } as const;

export const bulk: Bench = {
  name: 'transport/bulk',
  what: 'replies of 4 and 16 MB, upload of a shard of 100 MB and its memory',
  baseline: 'node:http2, one stream of the same bytes; for memory an upload of half the size',
  async run(context) {
    await using server = await Child.start<Http2ServerReady>(
      new URL('../harness/http2-server.js', import.meta.url),
      null,
    );
    using http2 = await Http2Client.open(server.ready.address);
    // Uploads first: what replies leave behind would be there for them to use again.
    return [...(await uploads(http2, context)), ...(await replies(http2, context))];
  },
};

async function replies(http2: Http2Client, { progress }: BenchContext): Promise<Figure[]> {
  const data: InstantWorkerData = { replyShape: [1], delayMs: 0 };
  await using worker = await Child.start<InstantWorkerReady>(
    new URL('../harness/instant-worker.js', import.meta.url),
    data,
  );
  await using channel = connectChannel(worker.ready.address);
  const client = await WorkerClient.open(channel);
  const shard = shardOf(Buffer.alloc(1));
  await client.put(shard);
  const inputs = { x: float32([1], Float32Array.of(1)) };
  const figures: Figure[] = [];
  for (const { mb, rounds } of REPLIES) {
    await worker.ask({ replyShape: [(mb * MB) / 4] } satisfies InstantWorkerQuestion);
    const samples = await interleaved(
      {
        value: throughput(mb, () => client.infer({ model: shard.name, inputs })),
        baseline: throughput(mb, () => http2.get(mb * MB)),
      },
      { rounds, warmUp: REPLY_WARM_UP, progress: (done, of) => progress(1 + figures.length + done / of, 3) },
    );
    figures.push(figure({ name: `reply of ${mb} MB`, ...THROUGHPUT }, samples));
  }
  await client.close();
  return figures;
}

async function uploads(http2: Http2Client, { progress }: BenchContext): Promise<Figure[]> {
  await using workers = await startLocalWorkers(1);
  const [{ address, pid }] = workers.workers as [{ address: string; pid: number }];
  await using channel = connectChannel(address);
  const client = await WorkerClient.open(channel);
  const weights = Buffer.alloc(LARGER * UPLOAD_BYTES);
  weights.fill(1); // its pages are there before it is measured
  let uploads = 0;
  const put = async (bytes: number) => {
    weights.writeUInt32LE(++uploads); // another shard each time: one that is there is not sent
    const shard = shardOf(weights.subarray(0, bytes));
    const mbPerSecond = await throughput(bytes / MB, () => client.put(shard))();
    await client.remove([shard.name]);
    return mbPerSecond;
  };
  const post = (path: '/store' | '/count') =>
    throughput(UPLOAD_BYTES / MB, () => http2.post(path, weights.subarray(0, UPLOAD_BYTES), PIECE_BYTES));
  const { value, stored, counted } = await interleaved(
    { value: () => put(UPLOAD_BYTES), stored: post('/store'), counted: post('/count') },
    { rounds: UPLOAD_ROUNDS, warmUp: UPLOAD_WARM_UP, progress: (done, of) => progress(done / of / 2, 3) },
  );
  const peaks = {
    worker: { value: [] as number[], baseline: [] as number[] },
    master: { value: [] as number[], baseline: [] as number[] },
  };
  for (let round = 0; round < MEMORY_ROUNDS; round++) {
    for (const [which, bytes] of [
      ['baseline', UPLOAD_BYTES],
      ['value', LARGER * UPLOAD_BYTES],
    ] as const) {
      gc!();
      await sleep(systemClock, SWEEP_MS);
      const ofMaster = await peakMb(process.pid, async () => {
        peaks.worker[which].push(await peakMb(pid, () => put(bytes)));
      });
      peaks.master[which].push(ofMaster);
    }
    progress(0.5 + (round + 1) / MEMORY_ROUNDS / 2, 3);
  }
  await client.close();
  const memory = { unit: 'MB', target: { atMost: 1.1 } } as const;
  return [
    figure({ name: 'upload, both store', ...THROUGHPUT }, { value, baseline: stored }),
    figure({ name: 'upload, http2 counts only', ...THROUGHPUT }, { value, baseline: counted }),
    figure({ name: 'upload of twice the size, peak of the worker', ...memory }, peaks.worker),
    figure({ name: 'upload of twice the size, peak of the master', ...memory }, peaks.master),
  ];
}

/** Of `mb` MB that `work` moves, in MB/s. */
function throughput(mb: number, work: () => Promise<unknown>): Sample {
  const sample = timed(work);
  return async () => mb / ((await sample()) / 1000);
}

/** A shard of nobody's model: neither engine looks into it. */
function shardOf(weights: Uint8Array): ShardFiles {
  const model = Uint8Array.of(0);
  return { name: shardName(model, weights), model, weights };
}
