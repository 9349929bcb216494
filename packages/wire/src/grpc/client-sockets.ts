/**
 * The TCP sockets of a client's channel, so that the channel can end them. `Client.close` of grpc-js asks its HTTP/2 session to
 * close when the streams have; where the other end is silent, or broke the protocol so that node reads no more of it, they do
 * not, and socket, session and all that waits to be written stay until keepalive finds them. And a connection that is just
 * being made when the client closes is made all the same, and then forgotten: that one stayed for good.
 */
import type { Socket } from 'node:net';
import { credentials, type ChannelCredentials } from '@grpc/grpc-js';
import { KofnError } from '@kofn/core';

/** What grpc-js 1.14 asks of credentials that is not in their documented types. */
interface CredentialsInternals {
  _createSecureConnector(...of: unknown[]): { connect(socket: Socket): Promise<unknown> };
}

export interface ClientSockets {
  /** Without encryption; for one channel. */
  readonly credentials: ChannelCredentials;
  /** Ends every connection made with them, now, and each that is still made as soon as it is. */
  destroy(): void;
}

/** Throws INTERNAL when grpc-js has changed under us. */
export function clientSockets(): ClientSockets {
  const open = new Set<Socket>();
  let destroyed = false;
  const insecure = credentials.createInsecure();
  const internals = insecure as unknown as CredentialsInternals;
  if (typeof internals._createSecureConnector !== 'function') {
    throw new KofnError('INTERNAL', 'this version of @grpc/grpc-js makes its connections in another way; use 1.14');
  }
  const create = internals._createSecureConnector.bind(insecure);
  internals._createSecureConnector = (...of) => {
    const connector = create(...of);
    const connect = connector.connect.bind(connector);
    connector.connect = socket => {
      if (destroyed) socket.destroy();
      open.add(socket);
      socket.once('close', () => open.delete(socket));
      return connect(socket);
    };
    return connector;
  };
  return {
    credentials: insecure,
    destroy() {
      destroyed = true;
      for (const socket of [...open]) socket.destroy();
    },
  };
}
