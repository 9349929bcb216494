/** An engine without arithmetic: a benchmark of the transport has nothing else to wait for. */
import { elementCount, float32, sleep, systemClock, type Tensors } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import { shardOutput } from '@kofn/graph';

const Y = shardOutput(0);

/** Every model takes `x` and answers its first output, zeros of `replyShape`, after `delayMs` (0: at once), one run after another. */
export function instantEngine(replyShape: readonly number[], delayMs = 0): Engine {
  const free = Promise.resolve();
  const session: Session = {
    inputs: [{ name: 'x', dtype: 'float32', shape: [] }],
    outputs: [{ name: Y, dtype: 'float32', shape: replyShape }],
    async run(): Promise<Tensors> {
      await (delayMs > 0 ? sleep(systemClock, delayMs) : free);
      return { [Y]: float32(replyShape, new Float32Array(elementCount(replyShape))) };
    },
    [Symbol.asyncDispose]: () => free,
  };
  return {
    name: 'simulated',
    version: '0',
    open: () => Promise.resolve(session),
    [Symbol.asyncDispose]: () => free,
  };
}
