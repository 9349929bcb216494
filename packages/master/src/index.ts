export { connect } from './connect.js';
export type { Cluster } from './fleet/cluster.js';
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
export { codedModel, modelName, type CodedModel, type RunResult, type UpdateOptions } from './coded-model.js';
export { planModel } from './planning/design.js';
export type { ClusterEvent, EventKind } from './fleet/events.js';
export { replanStanding, standingOn, type StandingModel } from './standing/replan.js';
// The simulator plants bugs in it.
export { Healer } from './standing/heal.js';
export type { Holding } from './standing/holding.js';
export type { ModelSource } from './planning/prepare.js';
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
} from './contract/options.js';
export {
  ASSUMED_SPEEDS,
  type Costs,
  type LayerPlan,
  type Plan,
  type SegmentPlan,
  type Speeds,
} from './contract/plan.js';
export { refusalWords } from './blocks/refusals.js';
export type {
  Arrival,
  Erasure,
  LayerReport,
  Rejection,
  RunReport,
  SegmentReport,
  Unanswered,
} from './contract/report.js';
export type { Spans } from './contract/spans.js';
export type { WorkerSpeed } from './fleet/speeds.js';
export type { Fleet, WorkerView } from './fleet/fleet.js';
export { checkInputs, zeroInputs } from './contract/inputs.js';
// Changed by planted bugs.
export { Refusals } from './blocks/refusals.js';
export { ReplyCheck } from './verify/verification.js';
export type { HedgeAfter } from './contract/options.js';
export type { Refusal } from './contract/plan.js';
export type { WorkerNeed } from './contract/plan.js';
export type { Replanned } from './contract/plan.js';
export type { ReplanOptions } from './contract/options.js';
export type { AuditOutcome } from './contract/report.js';
export type { AuditCounts } from './contract/report.js';
export type { LayerHealth, ModelHealth } from './contract/health.js';
