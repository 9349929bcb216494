/**
 * NumPy's .npy files (format 1.0 to 3.0, numpy.lib.format): one array each, read into a row-major tensor and written as
 * format 1.0.
 */
import { elementCount, formatShape, KofnError, tensorBytes, tensorFromBytes } from '@kofn/core';
import type { NumericDType, Tensor, TypedArray } from '@kofn/core';

const MAGIC = Buffer.from('\x93NUMPY', 'latin1');

/** NumPy's name of each element type, without the byte order. bfloat16 has none. */
const DESCRIPTORS: ReadonlyMap<string, NumericDType> = new Map([
  ['f4', 'float32'],
  ['f8', 'float64'],
  ['f2', 'float16'],
  ['i1', 'int8'],
  ['u1', 'uint8'],
  ['i2', 'int16'],
  ['u2', 'uint16'],
  ['i4', 'int32'],
  ['u4', 'uint32'],
  ['i8', 'int64'],
  ['u8', 'uint64'],
  ['b1', 'bool'],
]);
/** NumPy's own limit is 10,000: a longer header describes a record of very many fields, and no tensor. */
const MAX_HEADER_BYTES = 65_536;

/**
 * The array in `bytes`; `origin` (the file's name) goes into messages. Either byte order; Fortran order is rearranged to row-major; shapes
 * as Python 2 wrote them too. Throws INVALID_ARGUMENT (not .npy), UNSUPPORTED (an element type that tensors do not have), DATA_LOSS (fewer
 * bytes than the shape says, or more).
 */
export function readNpy(bytes: Uint8Array, origin: string): Tensor {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file.length < 10 || !file.subarray(0, 6).equals(MAGIC)) {
    throw new KofnError('INVALID_ARGUMENT', `${origin} is not a NumPy .npy file; write it with numpy.save`);
  }
  const major = file[6]!;
  if (major < 1 || major > 3) throw new KofnError('UNSUPPORTED', `${origin}: .npy format ${major} is not 1, 2 or 3`);
  const headerAt = major === 1 ? 10 : 12;
  const headerLength = file.length < headerAt ? Infinity : major === 1 ? file.readUInt16LE(8) : file.readUInt32LE(8);
  const dataAt = headerAt + headerLength;
  if (dataAt > file.length) throw new KofnError('DATA_LOSS', `${origin} is cut off inside its header`);
  if (headerLength > MAX_HEADER_BYTES) {
    throw new KofnError(
      'UNSUPPORTED',
      `${origin} has a header of ${headerLength} bytes, and at most ${MAX_HEADER_BYTES} are read; save one plain array`,
    );
  }
  const header = parseHeader(file.toString(major === 3 ? 'utf8' : 'latin1', headerAt, dataAt), origin);
  const { dtype, itemBytes, bigEndian, fortranOrder, shape } = header;
  const expected = itemBytes * elementCount(shape);
  if (file.length - dataAt !== expected) {
    throw new KofnError(
      'DATA_LOSS',
      `${origin}: ${dtype} ${formatShape(shape)} takes ${expected} bytes, the file has ${file.length - dataAt}`,
    );
  }
  // A copy: elements aligned, and the caller's bytes never change.
  const data = Buffer.from(new Uint8Array(file.subarray(dataAt)).buffer);
  if (dtype === 'bool') data.forEach((byte, i) => (data[i] = byte === 0 ? 0 : 1)); // as NumPy reads them
  if (bigEndian && itemBytes === 2) data.swap16();
  if (bigEndian && itemBytes === 4) data.swap32();
  if (bigEndian && itemBytes === 8) data.swap64();
  return fortranOrder
    ? rowMajor(tensorFromBytes(dtype, [...shape].reverse(), data), shape)
    : tensorFromBytes(dtype, shape, data);
}

/** The bytes of a .npy file. Throws UNSUPPORTED for string and bfloat16, which NumPy has no element type for. */
export function writeNpy(value: Tensor): Buffer {
  const [descriptor] = [...DESCRIPTORS].find(([, dtype]) => dtype === value.dtype) ?? [];
  if (descriptor === undefined) throw new KofnError('UNSUPPORTED', `.npy files cannot hold ${value.dtype}`);
  const order = descriptor.endsWith('1') ? '|' : '<';
  const shape = value.shape.length === 1 ? `(${value.shape[0]},)` : `(${value.shape.join(', ')})`;
  const header = `{'descr': '${order}${descriptor}', 'fortran_order': False, 'shape': ${shape}, }`;
  // Padded so that the elements start at a multiple of 64, and ended by a newline, as the format says.
  const length = Math.ceil((10 + header.length + 1) / 64) * 64 - 10;
  const prefix = Buffer.alloc(10);
  MAGIC.copy(prefix);
  prefix[6] = 1;
  prefix.writeUInt16LE(length, 8);
  return Buffer.concat([prefix, Buffer.from(`${header.padEnd(length - 1)}\n`, 'latin1'), tensorBytes(value)]);
}

function parseHeader(text: string, origin: string) {
  const descriptor = /['"]descr['"]\s*:\s*['"]([^'"]*)['"]/.exec(text)?.[1];
  const order = /['"]fortran_order['"]\s*:\s*(True|False)/.exec(text)?.[1];
  const sizes = /['"]shape['"]\s*:\s*\(([^)]*)\)/.exec(text)?.[1];
  if (order === undefined || sizes === undefined) {
    throw new KofnError(
      'INVALID_ARGUMENT',
      `${origin}: the .npy header has no shape or order; write it with numpy.save`,
    );
  }
  const [, byteOrder, type = ''] = /^([<>|=]?)(.+)$/.exec(descriptor ?? '') ?? [];
  const dtype = DESCRIPTORS.get(type);
  if (dtype === undefined) {
    const what = type.startsWith('O') ? 'Python objects' : (descriptor ?? 'a record (a structured type)');
    throw new KofnError(
      'UNSUPPORTED',
      `${origin} holds ${what}, which is no tensor type; convert it, e.g. x.astype('float32')`,
    );
  }
  // As Python writes a tuple: a comma may stand behind the last, and Python 2 put an L behind what was a long.
  const shape = sizes.trim() === '' ? [] : sizes.replace(/,\s*$/, '').split(',').map(wholeSize);
  if (shape.includes(undefined)) {
    throw new KofnError('INVALID_ARGUMENT', `${origin}: the .npy header has the shape (${sizes})`);
  }
  const itemBytes = Number(type.slice(1));
  return {
    ...{ dtype, itemBytes, shape: shape as number[] },
    bigEndian: byteOrder === '>',
    fortranOrder: order === 'True',
  };
}

function wholeSize(text: string): number | undefined {
  const [, digits] = /^\s*(\d+)L?\s*$/.exec(text) ?? [];
  return Number.isSafeInteger(Number(digits)) ? Number(digits) : undefined;
}

/** `reversed` holds the array with its axes in reverse, row-major: which is the array itself in Fortran order. */
function rowMajor(reversed: Tensor, shape: readonly number[]): Tensor {
  const source = reversed.data as TypedArray;
  const target = source.slice();
  const strides: number[] = [];
  shape.reduce((stride, size, axis) => ((strides[axis] = stride), stride * size), 1);
  const index = shape.map(() => 0);
  let from = 0;
  for (let to = 0; to < target.length; to++) {
    target[to] = source[from]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      from -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
  return { ...reversed, shape, data: target };
}
