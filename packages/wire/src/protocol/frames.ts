/**
 * The two messages of the hot path, a request and a reply on ModelStreamInfer, written and read by hand: the generated codec makes
 * several objects a field. protos.ts has that codec, which says what is right (frames.test.ts holds these to it) and reads what is
 * rare: typed contents, parameters of tensors, bytes that are no message.
 *
 * Invariants
 * 1. A large payload is not copied here: frames are in parts, which the transport copies into what it writes. What n workers get
 *    alike is encoded, and its checksum taken, once.
 *    So whoever gives a tensor leaves it as it is until the frame has left; a caller that does not damages a frame, which its
 *    checksum shows.
 * 2. Where the transport puts a message as gRPC does, the first payload lies at a multiple of 8 bytes: it is read where it is.
 * 3. Any peer can read these frames. Fields stand in no particular order, and a number in more bytes than it needs: both are
 *    allowed to protobuf's writers.
 */
import protobuf from 'protobufjs/minimal.js';
import type { Tensors } from '@kofn/core';
import type { MessageParts } from './channel.js';
import { checksum, SEAL_BYTES } from './checksum.js';
import { FrameWriter, varintBytes, type Mark } from './frame-writer.js';
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

/** What gRPC puts before a message: it and the message come in one buffer, which is aligned. */
const GRPC_PREFIX = 5;
const ALIGNMENT = 8;

/** `kofn_times` in a request asks for these three of its reply, in whole microseconds. */
const TIMES = { queue: 'kofn_queue_us', engine: 'kofn_engine_us', worker: 'kofn_worker_us' } as const;

/** How many multiply-accumulates the request takes, for what the worker says of its speed (WorkerInventory). */
export const MACS = 'kofn_macs';

/** The id of the client's request that this one is a part of, for logs: it is the same on the master and all its workers. */
export const REQUEST_ID = 'kofn_request';

/** How long a request took on the worker: all of it, of that waiting for its turn, and in the engine. Milliseconds. */
export interface WorkerTimes {
  readonly queueMs: number;
  readonly engineMs: number;
  readonly workerMs: number;
}

/** What is known of a request beside its tensors. */
export interface RequestFacts {
  readonly macs?: number;
  readonly requestId?: string | undefined;
}

/** The tensors of a request, and what else is known of it, ready to be sent to any number of workers. */
export class EncodedInputs {
  readonly inputs: Tensors;
  readonly parts: MessageParts;
  #crc: number | undefined;

  constructor(inputs: Tensors, { macs = 0, requestId }: RequestFacts = {}) {
    this.inputs = inputs;
    const { tensors, raw } = encodeTensors(inputs);
    const writer = new FrameWriter();
    if (macs > 0) writeParameter(writer, MACS, { int64_param: macs });
    if (requestId !== undefined) writeParameter(writer, REQUEST_ID, { string_param: requestId });
    writeTensors(writer, tensors, raw, { tag: RAW_INPUT });
    this.parts = writer.finish();
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
  const writer = new FrameWriter();
  writer.text(MODEL, model);
  writer.text(ID, id);
  if (timeoutMs !== undefined) {
    writeParameter(writer, 'timeout', { int64_param: Math.max(1, Math.round(timeoutMs * 1000)) });
  }
  if (!sealed) return { parts: [...inputs.parts, ...writer.finish()], crc: undefined };
  writeParameter(writer, 'kofn_times', { bool_param: true });
  const crc = writer.crc(inputs.crc);
  writer.bytes(checksum.seal(crc));
  return { parts: [...inputs.parts, ...writer.finish()], crc };
}

/** Cancels the request `id`. */
export function cancelFrame(id: string, sealed: boolean): MessageParts {
  const writer = new FrameWriter();
  writer.text(ID, id);
  writeParameter(writer, 'kofn_cancel', { bool_param: true });
  if (sealed) writer.bytes(checksum.seal(writer.crc(0)));
  return writer.finish();
}

/** A reply frame; to a request with the checksum `requestCrc` it ends in its own, begun from that. */
export function replyFrame(
  { error_message: error = '', infer_response: response }: Partial<StreamResponseMessage>,
  requestCrc?: number,
): MessageParts {
  const writer = new FrameWriter();
  if (error !== '') writer.text(ERROR_MESSAGE, error);
  // Its length is written in five bytes whatever it is, before anything of it is known.
  writer.varint(INFER_RESPONSE);
  const lengthAt = writer.position;
  writer.varint(0, LENGTH_BYTES);
  const start = writer.length;
  if (response?.model_name) writer.text(MODEL, response.model_name);
  if (response?.model_version) writer.text(VERSION, response.model_version);
  if (response?.id) writer.text(ID, response.id);
  for (const [name, value] of Object.entries(response?.parameters ?? {})) writeParameter(writer, name, value);
  const endBytes = requestCrc === undefined ? 0 : SEAL_BYTES;
  writeTensors(writer, response?.outputs ?? [], response?.raw_output_contents ?? [], {
    tag: RAW_OUTPUT,
    beforePayloads: bytes => writer.patch(lengthAt, writer.length - start + bytes + endBytes, LENGTH_BYTES),
  });
  if (requestCrc !== undefined) writer.bytes(checksum.seal(writer.crc(requestCrc)));
  return writer.finish();
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

/** Tags of fields (number and kind), as the .proto file numbers them. */
const MODEL = (1 << 3) | 2;
const VERSION = (2 << 3) | 2;
const ID = (3 << 3) | 2;
const PARAMETERS = (4 << 3) | 2;
const TENSOR = (5 << 3) | 2;
const RAW_INPUT = (7 << 3) | 2;
const RAW_OUTPUT = (6 << 3) | 2;
const ERROR_MESSAGE = (1 << 3) | 2;
const INFER_RESPONSE = (2 << 3) | 2;
const LENGTH_BYTES = 5;

/**
 * The fields of `tensors`, then their raw contents, of which it says first how many bytes they take, tags and lengths included. The
 * last size of the first tensor is written longer than it need be, where that aligns the first payload.
 */
function writeTensors(
  writer: FrameWriter,
  tensors: readonly TensorMessage[],
  raw: readonly Uint8Array[],
  { tag, beforePayloads }: { tag: number; beforePayloads?: (bytes: number) => void },
): void {
  let first: { marks: Mark[]; end: number } | undefined;
  for (const [index, { name, datatype, shape }] of tensors.entries()) {
    const tensor = writer.begin(TENSOR);
    if (name !== '') writer.text(10, name);
    if (datatype !== '') writer.text(18, datatype);
    if (shape.length > 0) {
      const sizes = writer.begin(26);
      for (const size of shape) writer.varint(Number(size));
      writer.end(sizes);
      if (index === 0) first = { marks: [tensor, sizes], end: writer.position };
    }
    writer.end(tensor);
  }
  if (first !== undefined && raw.length > 0) {
    const payloadAt = GRPC_PREFIX + writer.length + 1 + varintBytes(raw[0]!.byteLength);
    const padding = (ALIGNMENT - (payloadAt % ALIGNMENT)) % ALIGNMENT;
    if (padding > 0) writer.lengthen(first.end, padding, first.marks);
  }
  beforePayloads?.(raw.reduce((sum, { byteLength }) => sum + 1 + varintBytes(byteLength) + byteLength, 0));
  for (const bytes of raw) writer.payload(tag, bytes);
}

function writeParameter(writer: FrameWriter, name: string, value: InferParameter): void {
  const entry = writer.begin(PARAMETERS);
  writer.text(10, name);
  const choice = writer.begin(18);
  const { bool_param: bool, int64_param: int64, string_param: text } = value;
  if (bool !== undefined) {
    writer.varint(8);
    writer.varint(bool ? 1 : 0);
  } else if (typeof int64 === 'number' && int64 >= 0) {
    writer.varint(16);
    writer.varint(int64);
  } else if (text !== undefined) writer.text(26, text);
  else writer.bytes(rareParameter(value));
  writer.end(choice);
  writer.end(entry);
}

/** Numbers that may be negative, or have more digits than a double. */
function rareParameter({ int64_param: int64, double_param: double, uint64_param: uint64 }: InferParameter): Uint8Array {
  const writer = Writer.create();
  if (int64 !== undefined) writer.uint32(16).int64(int64);
  else if (double !== undefined) writer.uint32(33).double(double);
  else if (uint64 !== undefined) writer.uint32(40).uint64(uint64);
  return writer.finish();
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
  const body = readBody(reader, RAW_INPUT);
  return body && { ...body.head, inputs: body.tensors, outputs: [], raw_input_contents: body.raw };
}

function quickReply(reader: Reader): StreamResponseMessage | undefined {
  if (reader.uint32() !== INFER_RESPONSE) return undefined; // an error
  if (reader.uint32() + reader.pos !== reader.len) return undefined;
  const body = readBody(reader, RAW_OUTPUT);
  if (body === undefined) return undefined;
  return {
    error_message: '',
    infer_response: { ...body.head, outputs: body.tensors, raw_output_contents: body.raw },
  };
}

/** The fields that requests and replies have alike, to the end of the frame. */
interface Body {
  readonly head: Pick<InferRequestMessage, 'model_name' | 'model_version' | 'id' | 'parameters'>;
  readonly tensors: TensorMessage[];
  readonly raw: Uint8Array[];
}

/** `rawTag`: of the payloads. Undefined when there is more than a body has. */
function readBody(reader: Reader, rawTag: number): Body | undefined {
  const head: Body['head'] = { model_name: '', model_version: '', id: '', parameters: {} };
  const body: Body = { head, tensors: [], raw: [] };
  while (reader.pos < reader.len) {
    switch (reader.uint32()) {
      case MODEL:
        head.model_name = reader.string();
        break;
      case VERSION:
        head.model_version = reader.string();
        break;
      case ID:
        head.id = reader.string();
        break;
      case PARAMETERS:
        if (!readParameter(reader, head.parameters)) return undefined;
        break;
      case TENSOR: {
        const tensor = readTensor(reader);
        if (tensor === undefined) return undefined;
        body.tensors.push(tensor);
        break;
      }
      case rawTag:
        body.raw.push(reader.bytes());
        break;
      default:
        return undefined;
    }
  }
  return body;
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
