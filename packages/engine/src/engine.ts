/**
 * The contract of an engine: something that opens ONNX models and runs them off the caller's thread. Worker and master
 * use it alike; the simulator replaces it.
 *
 * Invariants
 * 1. Neither `open` nor `run` ever blocks the calling thread: engines live in worker threads.
 * 2. A model is a folder: `model.onnx`, and its external data (if any) at `weights.bin` beside it.
 * 3. Every failure is a KofnError; the engine stays usable after one.
 */
import type { DType, Tensors } from '@kofn/core';

export const ENGINE_NAMES = ['native', 'wasm'] as const;
export type EngineName = (typeof ENGINE_NAMES)[number];

export interface ValueInfo {
  readonly name: string;
  readonly dtype: DType;
  /** Sizes, or a name (or '' when unnamed) where the model leaves the size open. */
  readonly shape: readonly (number | string)[];
}

export interface OpenOptions {
  /**
   * Threads that one operator may use (ONNX Runtime intra-op). Default 1. WebAssembly has one number for all sessions of
   * an engine: that of the first.
   */
  readonly threads?: number;
}

export interface RunOptions {
  /**
   * Whether input buffers may be moved to the engine's thread instead of copied: the ArrayBuffer of a tensor that takes more than
   * half of it is then detached, with all that lies in it. Default false.
   */
  readonly transfer?: boolean;
}

export interface Session extends AsyncDisposable {
  /** What `run` takes, in the model's order; initializers that may be overridden are not listed. */
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
  /**
   * Runs the model once. Runs of one engine thread execute in the order of their calls. Returns every output, in
   * buffers of the caller's own. Throws INVALID_ARGUMENT (missing or unknown input), SHAPE_MISMATCH, DTYPE_MISMATCH,
   * RESOURCE_EXHAUSTED (out of memory), ENGINE (ONNX Runtime failed), CANCELLED (the session or engine is closed). Closing
   * a session cancels its runs; one that has started is waited for.
   */
  run(feeds: Tensors, options?: RunOptions): Promise<Tensors>;
}

export interface Engine extends AsyncDisposable {
  readonly name: EngineName | 'simulated';
  /** Version of the runtime behind it. */
  readonly version: string;
  /**
   * Opens the model in folder `location`. Throws NOT_FOUND (no such folder or file), INVALID_MODEL (ONNX Runtime
   * refuses it), UNSUPPORTED (an input or output is not a tensor of core's element types), RESOURCE_EXHAUSTED (out of
   * memory), CANCELLED (the engine is closed). While the session is open its `weights.bin` may be removed or replaced by
   * rename, but not written: native sessions map it.
   */
  open(location: string, options?: OpenOptions): Promise<Session>;
  /**
   * Opens a model from its two files in memory instead; `weights` is empty when it has none. Only where the engine needs no
   * folder: the master's models then never touch the disk, which a simulation does not have. Throws as `open`.
   */
  readonly openFiles?:
    | ((files: { readonly model: Uint8Array; readonly weights: Uint8Array }, options?: OpenOptions) => Promise<Session>)
    | undefined;
  /**
   * Writes the model at `modelFile` to the folder `target` as ONNX Runtime has it after its basic graph optimisation
   * (constants and BatchNormalization folded, local functions inlined, float16 operators that it lacks between Casts; only
   * standard operators): `model.onnx`, and `weights.bin` for what is large. Absent where the engine cannot (WebAssembly
   * writes no files). Throws NOT_FOUND, INVALID_MODEL, RESOURCE_EXHAUSTED, CANCELLED.
   */
  readonly normalise?: ((modelFile: string, target: string) => Promise<void>) | undefined;
}
