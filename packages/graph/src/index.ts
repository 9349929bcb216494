// Models and what can be coded in them.
export { loadModel } from './onnx.js';
export { findCodable, type Codable, type CodableReport, type NotCodable } from './codable.js';
export { cutModel, type CodedStep, type Cut, type SegmentStep } from './cut.js';
export { profile, type NodeProfile } from './profile.js';
// Layers and shards.
export {
  groupsOf,
  macsOf,
  outputShape,
  type ConvAttributes,
  type LayerGeometry,
  type LinearLayer,
} from './linear-layer.js';
export { ACTIVATIONS, layerModel, shardModel, type ActivationName } from './shard-model.js';
export { extractNode, probeModel, type ValueTypes } from './sub-model.js';
// The graph itself.
export type { GraphNode, ModelFiles, OnnxModel, ValueInfo } from './graph.js';
export { constantValue } from './onnx.js';
