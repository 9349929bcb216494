/** The .proto files and their messages: one typed codec a message. 64-bit integers are strings, bytes are views. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { loadSync, type MessageTypeDefinition, type PackageDefinition } from '@grpc/proto-loader';
import { KofnError } from '@kofn/core';
import type { MethodPath } from './channel.js';

/** Packed beside dist; in a checkout before the first build, at the root of the repository. */
const folder = ['../../../protos/', '../../../../../protos/']
  .map(relative => fileURLToPath(new URL(relative, import.meta.url)))
  .find(candidate => existsSync(`${candidate}open_inference.proto`))!;

const FILES = ['open_inference.proto', 'kofn/v1/shard_store.proto', 'kofn/v1/fault_control.proto'];

export const protoDefinition: PackageDefinition = loadSync(FILES, {
  includeDirs: [folder],
  keepCase: true,
  longs: String,
  defaults: true,
  arrays: true,
  objects: true,
  oneofs: true,
});

const OPEN_INFERENCE = 'inference.GRPCInferenceService';
const SHARD_STORE = 'kofn.v1.ShardStore';
const FAULT_CONTROL = 'kofn.v1.FaultControl';

export const METHODS = {
  serverLive: `/${OPEN_INFERENCE}/ServerLive`,
  serverReady: `/${OPEN_INFERENCE}/ServerReady`,
  modelReady: `/${OPEN_INFERENCE}/ModelReady`,
  serverMetadata: `/${OPEN_INFERENCE}/ServerMetadata`,
  modelMetadata: `/${OPEN_INFERENCE}/ModelMetadata`,
  modelInfer: `/${OPEN_INFERENCE}/ModelInfer`,
  modelStreamInfer: `/${OPEN_INFERENCE}/ModelStreamInfer`,
  repositoryIndex: `/${OPEN_INFERENCE}/RepositoryIndex`,
  repositoryModelLoad: `/${OPEN_INFERENCE}/RepositoryModelLoad`,
  repositoryModelUnload: `/${OPEN_INFERENCE}/RepositoryModelUnload`,
  inventory: `/${SHARD_STORE}/Inventory`,
  put: `/${SHARD_STORE}/Put`,
  claim: `/${SHARD_STORE}/Claim`,
  remove: `/${SHARD_STORE}/Remove`,
  setFaults: `/${FAULT_CONTROL}/Set`,
  act: `/${FAULT_CONTROL}/Act`,
  faultStatus: `/${FAULT_CONTROL}/Status`,
} as const satisfies Record<string, MethodPath>;

/** The extensions that a worker lists in its ServerMetadata; `faults` only one that was started with --allow-faults. */
export const EXTENSIONS = {
  cancel: 'kofn.cancel',
  checksum: 'kofn.checksum',
  shardStore: 'kofn.shard_store',
  faults: 'kofn.faults',
} as const;

/** Version of kofn's own part of the protocol. */
export const PROTOCOL_VERSION = 3;

export interface Codec<T> {
  /** Fields that are absent take their defaults. */
  encode(message: Partial<T>): Uint8Array;
  /** Throws PROTOCOL for bytes that are no such message. */
  decode(bytes: Uint8Array): T;
}

/** One of them is there, or none: the client gave a parameter without a value. */
export interface InferParameter {
  bool_param?: boolean;
  int64_param?: string | number;
  string_param?: string;
  double_param?: number;
  uint64_param?: string | number;
  /** Only of RepositoryModelLoad and RepositoryModelUnload. */
  bytes_param?: Uint8Array;
}

export interface TensorContents {
  bool_contents: boolean[];
  int_contents: number[];
  int64_contents: string[];
  uint_contents: number[];
  uint64_contents: string[];
  fp32_contents: number[];
  fp64_contents: number[];
  bytes_contents: Uint8Array[];
}

export interface TensorMessage {
  name: string;
  datatype: string;
  shape: (string | number)[];
  parameters?: Record<string, InferParameter>;
  contents?: TensorContents | null;
}

export interface InferRequestMessage {
  model_name: string;
  model_version: string;
  id: string;
  parameters: Record<string, InferParameter>;
  inputs: TensorMessage[];
  outputs: { name: string; parameters?: Record<string, InferParameter> }[];
  raw_input_contents: Uint8Array[];
}

export interface InferResponseMessage {
  model_name: string;
  model_version: string;
  id: string;
  parameters: Record<string, InferParameter>;
  outputs: TensorMessage[];
  raw_output_contents: Uint8Array[];
}

export interface StreamResponseMessage {
  error_message: string;
  infer_response: Partial<InferResponseMessage> | null;
}

export interface TensorMetadataMessage {
  name: string;
  datatype: string;
  shape: (string | number)[];
}

export interface BlockMessage {
  layers: readonly string[];
  code: string;
  k: number;
  r: number;
  block: number;
}

export interface OwnerMessage {
  cluster: string;
  model: string;
  version: number;
}

export interface FaultSettingsMessage {
  seed: string | number;
  device?: { gflops: number; overhead_ms: number; replay: boolean } | null;
  slow_factor: number;
  stall?: { rate: number; min_ms: number; max_ms: number } | null;
  drop_rate: number;
  corrupt_rate: number;
  wrong_rate: number;
}

/** One of them is there. */
export interface FaultActionMessage {
  kill?: Empty | null;
  pause?: { ms: number } | null;
  kill_on_next?: Empty | null;
  pause_on_next?: { ms: number } | null;
}

export interface FaultStatusMessage {
  received: string | number;
  run: string | number;
  stalled: string | number;
  dropped: string | number;
  corrupted: string | number;
  busy_ms: number;
  stalled_ms: number;
  cpu_ms: number;
  rss_bytes: string | number;
  settings: FaultSettingsMessage | null;
  armed: FaultActionMessage | null;
}

type Empty = Record<never, never>;

/** By message name, as the .proto files have it. */
export const codecs = {
  empty: codec<Empty>('inference.ServerLiveRequest'),
  serverLive: codec<{ live: boolean }>('inference.ServerLiveResponse'),
  serverReady: codec<{ ready: boolean }>('inference.ServerReadyResponse'),
  modelName: codec<{ name: string; version: string }>('inference.ModelReadyRequest'),
  modelReady: codec<{ ready: boolean }>('inference.ModelReadyResponse'),
  serverMetadata: codec<{ name: string; version: string; extensions: string[] }>('inference.ServerMetadataResponse'),
  modelMetadata: codec<{
    name: string;
    versions: string[];
    platform: string;
    inputs: TensorMetadataMessage[];
    outputs: TensorMetadataMessage[];
  }>('inference.ModelMetadataResponse'),
  inferRequest: codec<InferRequestMessage>('inference.ModelInferRequest'),
  inferResponse: codec<InferResponseMessage>('inference.ModelInferResponse'),
  streamResponse: codec<StreamResponseMessage>('inference.ModelStreamInferResponse'),
  repositoryIndexRequest: codec<{ repository_name: string; ready: boolean }>('inference.RepositoryIndexRequest'),
  repositoryIndex: codec<{ models: { name: string; version: string; state: string; reason: string }[] }>(
    'inference.RepositoryIndexResponse',
  ),
  repositoryModel: codec<{
    repository_name: string;
    model_name: string;
    parameters: Record<string, InferParameter>;
  }>('inference.RepositoryModelLoadRequest'),
  inventory: codec<{
    worker_id: string;
    process_id: string;
    protocol_version: number;
    engine: string;
    engine_version: string;
    memory_limit_bytes: string | number;
    disk_limit_bytes: string | number;
    disk_used_bytes: string | number;
    cores: number;
    shards: {
      name: string;
      bytes: string | number;
      owners: OwnerMessage[];
      uses: { owner: OwnerMessage | null; block: BlockMessage | null }[];
    }[];
    recent: { runs: string | number; macs: string | number; engine_ms: number } | null;
    events: { age_ms: number; text: string }[];
    session_bytes: string | number;
    memory_used_bytes: string | number;
  }>('kofn.v1.InventoryResponse'),
  putRequest: codec<{
    header?: {
      name: string;
      model_bytes: string | number;
      weights_bytes: string | number;
      owner?: OwnerMessage | null | undefined;
      block?: BlockMessage | null | undefined;
    } | null;
    data?: Uint8Array;
  }>('kofn.v1.PutRequest'),
  putResponse: codec<{ present: boolean }>('kofn.v1.PutResponse'),
  claimRequest: codec<{ names: string[]; owner: OwnerMessage | null; block: BlockMessage | null }>(
    'kofn.v1.ClaimRequest',
  ),
  claimResponse: codec<{ missing: string[] }>('kofn.v1.ClaimResponse'),
  removeRequest: codec<{ names: string[]; owner: OwnerMessage | null }>('kofn.v1.RemoveRequest'),
  removeResponse: codec<{ removed: string[] }>('kofn.v1.RemoveResponse'),
  faultSettings: codec<FaultSettingsMessage>('kofn.v1.FaultSettings'),
  faultAction: codec<FaultActionMessage>('kofn.v1.FaultAction'),
  faultStatus: codec<FaultStatusMessage>('kofn.v1.FaultStatus'),
} as const;

function codec<T>(name: string): Codec<T> {
  const definition = protoDefinition[name] as MessageTypeDefinition<object, object>;
  return {
    encode: message => definition.serialize(message),
    decode: bytes => {
      try {
        return definition.deserialize(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)) as T;
      } catch (cause) {
        throw new KofnError('PROTOCOL', `the message is no ${name}`, { cause });
      }
    },
  };
}
