/**
 * HTTP/2 windows wide enough for real links. With the default 64 KB a sender stops for a round trip every 64 KB: at 5 ms
 * each way 1 MB takes 270 ms. grpc-js has an option for the client's end and none for the server's, so the server's
 * sessions are set here, where grpc-js makes them.
 */
import type { Http2Server, ServerHttp2Session } from 'node:http2';
import type { ChannelOptions, Server, ServerCredentials } from '@grpc/grpc-js';
import { KofnError } from '@kofn/core';

export const WINDOW_BYTES = 8 * 2 ** 20;

export const clientWindow: ChannelOptions = { 'grpc-node.flow_control_window': WINDOW_BYTES };

/** What grpc-js 1.14 keeps of a server that is not in its types. */
interface ServerInternals {
  commonServerOptions: { settings?: { initialWindowSize?: number } };
  createHttp2Server(credentials: ServerCredentials): Http2Server;
}

/**
 * Widens the windows of every session of `server`, and sets how many connections it takes at once; call it before the server binds.
 * `onSession` sees each session. Throws INTERNAL when grpc-js has changed under us.
 */
export function widenServerWindow(
  server: Server,
  {
    onSession,
    maxConnections,
  }: { onSession?: (session: ServerHttp2Session) => void; maxConnections?: number | undefined } = {},
): void {
  const internals = server as unknown as ServerInternals;
  if (typeof internals.createHttp2Server !== 'function' || typeof internals.commonServerOptions !== 'object') {
    throw new KofnError('INTERNAL', 'this version of @grpc/grpc-js makes its HTTP/2 server in another way; use 1.14');
  }
  internals.commonServerOptions.settings = {
    ...internals.commonServerOptions.settings,
    initialWindowSize: WINDOW_BYTES,
  };
  const create = internals.createHttp2Server.bind(server);
  internals.createHttp2Server = credentials => {
    const http2Server = create(credentials);
    if (maxConnections !== undefined) http2Server.maxConnections = maxConnections;
    http2Server.prependListener('session', session => {
      session.setLocalWindowSize(WINDOW_BYTES);
      onSession?.(session);
    });
    return http2Server;
  };
}
