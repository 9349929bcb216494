/** Bodies of the Open Inference Protocol's REST, with the binary tensor data extension: bytes to a call of server.ts, answer to bytes. */
import { KofnError, type Tensor, type Tensors } from '@kofn/core';
import type { ValueInfo } from '@kofn/graph';
import {
  checkParameters,
  datatypeOf,
  dtypeOf,
  encodeTensors,
  parameterValues,
  requestedOutputs,
  timeoutMs,
  versionToLoad,
  type ParameterValues,
} from '@kofn/wire';
import { parse as parseLossless } from 'lossless-json';
import { z } from 'zod';
import { parseJson } from './json.js';
import { bareTensor, isInexact, tensorFromBinary, tensorFromJson, tensorToJson } from './rest-tensors.js';
import type { InferAnswer, InferCall } from '../inference/server.js';

/** Says how long the JSON in front of binary data is. */
export const HEADER_LENGTH = 'inference-header-content-length';

/** Null stands for what is left out: serialisers of Python's write it. */
const optional = <T extends z.ZodType>(schema: T) => schema.nullish().transform(value => value ?? undefined);

const parameters = optional(z.record(z.string(), z.unknown())).transform(given =>
  Object.fromEntries(Object.entries(given ?? {}).filter(([, value]) => value !== null)),
);

const inferBody = z.object({
  id: optional(z.string()),
  parameters,
  inputs: z.array(
    z.object({
      name: z.string(),
      shape: z.array(z.int().min(0)),
      datatype: z.string(),
      parameters,
      data: optional(z.array(z.unknown())),
    }),
  ),
  outputs: optional(z.array(z.object({ name: z.string(), parameters }))),
});

const indexBody = z.object({ ready: optional(z.boolean()) });
const loadBody = z.object({ parameters });

type InferBody = z.infer<typeof inferBody>;
type BodyInput = InferBody['inputs'][number];

export interface RestCall extends Omit<InferCall, 'model' | 'version' | 'signal'> {
  /** Whether the output of that name is wanted as binary data. */
  readonly isBinary: (output: string) => boolean;
}

/**
 * `headerLength`: of the header of that name, where there is one; 0 says that the body is the one input of the model, `takes`, and nothing else.
 * Throws INVALID_ARGUMENT, SHAPE_MISMATCH, DTYPE_MISMATCH, UNSUPPORTED, PROTOCOL: what is wrong with the body.
 */
export function readInferBody(body: Buffer, headerLength: string | undefined, takes: readonly ValueInfo[]): RestCall {
  const jsonBytes = headerLength === undefined ? body.byteLength : lengthOf(headerLength, body);
  if (headerLength !== undefined && jsonBytes === 0) {
    return { id: '', inputs: readBareInput(body, takes), outputs: [], isBinary: () => true };
  }
  const given = parseBody(body.subarray(0, jsonBytes));
  const binary = new BinaryPart(body.subarray(jsonBytes));
  checkParameters(given.parameters);
  const names = given.inputs.map(({ name }) => name);
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) throw invalid(`inputs: "${twice}" is given twice`);
  const inputs = Object.fromEntries(given.inputs.map(input => [input.name, readInput(input, binary)]));
  binary.end();
  const outputs = given.outputs ?? [];
  const all = flag(given.parameters, 'binary_data_output') ?? false;
  const wanted = new Map(outputs.map(output => [output.name, flag(output.parameters, 'binary_data')]));
  return {
    id: given.id ?? '',
    inputs,
    outputs: requestedOutputs(outputs),
    timeoutMs: timeoutMs(given.parameters['timeout']),
    isBinary: name => wanted.get(name) ?? all,
  };
}

/** The response to it. Throws UNSUPPORTED, NON_FINITE: an output that has no form in JSON. */
export function writeInferAnswer(
  answer: InferAnswer,
  isBinary: RestCall['isBinary'],
): { readonly body: Buffer; readonly headerLength: number | undefined } {
  const outputs = Object.entries(answer.outputs);
  const inBinary = outputs.filter(([name]) => isBinary(name));
  const { raw } = encodeTensors(Object.fromEntries(inBinary));
  const sizes = new Map(inBinary.map(([name], at) => [name, raw[at]!.byteLength]));
  const head = JSON.stringify({
    model_name: answer.model,
    model_version: answer.version,
    id: answer.id,
    parameters: parameterValues(answer.parameters),
  });
  const text = outputs.map(([name, value]) => outputText(name, value, sizes.get(name))).join(',');
  // Element by element JSON.stringify could not write 64-bit integers.
  const json = Buffer.from(`${head.slice(0, -1)},"outputs":[${text}]}`);
  if (raw.length === 0) return { body: json, headerLength: undefined };
  return { body: Buffer.concat([json, ...raw]), headerLength: json.byteLength };
}

function outputText(name: string, value: Tensor, binarySize: number | undefined): string {
  const about = { name, datatype: datatypeOf(value.dtype), shape: value.shape };
  if (binarySize !== undefined) return JSON.stringify({ ...about, parameters: { binary_data_size: binarySize } });
  return `${JSON.stringify(about).slice(0, -1)},"data":${tensorToJson(name, value)}}`;
}

/** `{"ready": true}` asks for models that are loaded alone. Throws INVALID_ARGUMENT. */
export function readIndexBody(body: Buffer): { readonly ready?: boolean | undefined } {
  return checked(indexBody, optionalJson(body));
}

/** The version that is to be loaded or unloaded; '' for all. Throws INVALID_ARGUMENT, UNSUPPORTED. */
export function readLoadBody(body: Buffer): string {
  return versionToLoad(checked(loadBody, optionalJson(body)).parameters);
}

function optionalJson(body: Buffer): unknown {
  return body.byteLength === 0 ? {} : (parseJson(body) ?? {});
}

function parseBody(bytes: Buffer): InferBody {
  if (bytes.byteLength === 0) throw invalid('the request has no body; POST it as JSON');
  const body = checked(inferBody, parseJson(bytes));
  const is64 = ({ datatype, data, shape }: BodyInput) =>
    /^U?INT64$/.test(datatype) && data !== undefined && isInexact(data, shape.length);
  if (!body.inputs.some(is64)) return body;
  return inferBody.parse(parseLossless(bytes.toString('utf8'), null, exactNumber)); // it takes ten times as long
}

/** Throws INVALID_ARGUMENT, which says where `json` is not as `schema` has it. */
function checked<T extends z.ZodType>(schema: T, json: unknown): z.infer<T> {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const [{ path, message }] = parsed.error.issues as [z.core.$ZodIssue];
  const at = path
    .map((part, i) => (typeof part === 'number' ? `[${part}]` : `${i > 0 ? '.' : ''}${String(part)}`))
    .join('');
  throw invalid(`${at === '' ? 'the body' : at}: ${message}`);
}

function exactNumber(text: string): number | bigint {
  const value = Number(text);
  return Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(text) ? BigInt(text) : value;
}

function readInput({ name, shape, datatype, parameters: own, data }: BodyInput, binary: BinaryPart): Tensor {
  checkParameters(own, `input "${name}": `);
  const dtype = dtypeOf(datatype);
  if (dtype === undefined) throw invalid(`input "${name}": there is no datatype "${datatype.slice(0, 40)}"`);
  const size = own['binary_data_size'];
  if (size === undefined) {
    if (data === undefined) throw invalid(`input "${name}": give its data, or binary_data_size and a binary part`);
    return tensorFromJson(name, dtype, shape, data);
  }
  if (data !== undefined) throw invalid(`input "${name}": data and binary_data_size are given; give one of them`);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw invalid(`input "${name}": binary_data_size is no whole number ≥ 0`);
  }
  const bytes = binary.next(name, size);
  return naming(name, () => tensorFromBinary(name, dtype, datatype, shape, bytes));
}

function readBareInput(body: Buffer, takes: readonly ValueInfo[]): Tensors {
  const [input, ...others] = takes;
  if (input === undefined || others.length > 0) {
    const names = takes.map(({ name }) => name).join(', ') || 'none';
    throw invalid(
      `header ${HEADER_LENGTH} is 0: the body would be the only input, and this model takes ${takes.length} (${names})`,
    );
  }
  return { [input.name]: naming(input.name, () => bareTensor(input, body)) };
}

/** Has an error of `read` say which input it is about. */
function naming<T>(input: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    const { code, message } = KofnError.from(cause);
    throw new KofnError(code, `input "${input}": ${message}`, { cause });
  }
}

/** What follows the JSON: one input's bytes after the other's. */
class BinaryPart {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  next(name: string, size: number): Buffer {
    const left = this.#bytes.byteLength - this.#at;
    if (size > left) {
      const advice = `is the header ${HEADER_LENGTH} right?`;
      throw invalid(`input "${name}": binary_data_size is ${size}, and ${left} bytes are left; ${advice}`);
    }
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }

  end(): void {
    const left = this.#bytes.byteLength - this.#at;
    if (left > 0) throw invalid(`${left} bytes of binary data belong to no input`);
  }
}

function flag(all: ParameterValues, name: string): boolean | undefined {
  const value = all[name];
  if (value === undefined || typeof value === 'boolean') return value;
  throw invalid(`parameter ${name}: must be true or false`);
}

function lengthOf(text: string, body: Buffer): number {
  const length = /^\d{1,10}$/.test(text) ? Number(text) : NaN;
  if (length <= body.byteLength) return length;
  throw invalid(
    `header ${HEADER_LENGTH}: "${text.slice(0, 20)}" is no length within the body of ${body.byteLength} bytes`,
  );
}

function invalid(message: string): KofnError {
  return new KofnError('INVALID_ARGUMENT', message);
}
