/**
 * onnxruntime-web under Node: every platform, single instruction stream. The number of threads belongs to the whole
 * WebAssembly instance: the first session that is opened decides.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Backend } from './backend.js';
import { sessionOptions, wrapSession } from './onnx-runtime.js';

export async function openWasm(): Promise<Backend> {
  const { InferenceSession, Tensor, env } = await import('onnxruntime-web');
  env.logLevel = 'error';
  let started = false;
  return {
    version: env.versions.web ?? env.versions.common,
    async open(folder, threads) {
      if (!started) env.wasm.numThreads = threads;
      started = true;
      const model = await readFile(path.join(folder, 'model.onnx'));
      const weights = await readFile(path.join(folder, 'weights.bin')).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined; // then they stand in the model
        throw error;
      });
      const session = await InferenceSession.create(model, {
        ...sessionOptions(1),
        executionProviders: ['wasm'],
        ...(weights === undefined ? {} : { externalData: [{ path: 'weights.bin', data: weights }] }),
      });
      return wrapSession(session, Tensor);
    },
  };
}
