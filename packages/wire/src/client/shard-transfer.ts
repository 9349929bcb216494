/** A shard's name and its way over the wire in chunks. */
import { createHash } from 'node:crypto';
import type { ShardBlock } from '../protocol/block.js';
import type { MessageParts } from '../protocol/channel.js';
import { FrameWriter } from '../protocol/frame-writer.js';
import type { Owner } from '../protocol/owner.js';
import { codecs } from '../protocol/protos.js';

/** Large enough that a message costs little, small enough that progress moves and memory stays flat. */
export const CHUNK_BYTES = 2 ** 20;

/** Tag of PutRequest.data (field 2, bytes). */
const DATA = (2 << 3) | 2;

export interface ShardFiles {
  /** shardName(model, weights). */
  readonly name: string;
  readonly model: Uint8Array;
  readonly weights: Uint8Array;
  /** What it is to the owner that it is put for. */
  readonly block?: ShardBlock | undefined;
}

/** A shard whose weights are there, or are made as they are sent. */
export interface ShardSource extends Omit<ShardFiles, 'weights'> {
  readonly weights: Uint8Array | WeightStream;
}

export interface WeightStream {
  readonly byteLength: number;
  /** All of them in order, once for each that asks; a chunk is good until the next is asked for. */
  chunks(): AsyncIterable<Uint8Array>;
}

/** SHA-256, lower-case hexadecimal, of u64le(model length) ‖ model ‖ weights. */
export function shardName(model: Uint8Array, weights: Uint8Array): string {
  return shardHash(model.byteLength).update(model).update(weights).digest('hex');
}

/** The hash of a shard's name with the model's length already in it. */
export function shardHash(modelBytes: number) {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(modelBytes));
  return createHash('sha256').update(length);
}

/** The messages of ShardStore.Put. `onProgress` gets the shard's bytes handed over so far, after each chunk. */
export async function* putMessages(
  { name, model, weights, block }: ShardSource,
  { owner, onProgress }: { owner?: Owner | undefined; onProgress?: ((sentBytes: number) => void) | undefined } = {},
): AsyncGenerator<Uint8Array | MessageParts> {
  const sizes = { model_bytes: model.byteLength, weights_bytes: weights.byteLength };
  const header = { name, ...sizes, owner, block };
  yield codecs.putRequest.encode({ header });
  let sent = 0;
  for await (const part of partsOf({ model, weights })) {
    for (let at = 0; at < part.byteLength; at += CHUNK_BYTES) {
      const data = part.subarray(at, at + CHUNK_BYTES);
      const writer = new FrameWriter();
      writer.payload(DATA, data);
      yield writer.finish();
      sent += data.byteLength;
      onProgress?.(sent);
      await Promise.resolve();
    }
  }
}

async function* partsOf({ model, weights }: Pick<ShardSource, 'model' | 'weights'>): AsyncGenerator<Uint8Array> {
  yield model;
  if (weights instanceof Uint8Array) yield weights;
  else yield* weights.chunks();
}
