/** A server around a model, as small as can be: requests one after another, no queue. What registers itself at a server is tested on it. */
import { KofnError } from '@kofn/core';
import type { EndedRequest, ServerView } from '@kofn/master/serve';
import type { Cluster, CodedModel, RunReport } from 'kofn';

export class SmallServer implements ServerView {
  readonly cluster: Cluster;
  readonly #model: CodedModel;
  readonly #listeners = new Set<(request: EndedRequest) => void>();
  #running = 0;

  constructor(cluster: Cluster, model: CodedModel) {
    this.cluster = cluster;
    this.#model = model;
  }

  models = () => [{ name: this.#model.name, version: '1', model: this.#model, labels: undefined }];

  load = () => ({ queued: 0, running: this.#running });

  onEnded(listener: (request: EndedRequest) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Runs the model; the report of its answer. Throws as it does. */
  async run(...[inputs, options]: Parameters<CodedModel['run']>): Promise<RunReport> {
    const { clock } = this.cluster;
    const atMs = clock.now();
    const about = { id: String(atMs), model: this.#model.name, version: '1', atMs, queueMs: 0 };
    this.#running++;
    try {
      const { report } = await this.#model.run(inputs, options);
      this.#tell({ ...about, ms: clock.now() - atMs, report });
      return report;
    } catch (error) {
      this.#tell({ ...about, ms: clock.now() - atMs, error: KofnError.from(error).code });
      throw error;
    } finally {
      this.#running--;
    }
  }

  #tell(request: EndedRequest): void {
    for (const listener of this.#listeners) listener(request);
  }
}
