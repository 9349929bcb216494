/**
 * Tensors as the Open Inference Protocol's REST has them: JSON numbers, flat or nested, and the binary tensor data extension.
 *
 * 64-bit integers are exact both ways. FP16 and BF16, for which JSON has no form in the protocol, travel as binary only.
 */
import {
  elementBytes,
  elementCount,
  formatShape,
  isFiniteTensor,
  KofnError,
  tensor,
  tensorFromBytes,
  type DType,
  type Tensor,
} from '@kofn/core';
import type { ValueInfo } from '@kofn/graph';
import { datatypeOf, decodeTensors, type TensorContents } from '@kofn/wire';

/** The values of `data`, which the body gives for input `name`. Throws INVALID_ARGUMENT, SHAPE_MISMATCH, DTYPE_MISMATCH, UNSUPPORTED. */
export function tensorFromJson(name: string, dtype: DType, shape: readonly number[], data: readonly unknown[]): Tensor {
  const flat = flatten(name, data, shape);
  const wrong = (value: unknown): never => {
    const shown = typeof value === 'bigint' ? String(value) : JSON.stringify(value);
    throw new KofnError('DTYPE_MISMATCH', `input "${name}": ${String(shown).slice(0, 40)} is no ${dtype}`);
  };
  const whole = (least: number, most: number) =>
    flat.map(value =>
      Number.isInteger(value) && (value as number) >= least && (value as number) <= most
        ? (value as number)
        : wrong(value),
    );
  const whole64 = (least: bigint, most: bigint) =>
    flat.map(value => {
      const exact =
        typeof value === 'bigint' ? value : Number.isSafeInteger(value) ? BigInt(value as number) : wrong(value);
      return exact >= least && exact <= most ? exact : wrong(value);
    });
  const real = (round: (value: number) => number) =>
    flat.map(value => {
      const number = typeof value === 'number' || typeof value === 'bigint' ? Number(value) : wrong(value);
      return Number.isFinite(round(number)) ? number : wrong(value); // JSON has numbers of any size, and no infinity
    });
  const of = (values: Tensor['data']) => tensor(dtype, shape, values);
  switch (dtype) {
    case 'float32':
      return of(Float32Array.from(real(Math.fround)));
    case 'float64':
      return of(Float64Array.from(real(Number)));
    case 'int8':
      return of(Int8Array.from(whole(-(2 ** 7), 2 ** 7 - 1)));
    case 'uint8':
      return of(Uint8Array.from(whole(0, 2 ** 8 - 1)));
    case 'int16':
      return of(Int16Array.from(whole(-(2 ** 15), 2 ** 15 - 1)));
    case 'uint16':
      return of(Uint16Array.from(whole(0, 2 ** 16 - 1)));
    case 'int32':
      return of(Int32Array.from(whole(-(2 ** 31), 2 ** 31 - 1)));
    case 'uint32':
      return of(Uint32Array.from(whole(0, 2 ** 32 - 1)));
    case 'int64':
      return of(BigInt64Array.from(whole64(-(2n ** 63n), 2n ** 63n - 1n)));
    case 'uint64':
      return of(BigUint64Array.from(whole64(0n, 2n ** 64n - 1n)));
    case 'bool':
      return of(Uint8Array.from(flat.map(value => (typeof value === 'boolean' ? Number(value) : wrong(value)))));
    case 'string':
      return of(flat.map(value => (typeof value === 'string' ? value : wrong(value))));
    case 'float16':
    case 'bfloat16':
      throw new KofnError(
        'UNSUPPORTED',
        `input "${name}": ${dtype} has no form in JSON; send it as binary data (binary_data_size)`,
      );
  }
}

/** Whether a number in `data`, nested to `depth` at most, has lost digits on its way through JSON.parse. */
export function isInexact(data: readonly unknown[], depth: number): boolean {
  return data.some(value =>
    Array.isArray(value)
      ? depth > 1 && isInexact(value, depth - 1)
      : typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value),
  );
}

/** The values of output `name`, flat, as JSON text. Throws UNSUPPORTED (float16, bfloat16), NON_FINITE: JSON has no NaN. */
export function tensorToJson(name: string, value: Tensor): string {
  const { dtype, data } = value;
  const advice = 'ask for it as binary data (binary_data)';
  if (dtype === 'float16' || dtype === 'bfloat16') {
    throw new KofnError('UNSUPPORTED', `output "${name}": ${dtype} has no form in JSON; ${advice}`);
  }
  if (Array.isArray(data)) return JSON.stringify(data);
  if (dtype === 'bool') return `[${Array.from(data as Uint8Array, bit => bit !== 0).join(',')}]`;
  if (!isFiniteTensor(value)) {
    throw new KofnError('NON_FINITE', `output "${name}" has NaN or infinities, which JSON has no form for; ${advice}`);
  }
  return `[${data.join(',')}]`;
}

/** A tensor of the binary part. Throws PROTOCOL, SHAPE_MISMATCH. */
export function tensorFromBinary(
  name: string,
  dtype: DType,
  datatype: string,
  shape: readonly number[],
  bytes: Uint8Array,
): Tensor {
  if (dtype !== 'string') return tensorFromBytes(dtype, shape, bytes);
  return decodeTensors([{ name, datatype, shape: [...shape] }], [bytes])[name]!;
}

/**
 * The tensor whose values are `bytes` and nothing else, of an input that leaves one size open: the bytes decide it. Where more are open, the first
 * is 1, a batch of one, as Triton has it. BYTES are one element, without its length. Throws SHAPE_MISMATCH (more is open, or the bytes do not fit),
 * PROTOCOL.
 */
export function bareTensor({ name, dtype, shape }: ValueInfo, bytes: Uint8Array): Tensor {
  const isOpen = (size: number | string) => typeof size === 'string';
  const sizes = shape.filter(isOpen).length > 1 && isOpen(shape[0]!) ? [1, ...shape.slice(1)] : shape;
  const text = dtype === 'string';
  const fixed = elementCount(sizes.filter(size => typeof size === 'number'));
  if (sizes.filter(isOpen).length > 1 || (text && fixed !== 1)) {
    const advice = 'send its shape with it, as JSON in front';
    throw new KofnError('SHAPE_MISMATCH', `a bare body does not tell the shape of ${formatShape(shape)}; ${advice}`);
  }
  const open = text ? 1 : bytes.byteLength / (fixed * elementBytes(dtype));
  const whole = sizes.map(size => (typeof size === 'number' ? size : open));
  if (!text && !Number.isSafeInteger(open)) {
    throw new KofnError(
      'SHAPE_MISMATCH',
      `a body of ${bytes.byteLength} bytes does not fill ${dtype} ${formatShape(shape)}`,
    );
  }
  if (!text) return tensorFromBytes(dtype, whole, bytes);
  const contents = { bytes_contents: [bytes] } as TensorContents;
  return decodeTensors([{ name, datatype: datatypeOf(dtype), shape: whole, contents }], [])[name]!;
}

/** `data` in one dimension. Throws SHAPE_MISMATCH: nested it has to be as the shape is, flat as long as it is large. */
function flatten(name: string, data: readonly unknown[], shape: readonly number[]): readonly unknown[] {
  const refuse = (): never => {
    throw new KofnError(
      'SHAPE_MISMATCH',
      `input "${name}": its data does not have the shape ${formatShape(shape)}, nor is it flat`,
    );
  };
  if (!Array.isArray(data[0])) {
    if (data.length === elementCount(shape)) return data;
    const counts = `${data.length} values, and its shape ${formatShape(shape)} takes ${elementCount(shape)}`;
    throw new KofnError('SHAPE_MISMATCH', `input "${name}" has ${counts}`);
  }
  const flat: unknown[] = [];
  const walk = (part: readonly unknown[], axis: number): void => {
    if (part.length !== shape[axis]) refuse();
    if (axis === shape.length - 1) for (const value of part) flat.push(Array.isArray(value) ? refuse() : value);
    else for (const inner of part) walk(Array.isArray(inner) ? (inner as unknown[]) : refuse(), axis + 1);
  };
  walk(data, 0);
  return flat;
}
