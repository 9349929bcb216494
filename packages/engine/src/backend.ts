/**
 * What runs inside an engine's thread: one ONNX Runtime. Blocking is fine here; thread.ts calls it from a thread of its
 * own. Implementations: native.ts, wasm.ts.
 */
import type { Tensors } from '@kofn/core';
import type { ValueInfo } from './engine.js';

export interface BackendSession {
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  /** `feeds` fit `inputs`. Throws whatever the runtime throws. */
  run(feeds: Tensors): Promise<Tensors>;
  release(): Promise<void>;
}

export interface Backend {
  /** Version of the runtime. */
  readonly version: string;
  /** Opens `model.onnx` in `folder`, which exists. Throws whatever the runtime throws. */
  open(folder: string, threads: number): Promise<BackendSession>;
  /** Writes the normalised `modelFile` to `target` (engine.ts). */
  normalise?(modelFile: string, target: string): Promise<void>;
}
