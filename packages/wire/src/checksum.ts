/**
 * The end-to-end checksum of an inference between kofn peers, extension `kofn.checksum`: the parameter `kofn_crc32` of a
 * request and of its reply. infer-stream.ts is the master's side of it, the worker's inference.ts and stream.ts the other.
 *
 * It is CRC-32 (that of zlib) over the UTF-8 of one line of JSON without spaces, then over each of the raw contents:
 *
 *   request  [model_name, model_version, id, parameters, inputs, raw sizes, names of the outputs asked for]
 *   reply    [model_name, model_version, id, parameters, outputs, raw sizes], begun from the checksum of the request
 *
 * Parameters, without the checksum itself, are [name, kind, value as text] in the order of their names; tensors are [name,
 * datatype, sizes as text].
 *
 * Invariants
 * 1. What a message means is covered: what changes it changes the checksum. Typed contents are not, and do not go with one.
 * 2. A reply fits no other request than its own.
 * 3. Raw contents are read once and never copied.
 */
import { crc32 } from 'node:zlib';
import type { InferParameter, InferRequestMessage, InferResponseMessage, TensorMessage } from './protos.js';

const PARAMETER = 'kofn_crc32';
const KINDS = ['bool_param', 'int64_param', 'string_param', 'double_param', 'uint64_param'] as const;

type Request = Partial<InferRequestMessage>;
type Reply = Partial<InferResponseMessage>;
type ParameterMap = Record<string, InferParameter>;

export const checksum = {
  /** Adds its checksum to a request, and returns it. */
  sealRequest(request: Request): { request: Request; crc: number } {
    const crc = crcOfRequest(request);
    return { request: { ...request, parameters: withCrc(request.parameters, crc) }, crc };
  },

  /** Adds its checksum to the reply to a request with the checksum `requestCrc`. */
  sealReply(reply: Reply, requestCrc: number): Reply {
    return { ...reply, parameters: withCrc(reply.parameters, crcOfReply(reply, requestCrc)) };
  },

  /** The checksum that a message carries: undefined when it has none, NaN when what stands there is no checksum. */
  of({ parameters = {} }: Request | Reply): number | undefined {
    const parameter = parameters[PARAMETER];
    return parameter === undefined ? undefined : Number(parameter.int64_param ?? NaN);
  },

  /** Whether a request is as it was sent, as far as it says: one without a checksum always is. */
  requestFits(request: Request): boolean {
    const crc = checksum.of(request);
    return crc === undefined || (isRaw(request.inputs) && crc === crcOfRequest(request));
  },

  /** Whether a reply is as it was sent, and to the request with the checksum `requestCrc`. */
  replyFits(reply: Reply, requestCrc: number): boolean {
    return isRaw(reply.outputs) && checksum.of(reply) === crcOfReply(reply, requestCrc);
  },
};

function crcOfRequest({ inputs = [], outputs = [], raw_input_contents: raw = [], ...request }: Request): number {
  const line = [...headOf(request), inputs.map(lineOf), sizesOf(raw), outputs.map(({ name }) => name)];
  return crcOf(line, raw, 0);
}

function crcOfReply({ outputs = [], raw_output_contents: raw = [], ...reply }: Reply, requestCrc: number): number {
  return crcOf([...headOf(reply), outputs.map(lineOf), sizesOf(raw)], raw, requestCrc);
}

function crcOf(line: readonly unknown[], raw: readonly Uint8Array[], start: number): number {
  // Of no bytes at no address zlib says 0, whatever it began from.
  const add = (crc: number, bytes: Uint8Array) => (bytes.byteLength === 0 ? crc : crc32(bytes, crc));
  return raw.reduce(add, crc32(JSON.stringify(line), start));
}

function headOf({ model_name: name = '', model_version: version = '', id = '', parameters = {} }: Request): unknown[] {
  const names = Object.keys(parameters).filter(key => key !== PARAMETER);
  return [name, version, id, names.sort().map(key => [key, ...valueOf(parameters[key]!)])];
}

function valueOf(parameter: InferParameter): string[] {
  return KINDS.flatMap(kind => (parameter[kind] === undefined ? [] : [kind, String(parameter[kind])]));
}

function lineOf({ name, datatype, shape }: TensorMessage): unknown[] {
  return [name, datatype, shape.map(String)];
}

function sizesOf(raw: readonly Uint8Array[]): number[] {
  return raw.map(({ byteLength }) => byteLength);
}

function isRaw(tensors: readonly TensorMessage[] = []): boolean {
  return tensors.every(({ contents }) => !contents);
}

function withCrc(parameters: ParameterMap = {}, crc: number): ParameterMap {
  return { ...parameters, [PARAMETER]: { int64_param: crc } };
}
