/**
 * onnxruntime-node: linux x64 and arm64, macOS arm64. Loaded only here, inside the engine's thread, so that a platform
 * without a build can still use WebAssembly.
 */
import path from 'node:path';
import type { Backend } from './backend.js';
import { normaliseOptions, sessionOptions, wrapSession } from './onnx-runtime.js';

export async function openNative(): Promise<Backend> {
  const { InferenceSession, Tensor, env } = (await import('onnxruntime-node')).default;
  return {
    version: env.versions.node ?? env.versions.common,
    async open(folder, threads) {
      const file = path.join(folder, 'model.onnx');
      // By path, so that the runtime maps the weights from `weights.bin` and never holds them twice.
      const session = await InferenceSession.create(file, sessionOptions(threads));
      return wrapSession(session, Tensor);
    },
    async normalise(modelFile, target) {
      // Opening a session is what writes the model; nothing is run.
      const session = await InferenceSession.create(modelFile, normaliseOptions(path.join(target, 'model.onnx')));
      await session.release();
    },
  };
}
