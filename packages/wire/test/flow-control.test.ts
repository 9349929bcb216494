import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2, { type Http2Session, type ServerHttp2Session } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { describe, it } from 'mocha';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { widenServerWindow, WINDOW_BYTES } from '../src/grpc/flow-control.js';
import { connectChannel } from '../src/grpc/grpc-channel.js';

describe('flow control', () => {
  it('opens 8 MB windows, per stream and per connection, on the server', async () => {
    const server = new Server();
    const sessions: ServerHttp2Session[] = [];
    widenServerWindow(server, { onSession: session => sessions.push(session) });
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    const client = http2.connect(`http://127.0.0.1:${port}`);
    try {
      await settled(client);
      assert.equal(client.remoteSettings.initialWindowSize, WINDOW_BYTES);
      assert.equal(client.state.remoteWindowSize, WINDOW_BYTES); // what this client may send: DATA over all streams
      assert.equal(sessions[0]!.state.effectiveLocalWindowSize, WINDOW_BYTES);
    } finally {
      client.destroy();
      server.forceShutdown();
    }
  });

  it('opens 8 MB windows, per stream and per connection, on the client', async () => {
    const server = http2.createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const channel = connectChannel(`127.0.0.1:${(server.address() as AddressInfo).port}`);
    try {
      const [[session]] = await Promise.all([
        once(server, 'session') as Promise<[ServerHttp2Session]>,
        channel.ready({ deadlineMs: 10_000 }),
      ]);
      await settled(session);
      assert.equal(session.remoteSettings.initialWindowSize, WINDOW_BYTES);
      assert.equal(session.state.remoteWindowSize, WINDOW_BYTES);
    } finally {
      await channel[Symbol.asyncDispose]();
      server.close();
    }
  });
});

/** Both settings and the window update after them have arrived: a ping is answered in order. */
async function settled(session: Http2Session): Promise<void> {
  if (session.connecting) await once(session, 'connect');
  for (let round = 0; round < 2; round++) {
    await new Promise<void>((resolve, reject) => session.ping(error => (error ? reject(error) : resolve())));
  }
}
