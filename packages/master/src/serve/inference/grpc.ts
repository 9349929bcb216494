/** The Open Inference Protocol over gRPC, as a master speaks it: messages in, calls of server.ts out. */
import type { Signal } from '@kofn/core';
import {
  encodeTensors,
  EXTENSIONS,
  inferenceHandlers,
  METHODS,
  readInferRequest,
  replyFrame,
  serveStream,
  type InferenceService,
  type InferRequestMessage,
  type InferResponseMessage,
  type ServiceHandlers,
} from '@kofn/wire';
import type { InferenceServer } from './server.js';

/** What a client may count on beyond the protocol itself. */
export const SERVER_EXTENSIONS = [
  'classification',
  'model_repository',
  'model_repository(unload_dependents)',
  'binary_tensor_data',
  EXTENSIONS.cancel,
  EXTENSIONS.checksum,
];

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
    load: (name, modelVersion, signal) => server.repository.load(name, modelVersion, signal),
    unload: (name, modelVersion) => server.repository.unload(name, modelVersion),
  };
  const serving = {
    clock: server.cluster.clock,
    who: 'this server',
    shutdown: server.shutdown,
    answer: async (request: InferRequestMessage, { signal, crc }: { signal: Signal; crc: number | undefined }) =>
      replyFrame({ infer_response: await inferOnStream(server, request, signal) }, crc),
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
  const { model_name: model, model_version: version, id } = request;
  server.repository.find(model, version); // that it is not there is said before what is wrong with the rest
  const { inputs, outputs, timeoutMs } = readInferRequest(request);
  const answer = await server.infer({ model, version, id, inputs, outputs, timeoutMs, signal });
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

/** To a client that asks, as Triton's does, whether a response is the last to its request: each is. */
async function inferOnStream(
  server: InferenceServer,
  request: InferRequestMessage,
  signal: Signal,
): Promise<Partial<InferResponseMessage>> {
  const response = await inferMessage(server, request, signal);
  if (request.parameters['triton_enable_empty_final_response']?.bool_param !== true) return response;
  return { ...response, parameters: { ...response.parameters, triton_final_response: { bool_param: true } } };
}
