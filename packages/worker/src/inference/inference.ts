/** One ModelInfer request to its response message; the unary call and the stream share it. */
import { KofnError, type Clock, type Signal } from '@kofn/core';
import {
  encodeTensors,
  MACS,
  readInferRequest,
  REQUEST_ID,
  selectOutputs,
  type InferRequestMessage,
  type InferResponseMessage,
  type RequestQueue,
} from '@kofn/wire';
import type { Executor } from './executor.js';
import type { Fate, Faults } from '../faults/faults.js';
import type { Logger } from '../process/logs.js';
import type { WorkMeter } from './work-meter.js';
import type { ShardStore } from '../store/shard-store.js';

/** Every shard has the one version: another weight is another name. */
export const MODEL_VERSION = '1';

export interface InferenceParts {
  readonly clock: Clock;
  readonly queue: RequestQueue;
  readonly executor: Executor;
  readonly store: ShardStore;
  readonly faults: Faults | undefined;
  readonly meter: WorkMeter;
  /** Told how long each inference waited and ran. */
  readonly took: (queueMs: number, engineMs: number) => void;
  readonly logger: Logger | undefined;
}

export interface Inference {
  readonly response: Partial<InferResponseMessage>;
  /** How long it waited for its turn, and ran. */
  readonly queueMs: number;
  readonly engineMs: number;
}

/**
 * Throws NOT_FOUND (no such shard or version), as `readInferRequest` (what is asked for), INVALID_ARGUMENT (an output that the model
 * lacks), UNSUPPORTED (classes), what the queue throws (RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE), and what the executor
 * throws.
 */
export async function infer(
  request: InferRequestMessage,
  { clock, queue, executor, store, faults, meter, took, logger }: InferenceParts,
  signal: Signal,
  fate?: Fate,
): Promise<Inference> {
  const { model_name: name, id } = request;
  checkVersion(name, request.model_version);
  store.bytesOf(name); // before its turn: what is not here need not wait
  const { inputs, outputs: requested, timeoutMs } = readInferRequest(request);
  if (requested.some(({ classCount }) => classCount !== undefined)) {
    throw new KofnError('UNSUPPORTED', 'parameter classification is not supported by a worker; ask `kofn serve`');
  }
  if (fate !== undefined) faults?.follow(inputs, fate);
  const submitted = clock.now();
  let started = submitted;
  const run = () => {
    started = clock.now();
    return executor.run(name, inputs, signal);
  };
  const outputs = await queue.submit(run, { signal, timeoutMs });
  const engineMs = clock.now() - started;
  const queueMs = started - submitted;
  took(queueMs, engineMs);
  logger?.debug(
    { request: request.parameters[REQUEST_ID]?.string_param, id, shard: name, queueMs, engineMs },
    'inference',
  );
  meter.ran(Number(request.parameters[MACS]?.int64_param ?? 0), engineMs);
  const { tensors, raw } = encodeTensors(selectOutputs(outputs, requested));
  const response = { model_name: name, model_version: MODEL_VERSION, id, outputs: tensors, raw_output_contents: raw };
  return { response, queueMs, engineMs };
}

export function isVersion(version: string): boolean {
  return version === '' || version === MODEL_VERSION;
}

/** Throws NOT_FOUND. */
export function checkVersion(name: string, version: string): void {
  if (isVersion(version)) return;
  throw new KofnError('NOT_FOUND', `model "${name}" has no version "${version}", only "${MODEL_VERSION}"`);
}
