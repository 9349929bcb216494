// What callers of a worker use.
export { connectChannel } from './grpc-channel.js';
export {
  WorkerClient,
  type InventoryShard,
  type RecentWork,
  type ServerMetadata,
  type WorkerInventory,
} from './worker-client.js';
export { InferStream, type InferOptions, type InferReply, type InferRequest } from './infer-stream.js';
export { FaultControlClient } from './fault-control-client.js';
export type {
  FaultAction,
  FaultDevice,
  FaultSettings,
  FaultStall,
  FaultStatus,
  ResolvedFaultSettings,
} from './faults.js';
export { checkBlock, fitsBlock, type ShardBlock } from './block.js';
export { checkOwner, type Owner } from './owner.js';
export { shardHash, shardName, type ShardFiles, type ShardSource } from './shard-transfer.js';
// What servers use.
export { actionFrom, actionMessage, resolveFaults, settingsFrom, settingsMessage } from './faults.js';
export { checksum, SEAL_BYTES } from './checksum.js';
export { checkMessageSize } from './grpc-options.js';
export { followHealth, listenGrpc, type Listening, type ListenOptions } from './grpc-server.js';
export {
  checkParameters,
  parameterValues,
  readInferRequest,
  requestedOutputs,
  selectOutputs,
  timeoutMs,
  versionToLoad,
  type ParameterValues,
  type RequestedOutput,
} from './infer-request.js';
export {
  DEFAULT_WORKER_PORT,
  formatAddress,
  isLoopback,
  parseListen,
  parseServer,
  parseWorker,
  parseWorkers,
  type ListenAddress,
} from './address.js';
export {
  inferenceHandlers,
  tensorMetadata,
  type DescribedModel,
  type DescribedValue,
  type IndexedModel,
  type InferenceService,
} from './open-inference.js';
export { RequestQueue, type QueueCounters } from './request-queue.js';
export { errorFrame, serveStream, type StreamServing } from './serve-stream.js';
export {
  EncodedInputs,
  MACS,
  REQUEST_ID,
  readRequest,
  replyFrame,
  timesParameters,
  type WorkerTimes,
} from './frames.js';
export { datatypeOf, dtypeOf, decodeTensors, encodeTensors } from './infer-codec.js';
export {
  codecs,
  EXTENSIONS,
  METHODS,
  PROTOCOL_VERSION,
  type Codec,
  type InferParameter,
  type InferRequestMessage,
  type InferResponseMessage,
  type StreamResponseMessage,
  type TensorContents,
} from './protos.js';
export { DEFAULT_MAX_MESSAGE_BYTES } from './grpc-options.js';
// The seam below both.
export type {
  CallContext,
  CallOptions,
  Channel,
  DuplexCall,
  DuplexEvents,
  MessageParts,
  MethodPath,
  ServerDuplex,
  ServiceHandlers,
} from './channel.js';
