/** A worker in this process with the tests' engine, and a client of it over gRPC. */
import { float32, type Tensors } from '@kofn/core';
import { connectChannel, WorkerClient, type Channel, type InferOptions } from '@kofn/wire';
import type { WorkerOptions } from '../../src/options.js';
import { startWorker, type RunningWorker } from '../../src/start.js';
import { ScaleEngine } from './scale-engine.js';
import { temporaryFolder } from './temporary.js';

export interface Running extends AsyncDisposable {
  readonly worker: RunningWorker;
  readonly engine: ScaleEngine;
  readonly channel: Channel;
  readonly client: WorkerClient;
  /** y for x = [1, 2]. */
  infer(model: string, options?: InferOptions & { timeoutMs?: number }): Promise<number[]>;
}

export const x = float32([1, 2], Float32Array.of(1, 2));

export async function startRunning(options: WorkerOptions = {}): Promise<Running> {
  const folder = await temporaryFolder();
  const engine = new ScaleEngine();
  const worker = await startWorker({ listen: '127.0.0.1:0', dataDir: folder.path, ...options }, { engine });
  const channel = connectChannel(worker.address);
  const client = await WorkerClient.open(channel);
  return {
    worker,
    engine,
    channel,
    client,
    async infer(model, { timeoutMs, ...rest } = {}) {
      return valuesOf((await client.infer({ model, inputs: { x }, timeoutMs }, rest)).outputs);
    },
    async [Symbol.asyncDispose]() {
      engine.release();
      await client.close();
      await channel[Symbol.asyncDispose]();
      await worker.close();
      await folder[Symbol.asyncDispose]();
    },
  };
}

export function valuesOf(outputs: Tensors): number[] {
  return [...(outputs['y']!.data as Float32Array)];
}
