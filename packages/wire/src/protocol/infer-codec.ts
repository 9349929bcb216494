/** Tensors as the Open Inference Protocol carries them: raw little-endian bytes; typed contents are read, too. */
import { isUtf8 } from 'node:buffer';
import {
  elementCount,
  formatShape,
  KofnError,
  tensor,
  tensorBytes,
  tensorFromBytes,
  type DType,
  type Tensor,
  type Tensors,
  type TypedArray,
} from '@kofn/core';
import type { TensorContents, TensorMessage } from './protos.js';

const DATATYPES: Readonly<Record<DType, string>> = {
  float32: 'FP32',
  float64: 'FP64',
  float16: 'FP16',
  bfloat16: 'BF16',
  int8: 'INT8',
  uint8: 'UINT8',
  int16: 'INT16',
  uint16: 'UINT16',
  int32: 'INT32',
  uint32: 'UINT32',
  int64: 'INT64',
  uint64: 'UINT64',
  bool: 'BOOL',
  string: 'BYTES',
};
const DTYPES = new Map(Object.entries(DATATYPES).map(([dtype, datatype]) => [datatype, dtype as DType]));

export function datatypeOf(dtype: DType): string {
  return DATATYPES[dtype];
}

/** Undefined for what the protocol does not name. */
export function dtypeOf(datatype: string): DType | undefined {
  return DTYPES.get(datatype);
}

/** Tensors as messages and, index by index, their raw bytes (views where the element type has a fixed size). */
export function encodeTensors(values: Tensors): { tensors: TensorMessage[]; raw: Uint8Array[] } {
  const entries = Object.entries(values);
  return {
    tensors: entries.map(([name, { dtype, shape }]) => ({ name, datatype: DATATYPES[dtype], shape: [...shape] })),
    raw: entries.map(([, value]) => (Array.isArray(value.data) ? encodeStrings(value.data) : tensorBytes(value))),
  };
}

/**
 * The tensors of a message; raw ones are views of it where alignment allows. Throws PROTOCOL (unknown datatype, contents
 * that do not fit the shape or the datatype, both kinds of contents, a name twice).
 */
export function decodeTensors(messages: readonly TensorMessage[], raw: readonly Uint8Array[]): Tensors {
  if (raw.length > 0 && raw.length !== messages.length) {
    throw new KofnError('PROTOCOL', `${messages.length} tensors came with ${raw.length} raw contents`);
  }
  const [only] = messages;
  if (messages.length === 1 && only!.name !== '__proto__') return { [only!.name]: decodeTensor(only!, raw[0]) };
  const values: Record<string, Tensor> = Object.create(null) as Record<string, Tensor>;
  for (const [index, message] of messages.entries()) {
    if (message.name in values) throw new KofnError('PROTOCOL', `the tensor "${message.name}" came twice`);
    values[message.name] = decodeTensor(message, raw[index]);
  }
  return { ...values };
}

function decodeTensor(message: TensorMessage, raw: Uint8Array | undefined): Tensor {
  const { name, datatype } = message;
  const dtype = DTYPES.get(datatype);
  if (dtype === undefined) throw new KofnError('PROTOCOL', `tensor "${name}" has the unknown datatype "${datatype}"`);
  const shape = message.shape.map(Number);
  try {
    if (raw === undefined) return decodeContents(dtype, shape, message.contents);
    if (filledContents(message.contents).length > 0) {
      throw new KofnError('PROTOCOL', 'it has raw and typed contents; give one of them');
    }
    return dtype === 'string' ? tensor(dtype, shape, decodeStrings(raw)) : tensorFromBytes(dtype, shape, raw);
  } catch (cause) {
    const why = KofnError.from(cause).message;
    throw new KofnError('PROTOCOL', `tensor "${name}" (${datatype} ${formatShape(shape)}): ${why}`, { cause });
  }
}

/** Which typed contents have the values of a datatype, as the protocol says; float16 and bfloat16 have none. */
const CONTENTS: Readonly<Partial<Record<DType, keyof TensorContents>>> = {
  bool: 'bool_contents',
  int8: 'int_contents',
  int16: 'int_contents',
  int32: 'int_contents',
  int64: 'int64_contents',
  uint8: 'uint_contents',
  uint16: 'uint_contents',
  uint32: 'uint_contents',
  uint64: 'uint64_contents',
  float32: 'fp32_contents',
  float64: 'fp64_contents',
  string: 'bytes_contents',
};

function filledContents(contents: TensorContents | null | undefined): string[] {
  return Object.entries(contents ?? {}).flatMap(([field, values]: [string, unknown[]]) =>
    values.length > 0 ? [field] : [],
  );
}

function decodeContents(dtype: DType, shape: number[], contents: TensorContents | null | undefined): Tensor {
  if (!contents) {
    if (elementCount(shape) > 0) throw new KofnError('PROTOCOL', 'it has neither raw nor typed contents');
    return dtype === 'string' ? tensor(dtype, shape, []) : tensorFromBytes(dtype, shape, new Uint8Array());
  }
  const other = filledContents(contents).find(field => field !== CONTENTS[dtype]);
  if (other !== undefined && CONTENTS[dtype] !== undefined) {
    throw new KofnError('PROTOCOL', `it has ${other}; values of this datatype belong in ${CONTENTS[dtype]}`);
  }
  switch (dtype) {
    case 'bool':
      return tensor(dtype, shape, Uint8Array.from(contents.bool_contents, Number));
    case 'int8':
      return tensor(dtype, shape, narrowed(Int8Array, contents.int_contents));
    case 'int16':
      return tensor(dtype, shape, narrowed(Int16Array, contents.int_contents));
    case 'int32':
      return tensor(dtype, shape, Int32Array.from(contents.int_contents));
    case 'int64':
      return tensor(dtype, shape, BigInt64Array.from(contents.int64_contents, BigInt));
    case 'uint8':
      return tensor(dtype, shape, narrowed(Uint8Array, contents.uint_contents));
    case 'uint16':
      return tensor(dtype, shape, narrowed(Uint16Array, contents.uint_contents));
    case 'uint32':
      return tensor(dtype, shape, Uint32Array.from(contents.uint_contents));
    case 'uint64':
      return tensor(dtype, shape, BigUint64Array.from(contents.uint64_contents, BigInt));
    case 'float32':
      return tensor(dtype, shape, Float32Array.from(contents.fp32_contents));
    case 'float64':
      return tensor(dtype, shape, Float64Array.from(contents.fp64_contents));
    case 'string':
      return tensor(dtype, shape, contents.bytes_contents.map(textOf));
    default:
      throw new KofnError('PROTOCOL', 'this datatype has no typed contents, only raw ones');
  }
}

/** `values`, which come as 32 bits, in fewer. Throws PROTOCOL: one does not fit. */
function narrowed<T extends TypedArray>(Type: { from(values: readonly number[]): T }, values: readonly number[]): T {
  const narrow = Type.from(values);
  const at = values.findIndex((value, i) => narrow[i] !== value);
  if (at === -1) return narrow;
  throw new KofnError('PROTOCOL', `its element ${at}, ${values[at]}, is out of range`);
}

/** An element of BYTES. Throws PROTOCOL: models take text, and other bytes would come out changed. */
function textOf(bytes: Uint8Array, index: number): string {
  if (isUtf8(bytes)) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  throw new KofnError(
    'PROTOCOL',
    `its element ${index} is not UTF-8; BYTES are text here, and other bytes go to models that take UINT8`,
  );
}

/** BYTES: each element is its length, u32 little-endian, then its bytes. */
function encodeStrings(texts: readonly string[]): Uint8Array {
  return Buffer.concat(
    texts.flatMap(text => {
      const bytes = Buffer.from(text, 'utf8');
      const length = Buffer.alloc(4);
      length.writeUInt32LE(bytes.byteLength);
      return [length, bytes];
    }),
  );
}

function decodeStrings(raw: Uint8Array): string[] {
  const bytes = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength);
  const texts: string[] = [];
  for (let at = 0; at < bytes.byteLength;) {
    const end = at + 4 <= bytes.byteLength ? at + 4 + bytes.readUInt32LE(at) : Infinity;
    if (end > bytes.byteLength) throw new KofnError('PROTOCOL', `its element ${texts.length} is cut off`);
    texts.push(textOf(bytes.subarray(at + 4, end), texts.length));
    at = end;
  }
  return texts;
}
