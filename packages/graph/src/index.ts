// Models and what can be coded in them.
export { loadModel, type LoadOptions } from './model/onnx.js';
export { findCodable, type Codable, type CodableReport, type NotCodable } from './parts/codable.js';
export { cutModel, type CodedStep, type Cut, type SegmentStep } from './parts/cut.js';
export { computedWeights, withConstants } from './parts/fold.js';
export { profile, type NodeProfile } from './parts/profile.js';
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
} from './parts/linear-layer.js';
export {
  ACTIVATIONS,
  layerModel,
  shardImage,
  shardModel,
  shardOutput,
  type ActivationName,
  type ShardPart,
} from './parts/shard-model.js';
export { extractNode, fileModel, probeModel, wholeModel, type ValueTypes } from './parts/sub-model.js';
export { imageOfFiles, modelFiles, modelFilesInParts, weightsInBands, saveModel } from './model/model-image.js';
export { openExternal } from './model/external-data.js';
// The graph itself.
export { withoutOthers } from './model/values.js';
export type { GraphNode, ModelFiles, ModelImage, OnnxModel, OtherValue, ValueInfo } from './model/graph.js';
export { constantValue } from './model/constant.js';
