/**
 * A cluster of workers with the native engine (engine-worker.ts), and what a benchmark asks of them beside requests.
 *
 * Invariants
 * 1. Malloc is set as for every worker (docs/adr/0002-memory.md).
 * 2. After `settle` nothing runs on any worker: a call that was cancelled after it had started has run to its end.
 */
import { connect, type Cluster } from 'kofn';
import { FaultControl, MALLOC, type FaultSettings } from 'kofn/measure';
import { startAll, type Child } from './child.js';
import type { EngineWorkerData, EngineWorkerQuestion, EngineWorkerReady } from './engine-worker.js';
import type { Memory } from './held-memory.js';

/** Resolves when every worker has read what was sent to it: the answer to a question that was sent after it, on the same link. */
export async function allHaveRead({ connections }: Cluster): Promise<void> {
  await Promise.all(connections.map(connection => connection.ask(client => client.health())));
}

export class Workers implements AsyncDisposable {
  readonly cluster: Cluster;
  readonly #children: readonly Child<EngineWorkerReady>[];
  readonly #close: () => Promise<void>;

  /** With a `device` each is as slow as that, and takes no core for it. */
  static async start(count: number, { device }: Pick<FaultSettings, 'device'> = {}): Promise<Workers> {
    const script = new URL('./engine-worker.js', import.meta.url);
    const data: EngineWorkerData = { allowFaults: device !== undefined };
    const started = await startAll<EngineWorkerReady>(count, script, data, MALLOC);
    const close = async () => await started[Symbol.asyncDispose]();
    try {
      for (const { address } of device === undefined ? [] : started.ready) {
        await using control = await FaultControl.connect(address);
        await control.set({ device });
      }
      const cluster = await connect({ workers: started.ready.map(({ address }) => address) });
      return new Workers(cluster, started.children, close);
    } catch (error) {
      await close();
      throw error;
    }
  }

  private constructor(cluster: Cluster, children: readonly Child<EngineWorkerReady>[], close: () => Promise<void>) {
    this.cluster = cluster;
    this.#children = children;
    this.#close = close;
  }

  /** Resolves when no worker has anything to do (invariant 2). */
  async settle(): Promise<void> {
    await allHaveRead(this.cluster);
    await this.#ask('settle');
  }

  /** Processor time since they started, of all together. */
  async cpuMs(): Promise<number> {
    return (await this.#ask<number>('cpuMs')).reduce((sum, ms) => sum + ms, 0);
  }

  /** Of each, after its garbage is collected. */
  memory(): Promise<Memory[]> {
    return this.#ask('memory');
  }

  async watchLoops(): Promise<void> {
    await this.#ask('watchLoop');
  }

  /** The worst worker's, since `watchLoops`. */
  async loopGapMsP99(): Promise<number> {
    return Math.max(...(await this.#ask<number>('loopGapMsP99')));
  }

  /** Folders of the shards that each holds, in the order of their putting. */
  shards(): Promise<string[][]> {
    return this.#ask('shards');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster.close();
    await this.#close();
  }

  #ask<Answer>(question: EngineWorkerQuestion): Promise<Answer[]> {
    return Promise.all(this.#children.map(child => child.ask<Answer>(question)));
  }
}
