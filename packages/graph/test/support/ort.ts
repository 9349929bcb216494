/** The oracle of these tests: a model in ONNX Runtime, called directly. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { tensor, type Tensor, type Tensors, type TypedArray } from '@kofn/core';
import ort from 'onnxruntime-node';
import type { ModelFiles } from '../../src/index.js';

/** Every output of one run. Rejects with ONNX Runtime's own error. */
export async function runModel(files: ModelFiles, feeds: Tensors): Promise<Record<string, Tensor>> {
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-test-ort-'));
  try {
    const file = path.join(folder, 'model.onnx');
    writeFileSync(file, files.model);
    if (files.weights.byteLength > 0) writeFileSync(path.join(folder, 'weights.bin'), files.weights);
    const session = await ort.InferenceSession.create(file, {
      logSeverityLevel: 4,
      intraOpNumThreads: 1,
      interOpNumThreads: 1,
      // It kills the process for some models (test/compliance/engines.test.ts).
      extra: { optimization: { disable_specified_optimizers: 'ConvAddActivationFusion' } },
    });
    const given = Object.entries(feeds).map(([name, value]) => [name, toOrt(value)] as const);
    const results = await session.run(Object.fromEntries(given));
    await session.release();
    return Object.fromEntries(
      Object.entries(results).map(([name, { type, dims, data }]) => [
        name,
        tensor(type as Tensor['dtype'], dims, data as TypedArray),
      ]),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function toOrt({ dtype, data, shape }: Tensor): ort.Tensor {
  return new ort.Tensor(dtype as 'float32', data as Float32Array, [...shape]);
}
