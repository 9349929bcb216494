export { createEngine } from './create-engine.js';
export {
  ENGINE_NAMES,
  type Engine,
  type EngineName,
  type OpenOptions,
  type RunOptions,
  type Session,
  type ValueInfo,
} from './engine.js';
// For a bare ONNX Runtime to be measured against.
export { sessionOptions } from './onnx-runtime.js';
