/** An engine without arithmetic: a benchmark of the transport has nothing else to wait for. */
import { elementCount, float32, sleep, systemClock, type Float32Tensor, type Tensors } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import { shardOutput } from '@kofn/graph';

const Y = shardOutput(0);

export interface InstantEngine extends Engine {
  /** Of what it answers from now on. */
  setReply(shape: readonly number[]): void;
}

/**
 * Every model takes `x` and answers its first output, zeros of `replyShape` that are the same each time, after `delayMs` (0: at
 * once), one run after another.
 */
export function instantEngine(replyShape: readonly number[], delayMs = 0): InstantEngine {
  const free = Promise.resolve();
  let reply = zeros(replyShape);
  const session: Session = {
    inputs: [{ name: 'x', dtype: 'float32', shape: [] }],
    outputs: [{ name: Y, dtype: 'float32', shape: replyShape }],
    async run(): Promise<Tensors> {
      await (delayMs > 0 ? sleep(systemClock, delayMs) : free);
      return { [Y]: reply };
    },
    [Symbol.asyncDispose]: () => free,
  };
  return {
    name: 'simulated',
    version: '0',
    open: () => Promise.resolve(session),
    setReply: shape => (reply = zeros(shape)),
    [Symbol.asyncDispose]: () => free,
  };
}

function zeros(shape: readonly number[]): Float32Tensor {
  return float32(shape, new Float32Array(elementCount(shape)));
}
