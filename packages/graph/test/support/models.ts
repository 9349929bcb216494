/** Small models, node by node, and the comparison of what they give. */
import assert from 'node:assert/strict';
import { elementCount, float32, isKofnError, type ErrorCode, type Float32Tensor, type Tensor } from '@kofn/core';
import { valueInfoProto, type NodeProto, type TensorProto, type ValueInfoProto } from '../../src/model/proto.js';

type Attributes = Readonly<Record<string, number | readonly number[] | string | { readonly float: number }>>;

/** A node named `name`; numbers become int attributes, arrays ints, strings string, {float: x} a float. */
export function node(
  opType: string,
  name: string,
  input: readonly string[],
  output: readonly string[],
  attributes: Attributes = {},
): NodeProto {
  const attribute = Object.entries(attributes).map(([key, value]) => {
    if (typeof value === 'number') return { name: key, type: 2, i: value };
    if (typeof value === 'string') return { name: key, type: 3, s: Buffer.from(value) };
    if ('float' in value) return { name: key, type: 1, f: value.float };
    return { name: key, type: 7, ints: [...value] };
  });
  return { opType, name, input: [...input], output: [...output], attribute };
}

export function io(name: string, ...shape: (number | string)[]): ValueInfoProto {
  return valueInfoProto(name, 'float32', shape);
}

/** A float32 constant whose elements stand in the file `location`, from byte `offset`. */
export function externalConstant(name: string, dims: number[], location: string, offset: number): TensorProto {
  const entries = { location, offset, length: 4 * elementCount(dims) };
  return {
    name,
    dims,
    dataType: 1,
    dataLocation: 1,
    externalData: Object.entries(entries).map(([key, value]) => ({ key, value: String(value) })),
  };
}

export function ramp(length: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => Math.sin(i));
}

/** Values in -1..1 without a pattern, the same for the same `seed`. */
export function values(shape: readonly number[], seed = 1): Float32Tensor {
  const at = (i: number) => 2 * fraction(Math.sin((i + 1) * 12.9898 + seed * 78.233) * 43758.5453) - 1;
  return float32(
    shape,
    Float32Array.from({ length: elementCount(shape) }, (_, i) => at(i)),
  );
}

/** Equal types and shapes, and values within `tolerance` of the largest magnitude. */
export function assertClose(actual: Tensor, expected: Tensor, what: string, tolerance = 1e-5): void {
  assert.equal(actual.dtype, expected.dtype, what);
  assert.deepEqual(actual.shape, expected.shape, what);
  const [a, b] = [actual.data as Float32Array, expected.data as Float32Array];
  const largest = b.reduce((max, value) => Math.max(max, Math.abs(value)), 1e-30);
  a.forEach((value, i) =>
    assert.ok(Math.abs(value - b[i]!) <= tolerance * largest, `${what}: element ${i} is ${value}, not ${b[i]}`),
  );
}

export async function refused(work: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> {
  await assert.rejects(work, error => {
    assert.ok(isKofnError(error, code), `expected ${code}, got ${String(error)}`);
    assert.match(error.message, message);
    return true;
  });
}

function fraction(x: number): number {
  return x - Math.floor(x);
}
