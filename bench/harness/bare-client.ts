/**
 * The client of bare-engine.ts in a process of its own, so that its processor time can be told from the master's. A child of a
 * benchmark.
 */
import { BareClients } from './bare.js';
import { parentData, serveParent } from './child.js';
import { cpuMs } from './cpu.js';
import { randomTensors } from './random.js';

export interface BareClientData {
  readonly addresses: readonly string[];
  /** Answers that a call waits for. */
  readonly count: number;
  /** Of the shards that each server has open, in their order. */
  readonly inputShapes: readonly (readonly number[])[];
}

/** A pass calls each shard once; a call ends when every server has answered. The answer is its processor time. */
export interface BareClientQuestion {
  readonly passes: number;
}

const { addresses, count, inputShapes } = parentData<BareClientData>();
const random = randomTensors(1);
const shards = inputShapes.map((shape, shard) => ({
  clients: new BareClients(addresses, shard),
  message: Buffer.from(random(shape).data.buffer),
}));

serveParent(undefined, async question => {
  const before = cpuMs();
  for (let pass = 0; pass < (question as BareClientQuestion).passes; pass++) {
    for (const { clients, message } of shards) {
      await clients.gather(message, count);
      await clients.idle();
    }
  }
  return cpuMs() - before;
});
