/** What shards gave for their inputs, so that it can be given again without computing it: bounded, the one used last stays longest. */
import { createHash } from 'node:crypto';
import { tensorBytes, type Tensors } from '@kofn/core';

const MAX_BYTES = 64 * 2 ** 20;
/** Of an entry beside its elements. */
export const ENTRY_BYTES = 1024;

export class ReplayMemory {
  readonly #maxBytes: number;
  /** From the one unused for longest to the one used last. */
  readonly #outputs = new Map<string, Tensors>();
  #bytes = 0;

  constructor(maxBytes: number = MAX_BYTES) {
    this.#maxBytes = maxBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The outputs that were kept for `key`, not copied. */
  get(key: string): Tensors | undefined {
    const outputs = this.#outputs.get(key);
    if (outputs === undefined) return undefined;
    this.#outputs.delete(key);
    this.#outputs.set(key, outputs);
    return outputs;
  }

  /** Keeps `outputs`, which nobody may change any more, unless they have no bytes of a fixed size or are over the limit by themselves. */
  keep(key: string, outputs: Tensors): void {
    const bytes = sizeOf(outputs);
    if (bytes > this.#maxBytes || this.#outputs.has(key)) return;
    this.#outputs.set(key, outputs);
    this.#bytes += bytes;
    for (const [oldest, gone] of this.#outputs) {
      if (this.#bytes <= this.#maxBytes) return;
      this.#outputs.delete(oldest);
      this.#bytes -= sizeOf(gone);
    }
  }

  clear(): void {
    this.#outputs.clear();
    this.#bytes = 0;
  }
}

/** What names these inputs of this shard; undefined for texts, which are not kept. */
export function replayKey(shard: string, inputs: Tensors): string | undefined {
  const entries = Object.entries(inputs);
  if (entries.some(([, { dtype }]) => dtype === 'string')) return undefined;
  const heads = entries.map(([name, { dtype, shape }]) => [name, dtype, shape]);
  const hash = createHash('sha256').update(JSON.stringify([shard, heads]));
  for (const [, value] of entries) hash.update(tensorBytes(value));
  return hash.digest('base64');
}

/** Infinity when it is not of fixed size. */
function sizeOf(outputs: Tensors): number {
  return Object.values(outputs).reduce(
    (sum, { data }) => sum + (Array.isArray(data) ? Infinity : data.byteLength),
    ENTRY_BYTES,
  );
}
