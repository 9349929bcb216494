/**
 * What the transport costs by itself: grpc-js as anybody would use it, one bidirectional stream of raw buffers, each message
 * answered with one of `replyBytes`. A child of a benchmark.
 */
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { BARE_SERVICE } from './bare.js';
import { parentData, serveParent } from './child.js';

export interface BareServerData {
  readonly replyBytes: number;
}

export interface BareServerReady {
  readonly address: string;
}

const { replyBytes } = parentData<BareServerData>();
const reply = Buffer.alloc(replyBytes);
const server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 });
server.addService(BARE_SERVICE, {
  exchange(call: ServerDuplexStream<Buffer, Buffer>) {
    call.on('data', () => call.write(reply));
    call.on('end', () => call.end());
    call.on('error', () => undefined); // the client has gone
  },
});
const port = await new Promise<number>((resolve, reject) => {
  server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
    error === null ? resolve(bound) : reject(error),
  );
});
serveParent({ address: `127.0.0.1:${port}` } satisfies BareServerReady, () => process.cpuUsage());
