/** The Open Inference Protocol over gRPC, as a master speaks it: messages in, calls of server.ts out. */
import { KofnError, type Signal } from '@kofn/core';
import {
  decodeTensors,
  encodeTensors,
  EXTENSIONS,
  inferenceHandlers,
  METHODS,
  replyFrame,
  serveStream,
  timeoutOf,
  type InferenceService,
  type InferParameter,
  type InferRequestMessage,
  type InferResponseMessage,
  type ServiceHandlers,
} from '@kofn/wire';
import type { InferenceServer } from './server.js';

/** What a client may count on beyond the protocol itself. */
export const SERVER_EXTENSIONS = ['model_repository', 'binary_tensor_data', EXTENSIONS.cancel, EXTENSIONS.checksum];

/** The parameter of RepositoryModelLoad and RepositoryModelUnload that names one version; without it all are meant. */
const VERSION_PARAMETER = 'version';

/** `version`: of kofn. */
export function grpcHandlers(server: InferenceServer, version: string): ServiceHandlers {
  const service: InferenceService = {
    isLive: () => server.isLive,
    isReady: () => server.isReady,
    isModelReady: (name, modelVersion) => server.isModelReady(name, modelVersion),
    metadata: () => ({ name: 'kofn', version, extensions: SERVER_EXTENSIONS }),
    describe: (name, modelVersion) => server.describe(name, modelVersion),
    infer: (request, signal) => inferMessage(server, request, signal),
    index: () => server.repository.index(),
    load: (name, parameters, signal) => server.repository.load(name, versionIn(parameters), signal),
    unload: (name, parameters) => server.repository.unload(name, versionIn(parameters)),
  };
  const serving = {
    clock: server.cluster.clock,
    who: 'this server',
    shutdown: server.shutdown,
    answer: async (request: InferRequestMessage, { signal, crc }: { signal: Signal; crc: number | undefined }) =>
      replyFrame({ infer_response: await inferMessage(server, request, signal) }, crc),
  };
  return {
    unary: inferenceHandlers(service),
    clientStream: new Map(),
    duplex: new Map([[METHODS.modelStreamInfer, stream => serveStream(stream, serving)]]),
  };
}

async function inferMessage(
  server: InferenceServer,
  request: InferRequestMessage,
  signal: Signal,
): Promise<Partial<InferResponseMessage>> {
  const answer = await server.infer({
    model: request.model_name,
    version: request.model_version,
    id: request.id,
    inputs: decodeTensors(request.inputs, request.raw_input_contents),
    outputs: request.outputs.map(({ name }) => name),
    timeoutMs: timeoutOf(request),
    signal,
  });
  const { tensors, raw } = encodeTensors(answer.outputs);
  return {
    model_name: answer.model,
    model_version: answer.version,
    id: answer.id,
    parameters: answer.parameters,
    outputs: tensors,
    raw_output_contents: raw,
  };
}

/** Throws INVALID_ARGUMENT. */
function versionIn(parameters: Readonly<Record<string, InferParameter>>): string {
  const parameter = parameters[VERSION_PARAMETER];
  if (parameter === undefined) return '';
  if (parameter.string_param !== undefined) return parameter.string_param;
  throw new KofnError('INVALID_ARGUMENT', `parameter ${VERSION_PARAMETER}: give the version as a string`);
}
