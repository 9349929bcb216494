/**
 * What engine and transport cost by themselves: the floats of each message go through a shard that ONNX Runtime opened as the
 * worker's engine does, on the main thread, and its output's bytes go back. No queue, codec or checks. A child of a benchmark.
 */
import path from 'node:path';
import { sessionOptions } from '@kofn/engine';
import ort from 'onnxruntime-node';
import { listenBare, type BareCall } from './bare-listen.js';
import { serveParent } from './child.js';
import { cpuMs } from './cpu.js';

export interface BareShard {
  readonly folder: string;
  readonly inputShape: readonly number[];
}

export interface BareEngineReady {
  readonly address: string;
}

/** `open` replaces the shards that were open; streams name them by their place. */
export type BareEngineQuestion = { readonly open: readonly BareShard[] } | 'cpuMs';

interface OpenShard {
  readonly session: ort.InferenceSession;
  readonly inputShape: readonly number[];
}

let shards: readonly OpenShard[] = [];

async function open(asked: readonly BareShard[]): Promise<void> {
  await Promise.all(shards.map(({ session }) => session.release()));
  shards = await Promise.all(
    asked.map(async ({ folder, inputShape }) => ({
      session: await ort.InferenceSession.create(path.join(folder, 'model.onnx'), sessionOptions(1)),
      inputShape,
    })),
  );
}

async function run(call: BareCall, message: Buffer, shard: number): Promise<void> {
  const { session, inputShape } = shards[shard]!;
  const x = new ort.Tensor('float32', floatsOf(message), inputShape);
  const { data } = (await session.run({ x }))['y']!;
  const { buffer, byteOffset, byteLength } = data as Float32Array;
  call.write(Buffer.from(buffer, byteOffset, byteLength));
}

function floatsOf(message: Buffer): Float32Array {
  const bytes = message.byteOffset % 4 === 0 ? message : new Uint8Array(message);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
}

const address = await listenBare((call, message, shard) => void run(call, message, shard));
serveParent({ address } satisfies BareEngineReady, question => {
  const asked = question as BareEngineQuestion;
  return asked === 'cpuMs' ? cpuMs() : open(asked.open);
});
