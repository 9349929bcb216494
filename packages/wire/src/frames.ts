/**
 * The two messages of the hot path, a request and a reply on ModelStreamInfer, written and read by hand: the generated codec makes
 * several objects a field. protos.ts has that codec, which says what is right (frames.test.ts holds these to it) and reads what is
 * rare: typed contents, parameters of tensors, bytes that are no message.
 *
 * Invariants
 * 1. A payload is not copied here: frames are in parts, which the transport copies into what it writes. What n workers get alike is
 *    encoded, and its checksum taken, once.
 * 2. Where the transport puts a message as gRPC does, the first payload lies at a multiple of 8 bytes: it is read where it is.
 * 3. Any peer can read these frames. Fields stand in no particular order, and a number in more bytes than it needs: both are
 *    allowed to protobuf's writers.
 */
import protobuf from 'protobufjs/minimal.js';
import type { Tensors } from '@kofn/core';
import type { MessageParts } from './channel.js';
import { checksum, SEAL_BYTES } from './checksum.js';
import { encodeTensors } from './infer-codec.js';
import {
  codecs,
  type InferParameter,
  type InferRequestMessage,
  type StreamResponseMessage,
  type TensorMessage,
} from './protos.js';

const { Reader, Writer } = protobuf;
type Reader = protobuf.Reader;
type Writer = protobuf.Writer;

/** What gRPC puts before a message: it and the message come in one buffer, which is aligned. */
const GRPC_PREFIX = 5;
const ALIGNMENT = 8;
/** The longest that protobuf allows a number to be. */
const MAX_VARINT = 10;

/** `kofn_times` in a request asks for these three of its reply, in whole microseconds. */
const TIMES = { queue: 'kofn_queue_us', engine: 'kofn_engine_us', worker: 'kofn_worker_us' } as const;

/** How long a request took on the worker: all of it, of that waiting for its turn, and in the engine. Milliseconds. */
export interface WorkerTimes {
  readonly queueMs: number;
  readonly engineMs: number;
  readonly workerMs: number;
}

/** The tensors of a request, ready to be sent to any number of workers. */
export class EncodedInputs {
  readonly inputs: Tensors;
  readonly parts: MessageParts;
  #crc: number | undefined;

  constructor(inputs: Tensors) {
    this.inputs = inputs;
    const { tensors, raw } = encodeTensors(inputs);
    this.parts = tensorParts(tensors, raw, { tensorField: 5, rawField: 7, at: GRPC_PREFIX });
  }

  /** Taken when it is first asked for: a peer may not know checksums. */
  get crc(): number {
    return (this.#crc ??= this.parts.reduce((crc, part) => checksum.of(part, crc), 0));
  }
}

/** A request frame and, when it has one, its checksum. */
export interface RequestFrame {
  readonly parts: MessageParts;
  readonly crc: number | undefined;
}

/** A request frame; with `sealed` it ends in its checksum. */
export function requestFrame(
  {
    model,
    id,
    timeoutMs,
    inputs,
  }: { model: string; id: string; timeoutMs?: number | undefined; inputs: EncodedInputs },
  sealed: boolean,
): RequestFrame {
  const writer = Writer.create().uint32(10).string(model).uint32(26).string(id);
  if (timeoutMs !== undefined) {
    writeParameter(writer, 'timeout', { int64_param: Math.max(1, Math.round(timeoutMs * 1000)) });
  }
  if (sealed) writeParameter(writer, 'kofn_times', { bool_param: true });
  const own = writer.finish();
  if (!sealed) return { parts: [...inputs.parts, own], crc: undefined };
  const crc = checksum.of(own, inputs.crc);
  return { parts: [...inputs.parts, own, checksum.seal(crc)], crc };
}

/** Cancels the request `id`. */
export function cancelFrame(id: string, sealed: boolean): Uint8Array {
  const own = writeParameter(Writer.create().uint32(26).string(id), 'kofn_cancel', { bool_param: true }).finish();
  return sealed ? Buffer.concat([own, checksum.seal(checksum.of(own))]) : own;
}

/** A reply frame; to a request with the checksum `requestCrc` it ends in its own, begun from that. */
export function replyFrame(
  { error_message: error = '', infer_response: response }: Partial<StreamResponseMessage>,
  requestCrc?: number,
): MessageParts {
  const { model_name: model = '', model_version: version = '', id = '', parameters = {} } = response ?? {};
  const writer = Writer.create();
  if (model !== '') writer.uint32(10).string(model);
  if (version !== '') writer.uint32(18).string(version);
  if (id !== '') writer.uint32(26).string(id);
  for (const [name, value] of Object.entries(parameters)) writeParameter(writer, name, value);
  const own = writer.finish();
  const head = error === '' ? NOTHING : Writer.create().uint32(10).string(error).finish();
  // Its length is written in five bytes whatever it is, so that the place of the payload does not depend on it.
  const lengthBytes = 5;
  const at = GRPC_PREFIX + head.byteLength + 1 + lengthBytes;
  const places = { tensorField: 5, rawField: 6, at };
  const body = [...tensorParts(response?.outputs ?? [], response?.raw_output_contents ?? [], places), own];
  const sealBytes = requestCrc === undefined ? 0 : SEAL_BYTES;
  const length = body.reduce((sum, { byteLength }) => sum + byteLength, sealBytes);
  const parts = [head, Buffer.from([0x12, ...varint(length, lengthBytes)]), ...body];
  if (requestCrc === undefined) return parts;
  return [...parts, checksum.seal(parts.reduce((crc, part) => checksum.of(part, crc), requestCrc))];
}

export function timesParameters({ queueMs, engineMs, workerMs }: WorkerTimes): Record<string, InferParameter> {
  const whole = (ms: number) => ({ int64_param: Math.round(1000 * ms) });
  return { [TIMES.queue]: whole(queueMs), [TIMES.engine]: whole(engineMs), [TIMES.worker]: whole(workerMs) };
}

/** The times in a reply; undefined when it has not all of them. */
export function timesIn(parameters: Readonly<Record<string, InferParameter>>): WorkerTimes | undefined {
  const ms = (name: string) => Number(parameters[name]?.int64_param ?? NaN) / 1000;
  const times = { queueMs: ms(TIMES.queue), engineMs: ms(TIMES.engine), workerMs: ms(TIMES.worker) };
  return Object.values(times).every(time => time >= 0) ? times : undefined;
}

/** As `codecs.inferRequest.decode`. Throws PROTOCOL. */
export function readRequest(frame: Uint8Array): InferRequestMessage {
  return quickly(frame, quickRequest) ?? codecs.inferRequest.decode(frame);
}

/** As `codecs.streamResponse.decode`. Throws PROTOCOL. */
export function readReply(frame: Uint8Array): StreamResponseMessage {
  return quickly(frame, quickReply) ?? codecs.streamResponse.decode(frame);
}

const NOTHING = new Uint8Array();

/** The fields of `tensors`, then of their raw contents. `at`: where the first byte will lie. */
function tensorParts(
  tensors: readonly TensorMessage[],
  raw: readonly Uint8Array[],
  { tensorField, rawField, at }: { tensorField: number; rawField: number; at: number },
): Uint8Array[] {
  const prefixes = raw.map(({ byteLength }) => Buffer.from([(rawField << 3) | 2, ...varint(byteLength)]));
  const headOf = (padding: number) => {
    const writer = Writer.create();
    for (const [index, each] of tensors.entries()) writeTensor(writer, tensorField, each, index === 0 ? padding : 0);
    return writer.finish();
  };
  const plain = headOf(0);
  const end = at + plain.byteLength + (prefixes[0]?.byteLength ?? 0);
  const padding = (ALIGNMENT - (end % ALIGNMENT)) % ALIGNMENT;
  const lastSize = tensors[0]?.shape.at(-1);
  const fits = lastSize !== undefined && varint(Number(lastSize)).length + padding <= MAX_VARINT;
  const head = raw.length > 0 && padding > 0 && fits ? headOf(padding) : plain;
  return [head, ...raw.flatMap((bytes, index) => [prefixes[index]!, bytes])];
}

/** One tensor's name, type and shape; the last size takes `padding` bytes more than it needs. */
function writeTensor(writer: Writer, field: number, { name, datatype, shape }: TensorMessage, padding: number): void {
  writer.uint32((field << 3) | 2).fork();
  if (name !== '') writer.uint32(10).string(name);
  if (datatype !== '') writer.uint32(18).string(datatype);
  const sizes = shape.map(Number).flatMap((size, i) => {
    const shortest = varint(size);
    return i === shape.length - 1 ? varint(size, shortest.length + padding) : shortest;
  });
  if (sizes.length > 0) writer.uint32(26).bytes(Uint8Array.from(sizes));
  writer.ldelim();
}

/** A whole number ≥ 0 in base 128, least part first; in `bytes` bytes, or as few as there can be. */
function varint(value: number, bytes = 0): number[] {
  const parts: number[] = [];
  for (let rest = value; rest > 0 || parts.length < Math.max(1, bytes); rest = Math.floor(rest / 128)) {
    parts.push((rest % 128) | 128);
  }
  parts[parts.length - 1]! &= 127;
  return parts;
}

function writeParameter(writer: Writer, name: string, value: InferParameter): Writer {
  writer.uint32(34).fork().uint32(10).string(name).uint32(18).fork();
  if (value.bool_param !== undefined) writer.uint32(8).bool(value.bool_param);
  else if (value.int64_param !== undefined) writer.uint32(16).int64(value.int64_param);
  else if (value.string_param !== undefined) writer.uint32(26).string(value.string_param);
  else if (value.double_param !== undefined) writer.uint32(33).double(value.double_param);
  else if (value.uint64_param !== undefined) writer.uint32(40).uint64(value.uint64_param);
  return writer.ldelim().ldelim();
}

/** What `read` makes of `frame`; undefined when that is a case for the generated codec. */
function quickly<T>(frame: Uint8Array, read: (reader: Reader) => T | undefined): T | undefined {
  try {
    return read(Reader.create(Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength)));
  } catch {
    return undefined; // it throws a better error, or knows more
  }
}

function quickRequest(reader: Reader): InferRequestMessage | undefined {
  const message: InferRequestMessage = {
    model_name: '',
    model_version: '',
    id: '',
    parameters: {},
    inputs: [],
    outputs: [],
    raw_input_contents: [],
  };
  while (reader.pos < reader.len) {
    switch (reader.uint32()) {
      case 10:
        message.model_name = reader.string();
        break;
      case 18:
        message.model_version = reader.string();
        break;
      case 26:
        message.id = reader.string();
        break;
      case 34:
        if (!readParameter(reader, message.parameters)) return undefined;
        break;
      case 42: {
        const tensor = readTensor(reader);
        if (tensor === undefined) return undefined;
        message.inputs.push(tensor);
        break;
      }
      case 58:
        message.raw_input_contents.push(reader.bytes());
        break;
      default:
        return undefined;
    }
  }
  return message;
}

function quickReply(reader: Reader): StreamResponseMessage | undefined {
  if (reader.uint32() !== 18) return undefined; // an error
  const end = reader.uint32() + reader.pos;
  if (end !== reader.len) return undefined;
  const response: Required<NonNullable<StreamResponseMessage['infer_response']>> = {
    model_name: '',
    model_version: '',
    id: '',
    parameters: {},
    outputs: [],
    raw_output_contents: [],
  };
  while (reader.pos < end) {
    switch (reader.uint32()) {
      case 10:
        response.model_name = reader.string();
        break;
      case 18:
        response.model_version = reader.string();
        break;
      case 26:
        response.id = reader.string();
        break;
      case 34:
        if (!readParameter(reader, response.parameters)) return undefined;
        break;
      case 42: {
        const tensor = readTensor(reader);
        if (tensor === undefined) return undefined;
        response.outputs.push(tensor);
        break;
      }
      case 50:
        response.raw_output_contents.push(reader.bytes());
        break;
      default:
        return undefined;
    }
  }
  return { error_message: '', infer_response: response };
}

/** Name, type and shape; undefined when there is more. */
function readTensor(reader: Reader): TensorMessage | undefined {
  const end = reader.uint32() + reader.pos;
  const tensor: TensorMessage = { name: '', datatype: '', shape: [] };
  while (reader.pos < end) {
    switch (reader.uint32()) {
      case 10:
        tensor.name = reader.string();
        break;
      case 18:
        tensor.datatype = reader.string();
        break;
      case 26:
        for (const last = reader.uint32() + reader.pos; reader.pos < last;) tensor.shape.push(int64(reader));
        break;
      default:
        return undefined;
    }
  }
  return reader.pos === end ? tensor : undefined;
}

/** As the generated codec gives it, in decimal digits. */
function int64(reader: Reader): string {
  const { low, high } = reader.int64() as { low: number; high: number };
  return high === 0 ? String(low >>> 0) : String((BigInt(high) << 32n) | BigInt(low >>> 0));
}

/** One entry of `parameters`; false when it is none of the kinds that are common. */
function readParameter(reader: Reader, parameters: Record<string, InferParameter>): boolean {
  const end = reader.uint32() + reader.pos;
  if (reader.uint32() !== 10) return false;
  const name = reader.string();
  if (name === '__proto__' || reader.uint32() !== 18 || reader.uint32() + reader.pos !== end) return false;
  switch (reader.uint32()) {
    case 8:
      parameters[name] = { bool_param: reader.bool() };
      break;
    case 16:
      parameters[name] = { int64_param: int64(reader) };
      break;
    case 26:
      parameters[name] = { string_param: reader.string() };
      break;
    default:
      return false;
  }
  return reader.pos === end;
}
