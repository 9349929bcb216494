import type { Float32Tensor } from '@kofn/core';
import type { Connection } from '../fleet/connection.js';
import type { GroupOutputs } from './group-outputs.js';
import type { LocalBlocks } from './recover.js';

/** A reply that is not believed. */
export interface Suspicion {
  readonly connection: Connection;
  /** How often the worker had been released when it replied. */
  readonly releases: number;
  /** Names of the layers, for people. */
  readonly layer: string;
  readonly block: number;
  /** As the shard takes it, and nobody else's: the caller may use its buffer for something else by now. */
  readonly input: Float32Tensor;
  /** What was replied, of each layer. */
  readonly values: readonly Float32Array[];
  readonly local: LocalBlocks;
  readonly outputs: GroupOutputs;
}
