/** The unary methods of the Open Inference Protocol over what a server can do: a worker's shards, a master's models. */
import { KofnError, type DType, type Signal } from '@kofn/core';
import type { MethodPath, ServiceHandlers } from '../protocol/channel.js';
import { datatypeOf } from '../protocol/infer-codec.js';
import { parameterValues, versionToLoad } from '../protocol/infer-request.js';
import {
  codecs,
  METHODS,
  type InferRequestMessage,
  type InferResponseMessage,
  type TensorMetadataMessage,
} from '../protocol/protos.js';

/** An input or output of a model; a size that the model leaves open is a name. */
export interface DescribedValue {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly (number | string)[];
}

export interface DescribedModel {
  readonly name: string;
  readonly versions: readonly string[];
  readonly platform: string;
  readonly inputs: readonly DescribedValue[];
  readonly outputs: readonly DescribedValue[];
}

/** State and reason of one version of a model, in Triton's words. */
export interface IndexedModel {
  readonly name: string;
  readonly version: string;
  readonly state: 'UNKNOWN' | 'READY' | 'UNAVAILABLE' | 'LOADING' | 'UNLOADING';
  readonly reason: string;
}

/** A `version` is '' where the caller leaves it to the server. Each method throws KofnErrors, which reach the caller. */
export interface InferenceService {
  isLive(): boolean;
  isReady(): boolean;
  /** False for what is not there. */
  isModelReady(name: string, version: string): boolean;
  metadata(): { name: string; version: string; extensions: readonly string[] };
  describe(name: string, version: string, signal: Signal): DescribedModel | Promise<DescribedModel>;
  infer(request: InferRequestMessage, signal: Signal): Promise<Partial<InferResponseMessage>>;
  index(): readonly IndexedModel[];
  /** Of all versions with ''. */
  load(name: string, version: string, signal: Signal): Promise<void>;
  unload(name: string, version: string): Promise<void>;
}

export function inferenceHandlers(service: InferenceService): ServiceHandlers['unary'] {
  const { empty, modelName, repositoryModel } = codecs;
  return handlersOf([
    [METHODS.serverLive, () => codecs.serverLive.encode({ live: service.isLive() })],
    [METHODS.serverReady, () => codecs.serverReady.encode({ ready: service.isReady() })],
    [
      METHODS.serverMetadata,
      () => {
        const { extensions, ...rest } = service.metadata();
        return codecs.serverMetadata.encode({ ...rest, extensions: [...extensions] });
      },
    ],
    [
      METHODS.modelReady,
      request => {
        const { name, version } = modelName.decode(request);
        return codecs.modelReady.encode({ ready: service.isModelReady(name, version) });
      },
    ],
    [
      METHODS.modelMetadata,
      async (request, signal) => {
        const { name, version } = modelName.decode(request);
        const { versions, inputs, outputs, ...rest } = await service.describe(name, version, signal);
        return codecs.modelMetadata.encode({
          ...rest,
          versions: [...versions],
          inputs: inputs.map(tensorMetadata),
          outputs: outputs.map(tensorMetadata),
        });
      },
    ],
    [
      METHODS.modelInfer,
      async (request, signal) => {
        const response = await service.infer(codecs.inferRequest.decode(request), signal);
        return codecs.inferResponse.encode(response);
      },
    ],
    [
      METHODS.repositoryIndex,
      request => {
        const { repository_name: repository, ready } = codecs.repositoryIndexRequest.decode(request);
        checkRepository(repository);
        const models = service.index().filter(({ state }) => !ready || state === 'READY');
        return codecs.repositoryIndex.encode({ models: models.map(model => ({ ...model })) });
      },
    ],
    [
      METHODS.repositoryModelLoad,
      async (request, signal) => {
        const { repository_name: repository, model_name: name, parameters } = repositoryModel.decode(request);
        checkRepository(repository);
        await service.load(name, versionToLoad(parameterValues(parameters)), signal);
        return empty.encode({});
      },
    ],
    [
      METHODS.repositoryModelUnload,
      async request => {
        const { repository_name: repository, model_name: name, parameters } = repositoryModel.decode(request);
        checkRepository(repository);
        await service.unload(name, versionToLoad(parameterValues(parameters)));
        return empty.encode({});
      },
    ],
  ]);
}

/** Throws UNSUPPORTED. */
function checkRepository(name: string): void {
  if (name === '') return;
  throw new KofnError('UNSUPPORTED', 'repository_name is not supported: there is one repository, and it has no name');
}

type Handler = (request: Uint8Array, signal: Signal) => Uint8Array | Promise<Uint8Array>;

function handlersOf(entries: readonly (readonly [MethodPath, Handler])[]): ServiceHandlers['unary'] {
  return new Map(entries.map(([path, handler]) => [path, async (request, { signal }) => handler(request, signal)]));
}

/** A size that the model leaves open is -1, as the protocol has it. */
export function tensorMetadata({ name, dtype, shape }: DescribedValue): TensorMetadataMessage & { shape: number[] } {
  return { name, datatype: datatypeOf(dtype), shape: shape.map(size => (typeof size === 'number' ? size : -1)) };
}
