/** A gRPC server of given handlers and a channel to it, for the tests of this folder. */
import { connectChannel } from '../src/grpc/grpc-channel.js';
import { listenGrpc, type Listening } from '../src/grpc/grpc-server.js';
import type { Channel, MethodPath, ServiceHandlers } from '../src/protocol/channel.js';

export const UNARY: MethodPath = '/test.Service/Unary';
export const CLIENT_STREAM: MethodPath = '/test.Service/ClientStream';
export const DUPLEX: MethodPath = '/test.Service/Duplex';

type Handler<Kind extends keyof ServiceHandlers> =
  ServiceHandlers[Kind] extends ReadonlyMap<MethodPath, infer H> ? H : never;

export interface Pair extends AsyncDisposable {
  readonly channel: Channel;
  readonly server: Listening;
}

export function handlers(methods: {
  unary?: Handler<'unary'>;
  clientStream?: Handler<'clientStream'>;
  duplex?: Handler<'duplex'>;
}): ServiceHandlers {
  const { unary, clientStream, duplex } = methods;
  return {
    unary: new Map(unary && [[UNARY, unary]]),
    clientStream: new Map(clientStream && [[CLIENT_STREAM, clientStream]]),
    duplex: new Map(duplex && [[DUPLEX, duplex]]),
  };
}

export async function pair(
  services: ServiceHandlers,
  options: { maxMessageBytes?: number; serverMaxMessageBytes?: number } = {},
): Promise<Pair> {
  const { maxMessageBytes, serverMaxMessageBytes } = options;
  const server = await listenGrpc(services, {
    host: '127.0.0.1',
    port: 0,
    ...(serverMaxMessageBytes === undefined ? {} : { maxMessageBytes: serverMaxMessageBytes }),
  });
  const channel = connectChannel(server.address, maxMessageBytes === undefined ? {} : { maxMessageBytes });
  return {
    channel,
    server,
    async [Symbol.asyncDispose]() {
      await channel[Symbol.asyncDispose]();
      await server.close(0);
    },
  };
}

export function deferred<T = void>() {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

export function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}
