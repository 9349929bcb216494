/** What this process holds once its garbage is collected; it has to run with --expose-gc. */
import { setImmediate } from 'node:timers/promises';

export interface Memory {
  /** Resident: heap, buffers, code, and what malloc has not given back. */
  readonly rssMB: number;
  /** Outside the heap, the bytes of array buffers among it. */
  readonly externalMB: number;
}

export async function memoryAfterGc(): Promise<Memory> {
  if (globalThis.gc === undefined) throw new Error('run it with --expose-gc, as bench/main.ts does');
  // Buffers are given back in the turn after the one that found them unused.
  for (let pass = 0; pass < 3; pass++) {
    globalThis.gc();
    await setImmediate();
  }
  const { rss, external } = process.memoryUsage();
  return { rssMB: rss / 1e6, externalMB: external / 1e6 };
}
