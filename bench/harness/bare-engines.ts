/** One bare-engine.ts a worker, with that worker's own shards: the files themselves, on its disk. */
import { MALLOC } from 'kofn/measure';
import { startAll, type Child } from './child.js';
import type { BareEngineQuestion, BareEngineReady, BareShard } from './bare-engine.js';
import type { Workers } from './workers.js';

export class BareEngines implements AsyncDisposable {
  readonly addresses: readonly string[];
  readonly #children: readonly Child<BareEngineReady>[];
  readonly #close: () => Promise<void>;

  static async start(count: number): Promise<BareEngines> {
    const script = new URL('./bare-engine.js', import.meta.url);
    return new BareEngines(await startAll<BareEngineReady>(count, script, {}, MALLOC));
  }

  private constructor(started: Awaited<ReturnType<typeof startAll<BareEngineReady>>>) {
    this.addresses = started.ready.map(({ address }) => address);
    this.#children = started.children;
    this.#close = async () => await started[Symbol.asyncDispose]();
  }

  /** Opens what `workers` hold in the place of what was open; input shapes in the order in which the shards were put. */
  async open(workers: Workers, inputShapes: readonly (readonly number[])[]): Promise<void> {
    const held = await workers.shards();
    await this.#ask(worker => ({
      open: inputShapes.map((inputShape, shard): BareShard => ({ folder: held[worker]![shard]!, inputShape })),
    }));
  }

  /** Processor time since they started, of all together. */
  async cpuMs(): Promise<number> {
    return (await this.#ask<number>(() => 'cpuMs')).reduce((sum, ms) => sum + ms, 0);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#close();
  }

  #ask<Answer>(question: (worker: number) => BareEngineQuestion): Promise<Answer[]> {
    return Promise.all(this.#children.map((child, worker) => child.ask<Answer>(question(worker))));
  }
}
