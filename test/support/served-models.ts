/** Models to serve in tests: small, with what ONNX Runtime makes of their inputs. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { float32, seededRng, tensor, type Tensors } from '@kofn/core';
import { createEngine } from '@kofn/engine';
import { drawn, makeModel, runWhole, type ModelSpec } from './onnx-models.js';

/** A folder of model files, and answers of ONNX Runtime. */
export class ModelFolder implements Disposable {
  readonly #folder = mkdtempSync(path.join(tmpdir(), 'kofn-serve-'));

  path(name: string): string {
    return path.join(this.#folder, name);
  }

  /** Writes it as `name`, over what was there. */
  write(name: string, spec: ModelSpec): string {
    writeFileSync(this.path(name), makeModel(spec).model);
    return this.path(name);
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true });
  }
}

export async function answerOf(spec: ModelSpec, inputs: Tensors): Promise<Tensors> {
  await using engine = await createEngine('native');
  return await runWhole(engine, makeModel(spec), inputs);
}

/** y = relu(x · a) · b, of any number of rows of 16; `seed` draws the weights. */
export function mlp(seed: number): ModelSpec {
  const rng = seededRng(seed);
  const weights = () => drawn([16, 16], () => rng.normal());
  return {
    nodes: [
      { op: 'MatMul', name: 'first', inputs: ['x', 'a'], outputs: ['p'] },
      { op: 'Relu', inputs: ['p'], outputs: ['r'] },
      { op: 'MatMul', name: 'second', inputs: ['r', 'b'], outputs: ['y'] },
    ],
    inputs: { x: { dtype: 'float32', shape: ['N', 16] } },
    outputs: { y: { dtype: 'float32', shape: ['N', 16] } },
    initializers: { a: weights(), b: weights() },
  };
}

export function rows(count: number, seed: number): Tensors {
  const rng = seededRng(seed);
  return {
    x: float32(
      [count, 16],
      Float32Array.from({ length: 16 * count }, () => rng.normal()),
    ),
  };
}

/** Values at the ends of what each type holds. */
export const EVERY_TYPE = {
  float32: tensor('float32', [2, 2], Float32Array.of(1.5, -0.25, 3.4e38, 1e-38)),
  float64: tensor('float64', [2], Float64Array.of(Math.PI, -1e300)),
  float16: tensor('float16', [2], Uint16Array.of(0x3c00, 0xc000)),
  int8: tensor('int8', [2], Int8Array.of(-128, 127)),
  uint8: tensor('uint8', [2], Uint8Array.of(0, 255)),
  int16: tensor('int16', [2], Int16Array.of(-32768, 32767)),
  uint16: tensor('uint16', [2], Uint16Array.of(0, 65535)),
  int32: tensor('int32', [2], Int32Array.of(-2147483648, 2147483647)),
  uint32: tensor('uint32', [2], Uint32Array.of(0, 4294967295)),
  int64: tensor('int64', [2], BigInt64Array.of(-(2n ** 63n), 2n ** 63n - 1n)),
  uint64: tensor('uint64', [2], BigUint64Array.of(0n, 2n ** 64n - 1n)),
  bool: tensor('bool', [2], Uint8Array.of(1, 0)),
  string: tensor('string', [2], ['grüß', '']),
};

/** An output for each input, the same: `out_int8` for `int8`. */
export const typesModel: ModelSpec = {
  nodes: Object.keys(EVERY_TYPE).map(name => ({ op: 'Identity', inputs: [name], outputs: [`out_${name}`] })),
  inputs: Object.fromEntries(
    Object.entries(EVERY_TYPE).map(([name, { dtype, shape }]) => [name, { dtype, shape: ['N', ...shape.slice(1)] }]),
  ),
  outputs: Object.fromEntries(Object.entries(EVERY_TYPE).map(([name, { dtype }]) => [`out_${name}`, { dtype }])),
};

/** y = the i-th of five values: ONNX Runtime fails for a number that there is not. */
export const pickModel: ModelSpec = {
  nodes: [{ op: 'Gather', inputs: ['five', 'i'], outputs: ['y'] }],
  inputs: { i: { dtype: 'int64', shape: ['N'] } },
  outputs: { y: { dtype: 'float32' } },
  initializers: { five: float32([5], Float32Array.of(1, 2, 3, 4, 5)) },
};

/** y = x. */
export function sameModel(dtype: 'string' | 'float32', shape: readonly (number | string)[]): ModelSpec {
  return {
    nodes: [{ op: 'Identity', inputs: ['x'], outputs: ['y'] }],
    inputs: { x: { dtype, shape } },
    outputs: { y: { dtype, shape } },
  };
}
