// Everything a user of kofn needs: connect, deploy, run.
export { connect, codedLayer, codedModel, planModel } from '@kofn/master';
export {
  startLocalWorkers,
  type LocalWorker,
  type LocalWorkerOptions,
  type LocalWorkers,
} from './workers/local-workers.js';
export { float32, tensor, type DType, type Float32Tensor, type Shape, type Tensor, type Tensors } from '@kofn/core';
export { ERROR_CODES, isKofnError, KofnError, type ErrorCode } from '@kofn/core';
// The types of what goes in and comes out.
export type {
  AuditCounts,
  AuditOutcome,
  Cluster,
  ClusterEvent,
  CodedLayer,
  CodedModel,
  CodeOptions,
  ConnectOptions,
  ConvLayer,
  DenseLayer,
  DeployProgress,
  EventKind,
  Fleet,
  HedgeAfter,
  LayerChoice,
  LayerHealth,
  LayerPlan,
  LayerReport,
  LayerResult,
  LayerSpec,
  MatrixLike,
  ModelHealth,
  ModelOptions,
  ModelSource,
  OnLoss,
  OnnxLayer,
  Plan,
  Refusal,
  Replanned,
  ReplanOptions,
  RunOptions,
  RunReport,
  SegmentChoice,
  SegmentPlan,
  SegmentReport,
  Spans,
  RunResult,
  ShapedArray,
  UpdateOptions,
  VerifyChoice,
  WorkerSpeed,
  WorkerNeed,
  WorkerView,
} from '@kofn/master';
export type { CodeName } from '@kofn/encoder';
export type { EngineName } from '@kofn/engine';
export type { ModelFiles, ValueInfo } from '@kofn/graph';
// For those who extend, measure or break it.
export {
  ASSUMED_SPEEDS,
  type Arrival,
  type Costs,
  type DispatchCall,
  type DispatchHooks,
  type Erasure,
  type Rejection,
  type Speeds,
  type Unanswered,
} from '@kofn/master';
export type { Clock } from '@kofn/core';
