/** How a model stands on its workers. */
import type { Refusal } from './plan.js';

/** How a layer stands: an answer needs k of its n blocks, and `ready` of them are on workers that are ready. */
export interface LayerHealth {
  readonly layer: string;
  readonly k: number;
  readonly n: number;
  readonly ready: number;
  /** Blocks that may still be lost, whichever they are, before workers alone cannot answer; with replication fewer than ready - k. */
  readonly margin: number;
  /** Who holds them now, by block; with a hedge data blocks have a second. */
  readonly workers: readonly (readonly number[])[];
  /** The names of their shards, by block. */
  readonly shards: readonly string[];
  /** Workers that did not take what is theirs, the last time that it was put to them: it is missing there, and tried again. */
  readonly refusals: readonly Refusal[];
}

export interface ModelHealth {
  /** In the order of the steps. */
  readonly layers: readonly LayerHealth[];
  /** The smallest margin of a layer; null when nothing is coded. */
  readonly margin: number | null;
  /** As those of its layers and replicated segments, one a worker. */
  readonly refusals: readonly Refusal[];
}
