/** A client that knows the .proto file and nothing of kofn: proto-loader with its own defaults, grpc-js with its own. */
import path from 'node:path';
import {
  credentials,
  loadPackageDefinition,
  Metadata,
  type ChannelCredentials,
  type Client,
  type ClientDuplexStream,
  type ServiceClientConstructor,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ROOT } from '../e2e/command.js';

type Call = (
  request: object,
  metadata: Metadata,
  done: (error: Error | null, reply: Record<string, unknown>) => void,
) => void;

export interface StockClient {
  /** Rejects with a ServiceError. */
  call(method: string, request: object, metadata?: Record<string, string>): Promise<Record<string, unknown>>;
  stream(): ClientDuplexStream<object, unknown>;
  close(): void;
}

export function inferenceClient(
  address: string,
  channelCredentials: ChannelCredentials = credentials.createInsecure(),
): StockClient {
  const { inference } = loadPackageDefinition(
    loadSync(path.join(ROOT, 'protos', 'open_inference.proto')),
  ) as unknown as {
    inference: { GRPCInferenceService: ServiceClientConstructor };
  };
  const client = new inference.GRPCInferenceService(address, channelCredentials) as Client & {
    readonly [method: string]: unknown;
    modelStreamInfer(): ClientDuplexStream<object, unknown>;
  };
  return {
    call: (method, request, given = {}) => {
      const metadata = new Metadata();
      for (const [key, value] of Object.entries(given)) metadata.set(key, value);
      return new Promise((resolve, reject) =>
        (client[method] as Call).call(client, request, metadata, (error, reply) =>
          error ? reject(error) : resolve(reply),
        ),
      );
    },
    stream: () => client.modelStreamInfer(),
    close: () => client.close(),
  };
}
