import assert from 'node:assert/strict';
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, it } from 'mocha';
import { ERROR_CODES, KofnError } from '@kofn/core';
import { connectChannel } from '../src/grpc/grpc-channel.js';
import { listenGrpc } from '../src/grpc/grpc-server.js';
import { CLIENT_STREAM, deferred, DUPLEX, handlers, pair, text, UNARY } from './harness.js';

const HELLO = Buffer.from('hello');

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

describe('gRPC channel', () => {
  it('sends a message in parts, and zeros for a part whose buffer was given away', async () => {
    await using ends = await pair(
      handlers({ duplex: stream => stream.receive(message => stream.send([message, HELLO])) }),
    );
    const got: Uint8Array[] = [];
    let wake = () => {};
    const call = ends.channel.duplex(DUPLEX, {
      onMessage: message => {
        got.push(message);
        wake();
      },
      onEnd: () => wake(),
    });
    const kept = Uint8Array.of(1, 2);
    const gone = Uint8Array.of(3, 4, 5);
    await call.send([kept, gone]);
    const lost = call.send([kept, gone, kept]); // not copied before this turn ends
    structuredClone(gone, { transfer: [gone.buffer] });
    await lost;
    while (got.length < 2) await new Promise<void>(resolve => (wake = resolve));
    assert.deepEqual(
      got.map(message => [...message]),
      [
        [1, 2, 3, 4, 5, ...HELLO],
        [1, 2, 0, 0, 0, 1, 2, ...HELLO],
      ],
    );
    call.end();
  });

  it('ends a stream with what its handler throws at a message, at once or later', async () => {
    const refused = new KofnError('INVALID_MODEL', 'not this');
    for (const onMessage of [
      () => {
        throw refused;
      },
      () => Promise.reject(refused),
    ]) {
      await using ends = await pair(handlers({ duplex: stream => stream.receive(onMessage) }));
      const ended = deferred<KofnError | undefined>();
      const call = ends.channel.duplex(DUPLEX, { onMessage: () => undefined, onEnd: ended.resolve });
      await call.send(HELLO);
      assert.equal((await ended.promise)?.code, 'INVALID_MODEL');
    }
  });

  it('carries unary calls, client streams and duplex streams', async () => {
    await using ends = await pair(
      handlers({
        unary: request => Promise.resolve(Buffer.concat([request, HELLO])),
        clientStream: async messages => {
          const parts: Uint8Array[] = [];
          for await (const message of messages) parts.push(message);
          return Buffer.concat(parts);
        },
        duplex: async stream => {
          await stream.receive(message => stream.send(Buffer.from(text(message).toUpperCase())));
        },
      }),
    );
    const { channel } = ends;
    await channel.ready({ deadlineMs: 10_000 });
    assert.equal(text(await channel.unary(UNARY, Buffer.from('a '))), 'a hello');
    const parts = async function* () {
      for (const part of ['x', 'y', 'z']) yield await Promise.resolve(Buffer.from(part));
    };
    assert.equal(text(await channel.clientStream(CLIENT_STREAM, parts())), 'xyz');
    const replies: string[] = [];
    const end = deferred<KofnError | undefined>();
    const call = channel.duplex(DUPLEX, {
      onMessage: message => replies.push(text(message)),
      onEnd: error => end.resolve(error),
    });
    await call.send(Buffer.from('a'));
    await call.send(Buffer.from('b'));
    call.end();
    assert.equal(await end.promise, undefined);
    assert.deepEqual(replies, ['A', 'B']);
    await assert.rejects(call.send(HELLO), { code: 'UNAVAILABLE' });
  });

  it('carries every error code and its message to the caller', async () => {
    await using ends = await pair(
      handlers({
        unary: request => {
          const code = ERROR_CODES.find(known => known === text(request))!;
          return Promise.reject(new KofnError(code, `because of ${code}: 100 % sure, ü`));
        },
      }),
    );
    for (const code of ERROR_CODES) {
      const message = `because of ${code}: 100 % sure, ü`;
      await assert.rejects(ends.channel.unary(UNARY, Buffer.from(code)), { name: 'KofnError', code, message });
    }
  });

  it('names who cannot be reached, and a method that is not there', async () => {
    await using ends = await pair(handlers({ unary: request => Promise.resolve(request) }));
    await assert.rejects(ends.channel.unary('/test.Service/Other', HELLO), { code: 'PROTOCOL' });
    const free = net.createServer().listen(0, '127.0.0.1');
    await once(free, 'listening');
    const address = `127.0.0.1:${(free.address() as AddressInfo).port}`;
    free.close();
    await once(free, 'close');
    await using channel = connectChannel(address);
    const unreachable = { code: 'UNAVAILABLE', message: new RegExp(address) };
    await assert.rejects(channel.ready({ deadlineMs: 10_000 }), unreachable);
    await assert.rejects(channel.unary(UNARY, HELLO), unreachable);
  });

  it('refuses a message over the limit at either end, and goes on', async () => {
    await using ends = await pair(
      handlers({
        unary: request => Promise.resolve(request),
        duplex: async stream => {
          await stream.receive(message => stream.send(message));
        },
      }),
      { maxMessageBytes: 4096, serverMaxMessageBytes: 1024 },
    );
    const { channel } = ends;
    await assert.rejects(channel.unary(UNARY, new Uint8Array(4097)), {
      code: 'RESOURCE_EXHAUSTED',
      message: /4097 bytes .*4096 bytes/,
    });
    await assert.rejects(channel.unary(UNARY, new Uint8Array(2000)), { code: 'RESOURCE_EXHAUSTED' });
    const reply = deferred<Uint8Array>();
    const call = channel.duplex(DUPLEX, { onMessage: reply.resolve, onEnd: reply.reject });
    await assert.rejects(call.send(new Uint8Array(4097)), { code: 'RESOURCE_EXHAUSTED' });
    await call.send(HELLO); // the stream lives on
    assert.deepEqual(Buffer.from(await reply.promise), HELLO);
    assert.equal((await channel.unary(UNARY, new Uint8Array(1000))).byteLength, 1000);
  });

  it('ends a call at its deadline or its signal, and tells the server', async () => {
    const seen: { started: () => void; gone: () => void }[] = [];
    await using ends = await pair(
      handlers({
        unary: async (request, { signal }) => {
          const call = seen.shift()!;
          call.started();
          await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve()));
          call.gone();
          return request;
        },
      }),
    );
    const { channel } = ends;
    await channel.ready({ deadlineMs: 10_000 });
    const next = () => {
      const [started, gone] = [deferred(), deferred()];
      seen.push({ started: started.resolve, gone: gone.resolve });
      return { started: started.promise, gone: gone.promise };
    };
    const late = next();
    await assert.rejects(channel.unary(UNARY, HELLO, { deadlineMs: 50 }), { code: 'DEADLINE_EXCEEDED' });
    await late.gone;
    const cancelled = next();
    const controller = new AbortController();
    const call = channel.unary(UNARY, HELLO, { signal: controller.signal });
    const outcome = assert.rejects(call, { code: 'CANCELLED', message: 'not any more' });
    await cancelled.started;
    controller.abort(new KofnError('CANCELLED', 'not any more'));
    await outcome;
    await cancelled.gone;
    const disposed = next();
    const pending = assert.rejects(channel.unary(UNARY, HELLO), { code: 'CANCELLED', message: /closed/ });
    await disposed.started;
    await channel[Symbol.asyncDispose]();
    await pending;
    await disposed.gone;
    await assert.rejects(channel.unary(UNARY, HELLO), { code: 'CANCELLED' });
  });

  it('does not pass off a source that failed as a whole transfer', async () => {
    const [arrived, outcome] = [deferred(), deferred<string>()];
    await using ends = await pair(
      handlers({
        clientStream: async messages => {
          try {
            for await (const _ of messages) arrived.resolve();
            outcome.resolve('complete');
          } catch (error) {
            outcome.resolve(KofnError.from(error).code);
            throw error;
          }
          return HELLO;
        },
      }),
    );
    const source = async function* () {
      yield HELLO;
      await arrived.promise;
      throw new KofnError('INVALID_MODEL', 'half of it was missing');
    };
    await assert.rejects(ends.channel.clientStream(CLIENT_STREAM, source()), { code: 'INVALID_MODEL' });
    assert.equal(await outcome.promise, 'CANCELLED');
  });

  it('stops reading its source when the other end has answered', async () => {
    await using ends = await pair(handlers({ clientStream: () => Promise.resolve(HELLO) }));
    const returned = deferred();
    const endless = async function* () {
      try {
        for (;;) yield await Promise.resolve(new Uint8Array(2 ** 20));
      } finally {
        returned.resolve();
      }
    };
    assert.deepEqual(Buffer.from(await ends.channel.clientStream(CLIENT_STREAM, endless())), HELLO);
    await returned.promise;
  });

  it('keeps no message of a stream that it has written', async () => {
    let read = 0;
    await using ends = await pair(
      handlers({
        clientStream: async messages => {
          for await (const _ of messages) read++;
          return HELLO;
        },
      }),
    );
    const sent: WeakRef<Uint8Array>[] = [];
    let kept = NaN;
    const source = async function* () {
      for (let i = 0; i < 50; i++) {
        const message = Buffer.alloc(1000);
        sent.push(new WeakRef(message));
        yield message;
      }
      await new Promise(resolve => setImmediate(resolve)); // a WeakRef holds what it was made of until the end of its job
      collectGarbage();
      kept = sent.filter(message => message.deref() !== undefined).length;
    };
    await ends.channel.clientStream(CLIENT_STREAM, source());
    assert.equal(read, 50);
    assert.ok(kept < 10, `${kept} of 50 are kept`);
  });

  it('tells when the connection breaks', async () => {
    const ends = await pair(handlers({ unary: request => Promise.resolve(request) }));
    await ends.channel.ready({ deadlineMs: 10_000 });
    const broken = deferred<KofnError>();
    ends.channel.onBroken(broken.resolve);
    const stop = ends.channel.onBroken(() => broken.reject(new Error('called after it was stopped')));
    stop();
    await ends.server.close(0);
    assert.equal((await broken.promise).code, 'UNAVAILABLE');
    await ends[Symbol.asyncDispose]();
  });

  it('says which port is taken, and what to do', async () => {
    await using ends = await pair(handlers({}));
    const { port, address } = ends.server;
    await assert.rejects(listenGrpc(handlers({}), { host: '127.0.0.1', port }), {
      code: 'ADDRESS_IN_USE',
      message: new RegExp(`${address} is taken.*choose another port`),
    });
    await assert.rejects(listenGrpc(handlers({}), { host: '192.0.2.1', port: 0 }), {
      code: 'INVALID_ARGUMENT',
      message: /192\.0\.2\.1/,
    });
  });

  it('ends its connection when it is closed, whatever the other end does', async () => {
    // An end that breaks the protocol: node reads no more of it, and waits for streams that will not end.
    const settings = Buffer.from('000000040000000000', 'hex');
    const tooLong = Buffer.from('400000000000000001', 'hex');
    const server = net.createServer(socket => {
      socket.on('error', () => undefined).write(settings);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const accepted = once(server, 'connection') as Promise<[net.Socket]>;
    const channel = connectChannel(`127.0.0.1:${(server.address() as AddressInfo).port}`);
    await channel.ready({ deadlineMs: 10_000 });
    const [socket] = await accepted;
    const end = deferred<KofnError | undefined>();
    const call = channel.duplex(DUPLEX, { onMessage: () => undefined, onEnd: error => end.resolve(error) });
    await call.send(HELLO);
    const refused = deferred<void>();
    socket.on('data', (bytes: Buffer) => {
      if (bytes[3] === 7) refused.resolve(); // a frame GOAWAY
    });
    socket.write(tooLong);
    await refused.promise;
    const closed = once(socket, 'close', { signal: AbortSignal.timeout(5_000) }); // keepalive takes three times as long
    await channel[Symbol.asyncDispose]();
    assert.equal((await end.promise)?.code, 'CANCELLED');
    await closed.finally(() => {
      socket.destroy();
      server.close();
    });
  });

  it('keeps no connection that was still being made when it was closed', async () => {
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const accepted = once(server, 'connection') as Promise<[net.Socket]>;
    const channel = connectChannel(`127.0.0.1:${(server.address() as AddressInfo).port}`);
    const ready = assert.rejects(channel.ready({ deadlineMs: 10_000 }));
    await channel[Symbol.asyncDispose](); // long before the operating system has connected
    const [socket] = await accepted;
    socket.on('error', () => undefined).resume();
    await once(socket, 'close', { signal: AbortSignal.timeout(5_000) }).finally(() => {
      socket.destroy();
      server.close();
    });
    await ready;
  });
});
