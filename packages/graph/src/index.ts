// Models and what can be coded in them.
export { loadModel, type LoadOptions } from './onnx.js';
export { findCodable, type Codable, type CodableReport, type NotCodable } from './codable.js';
export { cutModel, type CodedStep, type Cut, type SegmentStep } from './cut.js';
export { computedWeights, withConstants } from './fold.js';
export { profile, type NodeProfile } from './profile.js';
// Layers and shards.
export {
  groupsOf,
  layerOutput,
  macsOf,
  outputShape,
  padsBefore,
  shardInput,
  type ConvAttributes,
  type LayerGeometry,
  type LinearLayer,
} from './linear-layer.js';
export {
  ACTIVATIONS,
  layerModel,
  shardImage,
  shardModel,
  shardOutput,
  type ActivationName,
  type ShardPart,
} from './shard-model.js';
export { extractNode, fileModel, probeModel, wholeModel, type ValueTypes } from './sub-model.js';
export { imageOfFiles, modelFiles, modelFilesInParts, weightsInBands, saveModel } from './model-image.js';
export { openExternal } from './external-data.js';
// The graph itself.
export { withoutOthers } from './values.js';
export type { GraphNode, ModelFiles, ModelImage, OnnxModel, OtherValue, ValueInfo } from './graph.js';
export { constantValue } from './constant.js';
