/** The server's end of the bare harness: grpc-js as anybody would use it, on a port of the system's choice. */
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { BARE_SERVICE, SHARD } from './bare.js';

export type BareCall = ServerDuplexStream<Buffer, Buffer>;

/** Calls `onMessage` with each message and the shard that its stream names. Resolves with the address. */
export async function listenBare(onMessage: (call: BareCall, message: Buffer, shard: number) => void): Promise<string> {
  const server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 });
  server.addService(BARE_SERVICE, {
    exchange(call: BareCall) {
      const shard = Number(call.metadata.get(SHARD)[0]);
      call.on('data', (message: Buffer) => onMessage(call, message, shard));
      call.on('end', () => call.end());
      call.on('error', () => undefined); // the client has gone
    },
  });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  return `127.0.0.1:${port}`;
}
