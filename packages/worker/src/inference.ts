/** One ModelInfer request to its response message; the unary call and the stream share it. */
import { KofnError, type Clock, type Signal, type Tensors } from '@kofn/core';
import { decodeTensors, encodeTensors, MACS, type InferRequestMessage, type InferResponseMessage } from '@kofn/wire';
import type { Executor } from './executor.js';
import type { Fate, Faults } from './faults.js';
import type { RequestQueue } from './queue.js';
import type { WorkMeter } from './work-meter.js';
import type { ShardStore } from './shard-store.js';

/** Every shard has the one version: another weight is another name. */
export const MODEL_VERSION = '1';

export interface InferenceParts {
  readonly clock: Clock;
  readonly queue: RequestQueue;
  readonly executor: Executor;
  readonly store: ShardStore;
  readonly faults: Faults | undefined;
  readonly meter: WorkMeter;
}

export interface Inference {
  readonly response: Partial<InferResponseMessage>;
  /** How long it waited for its turn, and ran. */
  readonly queueMs: number;
  readonly engineMs: number;
}

/**
 * Throws NOT_FOUND (no such shard or version), PROTOCOL (malformed tensors), INVALID_ARGUMENT (timeout, or an output that the
 * model lacks), what the queue throws (RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, CANCELLED, UNAVAILABLE), and what the executor
 * throws.
 */
export async function infer(
  request: InferRequestMessage,
  { clock, queue, executor, store, faults, meter }: InferenceParts,
  signal: Signal,
  fate?: Fate,
): Promise<Inference> {
  const { model_name: name, id } = request;
  checkVersion(name, request.model_version);
  store.bytesOf(name); // before its turn: what is not here need not wait
  const inputs = decodeTensors(request.inputs, request.raw_input_contents);
  if (fate !== undefined) faults?.follow(inputs, fate);
  const timeoutMs = timeoutOf(request);
  const submitted = clock.now();
  let started = submitted;
  const run = () => {
    started = clock.now();
    return executor.run(name, inputs, signal);
  };
  const outputs = await queue.submit(run, { signal, timeoutMs });
  const engineMs = clock.now() - started;
  meter.ran(Number(request.parameters[MACS]?.int64_param ?? 0), engineMs);
  const { tensors, raw } = encodeTensors(selectOutputs(outputs, request));
  const response = { model_name: name, model_version: MODEL_VERSION, id, outputs: tensors, raw_output_contents: raw };
  return { response, queueMs: started - submitted, engineMs };
}

/** Throws NOT_FOUND. */
export function checkVersion(name: string, version: string): void {
  if (version === '' || version === MODEL_VERSION) return;
  throw new KofnError('NOT_FOUND', `model "${name}" has no version "${version}", only "${MODEL_VERSION}"`);
}

/** Milliseconds of the request's `timeout` parameter, which is in microseconds. */
function timeoutOf({ parameters }: InferRequestMessage): number | undefined {
  const parameter = parameters['timeout'];
  if (parameter === undefined) return undefined;
  const microseconds = Number(parameter.int64_param ?? parameter.uint64_param ?? NaN);
  if (Number.isSafeInteger(microseconds) && microseconds >= 0) {
    return microseconds === 0 ? undefined : microseconds / 1000; // as Triton has it, 0 is no timeout
  }
  throw new KofnError('INVALID_ARGUMENT', 'parameter timeout: must be a whole number of microseconds ≥ 0');
}

/** The outputs that the request names, or all when it names none. */
function selectOutputs(outputs: Tensors, request: InferRequestMessage): Tensors {
  if (request.outputs.length === 0) return outputs;
  return Object.fromEntries(
    request.outputs.map(({ name }) => {
      const output = outputs[name];
      if (output !== undefined) return [name, output];
      const there = Object.keys(outputs).join(', ');
      throw new KofnError('INVALID_ARGUMENT', `the model has no output "${name}"; it has ${there}`);
    }),
  );
}
