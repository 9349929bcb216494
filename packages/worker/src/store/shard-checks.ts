/** What a put and an open check of a shard, for shard-store.ts. */
import { KofnError } from '@kofn/core';
import type { StoredBlob } from './blob-store.js';

/** What a shard may be called. */
export const NAME = /^[0-9a-f]{64}$/;

/** Bytes of model and weights. */
export function sizeOf({ modelBytes, weightsBytes }: StoredBlob): number {
  return modelBytes + weightsBytes;
}

/** Enough of a hash to tell shards apart in a message. */
export function short(name: string): string {
  return name.length > 24 ? `${name.slice(0, 12)}…` : name;
}

/** Throws INVALID_ARGUMENT. */
export function checkHeader({ name, modelBytes, weightsBytes }: StoredBlob): void {
  if (!NAME.test(name)) {
    throw new KofnError('INVALID_ARGUMENT', `shard name "${short(name)}": must be a SHA-256 in 64 hexadecimal digits`);
  }
  for (const [what, size, least] of [
    ['model_bytes', modelBytes, 1],
    ['weights_bytes', weightsBytes, 0],
  ] as const) {
    if (Number.isSafeInteger(size) && size >= least) continue;
    throw new KofnError(
      'INVALID_ARGUMENT',
      `${what} ${size} of shard ${short(name)}: must be from ${least} to 2^53 - 1`,
    );
  }
}

/** Throws DATA_LOSS with `advice`. */
export function checkHash(name: string, actual: string, advice: string): void {
  if (actual === name) return;
  throw new KofnError('DATA_LOSS', `the bytes of shard ${short(name)} hash to ${short(actual)}: ${advice}`);
}
