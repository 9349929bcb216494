export { KofnError, ERROR_CODES, isErrorCode, isKofnError, unreachable, type ErrorCode } from './errors.js';
export {
  allFinite,
  elementBytes,
  elementCount,
  float32,
  formatShape,
  isFiniteTensor,
  isNumericDType,
  tensor,
  tensorBytes,
  tensorFromBytes,
  type DType,
  type Float32Tensor,
  type NumericDType,
  type Shape,
  type Tensor,
  type Tensors,
  type TypedArray,
} from './tensor.js';
export {
  abortable,
  abortReason,
  openScope,
  openController,
  sleep,
  throwIfAborted,
  type Controller,
  type Scope,
  type Signal,
} from './abort.js';
export { fromHalf, toHalf } from './half.js';
export { systemClock, type Clock, type Timer } from './clock.js';
export { atOnce, inTurns, joined, PART_VALUES, spread, type Bands, type Parts, type RowSource } from './parts.js';
export { seededRng, type Rng } from './rng.js';
