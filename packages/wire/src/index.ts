// What callers of a worker use.
export { connectChannel } from './grpc/grpc-channel.js';
export {
  WorkerClient,
  type InventoryShard,
  type RecentWork,
  type ServerMetadata,
  type WorkerInventory,
} from './client/worker-client.js';
export { InferStream, type InferOptions, type InferReply, type InferRequest } from './client/infer-stream.js';
export { FaultControlClient } from './client/fault-control-client.js';
export type {
  FaultAction,
  FaultDevice,
  FaultSettings,
  FaultStall,
  FaultStatus,
  ResolvedFaultSettings,
} from './client/faults.js';
export { checkBlock, fitsBlock, type ShardBlock } from './protocol/block.js';
export { checkOwner, type Owner } from './protocol/owner.js';
export { shardHash, shardName, type ShardFiles, type ShardSource } from './client/shard-transfer.js';
// What servers use.
export { actionFrom, actionMessage, resolveFaults, settingsFrom, settingsMessage } from './client/faults.js';
export { checksum, SEAL_BYTES } from './protocol/checksum.js';
export { checkMessageSize } from './grpc/grpc-options.js';
export { followHealth, listenGrpc, type Listening, type ListenOptions } from './grpc/grpc-server.js';
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
} from './protocol/infer-request.js';
export {
  DEFAULT_WORKER_PORT,
  formatAddress,
  isLoopback,
  parseListen,
  parseServer,
  parseWorker,
  parseWorkers,
  type ListenAddress,
} from './protocol/address.js';
export {
  inferenceHandlers,
  tensorMetadata,
  type DescribedModel,
  type DescribedValue,
  type IndexedModel,
  type InferenceService,
} from './server/open-inference.js';
export { RequestQueue, type QueueCounters } from './server/request-queue.js';
export { errorFrame, serveStream, type StreamServing } from './server/serve-stream.js';
export {
  EncodedInputs,
  MACS,
  REQUEST_ID,
  readRequest,
  replyFrame,
  timesParameters,
  type WorkerTimes,
} from './protocol/frames.js';
export { datatypeOf, dtypeOf, decodeTensors, encodeTensors } from './protocol/infer-codec.js';
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
} from './protocol/protos.js';
export { DEFAULT_MAX_MESSAGE_BYTES } from './grpc/grpc-options.js';
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
} from './protocol/channel.js';
