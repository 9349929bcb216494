export { connect, type Cluster } from './cluster.js';
export {
  codedLayer,
  type CodedLayer,
  type ConvLayer,
  type DenseLayer,
  type LayerResult,
  type LayerSpec,
  type MatrixLike,
  type OnnxLayer,
  type ShapedArray,
} from './coded-layer.js';
export type { AuditOutcome } from './audit.js';
export {
  codedModel,
  modelName,
  type AuditCounts,
  type CodedModel,
  type RunResult,
  type UpdateOptions,
} from './coded-model.js';
export { planModel } from './design.js';
export type { ClusterEvent, EventKind } from './events.js';
export { replanStanding, standingOn, type Replanned, type ReplanOptions, type StandingModel } from './replan.js';
export type { WorkerNeed } from './capacity.js';
// The simulator plants bugs in it.
export { Healer } from './heal.js';
export type { Holding } from './holding.js';
export type { LayerHealth, ModelHealth } from './holding.js';
export type { HedgeAfter } from './hedge.js';
export type { ModelSource } from './prepare.js';
export type {
  CodeOptions,
  ConnectOptions,
  DeployProgress,
  DispatchCall,
  DispatchHooks,
  LayerChoice,
  ModelOptions,
  OnLoss,
  RunOptions,
  SegmentChoice,
  VerifyChoice,
} from './options.js';
export { ASSUMED_SPEEDS, type Costs, type LayerPlan, type Plan, type SegmentPlan, type Speeds } from './plan.js';
export { refusalWords, type Refusal } from './refusals.js';
export type { Arrival, Erasure, LayerReport, Rejection, RunReport, SegmentReport, Unanswered } from './report.js';
export type { Spans } from './spans.js';
export type { WorkerSpeed } from './speeds.js';
export type { Fleet, WorkerView } from './fleet.js';
export { checkInputs, zeroInputs } from './inputs.js';
// Changed by planted bugs.
export { Refusals } from './refusals.js';
export { ReplyCheck } from './verification.js';
