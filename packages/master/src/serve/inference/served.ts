/** What the parts of the server share: the models that it serves, and what became of each request. */
import type { Cluster } from '../../fleet/cluster.js';
import type { RunReport } from '../../contract/report.js';
import type { CodedModel } from '../../coded-model.js';

/** A model as clients know it. */
export interface ServedModel {
  readonly name: string;
  readonly version: string;
  readonly model: CodedModel;
  /** Class names in the order of the outputs, when a labels file was given. */
  readonly labels: readonly string[] | undefined;
}

/** A request that has ended. */
export interface EndedRequest {
  /** The client's own id, or one that was made here. */
  readonly id: string;
  readonly model: string;
  readonly version: string;
  /** By the cluster's clock: when it was taken, and how long until it was answered or failed, the wait in the queue included. */
  readonly atMs: number;
  readonly ms: number;
  readonly queueMs: number;
  /** Of an answer. */
  readonly report?: RunReport | undefined;
  /** Of a failure: its code. */
  readonly error?: string | undefined;
}

/** What others of the server may look at and listen to. */
export interface ServerView {
  readonly cluster: Cluster;
  readonly models: () => readonly ServedModel[];
  /** Requests that wait for the cluster, and those that run. */
  readonly load: () => { readonly queued: number; readonly running: number };
  /** Calls `listener` with each request that has ended; returns what ends that. A listener costs microseconds and never throws. */
  onEnded(listener: (request: EndedRequest) => void): () => void;
}
