/** What the suites over both engines share. */
import assert from 'node:assert/strict';
import { isKofnError, seededRng, type ErrorCode, type Tensor } from '@kofn/core';
import { drawn, type ModelSpec } from './onnx-models.js';

const rng = seededRng(7);

export function normal(shape: readonly number[]): Tensor {
  return drawn(shape, () => rng.normal());
}

/** `x` [rows, width] → `y` [rows, units], for weights [units, width]. */
export function gemm(w: Tensor, b: Tensor): ModelSpec {
  return {
    nodes: [{ op: 'Gemm', inputs: ['x', 'w', 'b'], outputs: ['y'], attributes: { transB: 1 } }],
    inputs: { x: { dtype: 'float32', shape: ['rows', w.shape[1]!] } },
    outputs: { y: { dtype: 'float32', shape: ['rows', w.shape[0]!] } },
    initializers: { w, b },
  };
}

/** Passes when `work` rejects with a KofnError of that code and message. */
export async function fails(work: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> {
  await assert.rejects(work, error => {
    assert.ok(isKofnError(error, code), `expected ${code}, got ${String(error)}`);
    assert.match(error.message, message);
    return true;
  });
}
