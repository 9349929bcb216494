/** What a server reads of an inference request beside its tensors, whichever protocol it came by: a worker and the server of a master alike. */
import { KofnError, type Tensors } from '@kofn/core';
import { decodeTensors } from './infer-codec.js';
import type { InferParameter, InferRequestMessage } from './protos.js';

/** Parameters by name: booleans, numbers and strings, as JSON has them. */
export type ParameterValues = Readonly<Record<string, unknown>>;

export interface RequestedOutput {
  readonly name: string;
  /** So many of its highest values are asked for, as classes; undefined asks for the output itself. */
  readonly classCount?: number | undefined;
}

const SEQUENCE = 'models keep no state between requests; send each request whole, and leave this out';
const MEMORY = 'this server shares no memory with its clients; send and take the values themselves';

/** What Triton's clients may ask for by a parameter, of a request, an input or an output, that would change the answer and is not done. */
const REFUSED: Readonly<Record<string, string>> = {
  sequence_id: SEQUENCE,
  sequence_start: SEQUENCE,
  sequence_end: SEQUENCE,
  priority: 'requests are answered in the order in which they come; leave this out',
  shared_memory_region: MEMORY,
  shared_memory_byte_size: MEMORY,
  shared_memory_offset: MEMORY,
};

/** `parameters` with their values; those without one are not there. 64-bit integers beyond 2⁵³ lose digits. */
export function parameterValues(parameters: Readonly<Record<string, InferParameter>> = {}): ParameterValues {
  const values: Record<string, unknown> = {};
  for (const [name, parameter] of Object.entries(parameters)) {
    const value = valueOf(parameter);
    if (value !== undefined) values[name] = value;
  }
  return values;
}

function valueOf(parameter: InferParameter): unknown {
  const { bool_param: bool, double_param: double, string_param: text, bytes_param: bytes } = parameter;
  const whole = parameter.int64_param ?? parameter.uint64_param;
  return whole === undefined ? (bool ?? double ?? text ?? bytes) : Number(whole);
}

/** Throws UNSUPPORTED for what is not done; 0, false and '' ask for nothing. `of`: "" or "input "x": ". */
export function checkParameters(parameters: ParameterValues, of = ''): void {
  for (const [name, advice] of Object.entries(REFUSED)) {
    if (!parameters[name]) continue;
    throw new KofnError('UNSUPPORTED', `${of}parameter ${name} is not supported: ${advice}`);
  }
}

/** Throws INVALID_ARGUMENT (a name twice, a count of classes that is none), UNSUPPORTED. */
export function requestedOutputs(
  outputs: readonly { readonly name: string; readonly parameters: ParameterValues }[],
): RequestedOutput[] {
  const names = new Set<string>();
  return outputs.map(({ name, parameters }) => {
    if (names.has(name)) throw new KofnError('INVALID_ARGUMENT', `outputs: "${name}" is given twice`);
    names.add(name);
    checkParameters(parameters, `output "${name}": `);
    const { classification = 0 } = parameters;
    if (Number.isSafeInteger(classification) && (classification as number) >= 0) {
      return classification === 0 ? { name } : { name, classCount: classification as number };
    }
    const what = 'parameter classification must be the number of classes that are wanted, a whole number';
    throw new KofnError('INVALID_ARGUMENT', `output "${name}": ${what}`);
  });
}

/** Milliseconds of `microseconds`; undefined for none, and for 0, as Triton has it. Throws INVALID_ARGUMENT. */
export function timeoutMs(microseconds: unknown): number | undefined {
  if (microseconds === undefined || microseconds === 0) return undefined;
  if (Number.isSafeInteger(microseconds) && (microseconds as number) > 0) return (microseconds as number) / 1000;
  throw new KofnError('INVALID_ARGUMENT', 'parameter timeout: must be a whole number of microseconds ≥ 0');
}

/**
 * The version that loading or unloading is for; '' is all. Nothing depends on a model here, so `unload_dependents` is as good either way.
 * Throws INVALID_ARGUMENT, UNSUPPORTED (a model is what the server's own files and options say).
 */
export function versionToLoad(parameters: ParameterValues): string {
  const { version = '', unload_dependents: _dependents, ...others } = parameters;
  const [other] = Object.keys(others);
  if (other !== undefined) {
    const advice = 'models are loaded as the files and options of the server say; give version, or nothing';
    throw new KofnError('UNSUPPORTED', `parameter ${other.slice(0, 100)} is not supported: ${advice}`);
  }
  if (typeof version === 'string') return version;
  throw new KofnError('INVALID_ARGUMENT', 'parameter version: give the version as a string');
}

/**
 * What a ModelInfer message asks for. Throws PROTOCOL (its tensors), INVALID_ARGUMENT (parameters, or an output twice), UNSUPPORTED (what is not
 * done).
 */
export function readInferRequest(message: InferRequestMessage): {
  readonly inputs: Tensors;
  readonly outputs: readonly RequestedOutput[];
  readonly parameters: ParameterValues;
  readonly timeoutMs: number | undefined;
} {
  const parameters = parameterValues(message.parameters);
  checkParameters(parameters);
  for (const input of message.inputs) checkParameters(parameterValues(input.parameters), `input "${input.name}": `);
  const outputs = message.outputs.map(({ name, parameters: own }) => ({ name, parameters: parameterValues(own) }));
  return {
    inputs: decodeTensors(message.inputs, message.raw_input_contents),
    outputs: requestedOutputs(outputs),
    parameters,
    timeoutMs: timeoutMs(parameters['timeout']),
  };
}

/** The outputs that are asked for, or all when none is. Throws INVALID_ARGUMENT (the model has no such output). */
export function selectOutputs(outputs: Tensors, requested: readonly RequestedOutput[]): Tensors {
  if (requested.length === 0) return outputs;
  return Object.fromEntries(
    requested.map(({ name }) => {
      const output = Object.hasOwn(outputs, name) ? outputs[name] : undefined;
      if (output !== undefined) return [name, output];
      const there = Object.keys(outputs).join(', ');
      throw new KofnError('INVALID_ARGUMENT', `the model has no output "${name}"; it has ${there}`);
    }),
  );
}
