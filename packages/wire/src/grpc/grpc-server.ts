/**
 * The server's end of a channel over gRPC: handlers of bytes by method (channel.ts is the contract), with health and
 * reflection beside them.
 */
import type { Readable } from 'node:stream';
import { loadSync } from '@grpc/proto-loader';
import { Metadata, Server, ServerCredentials, ServerInterceptingCall, type UntypedHandleCall } from '@grpc/grpc-js';
import type * as grpc from '@grpc/grpc-js';
import { ReflectionService } from '@grpc/reflection';
import {
  abortable,
  abortReason,
  KofnError,
  openController,
  systemClock,
  throwIfAborted,
  type Clock,
  type Signal,
} from '@kofn/core';
import { HealthImplementation, protoPath as healthProto } from 'grpc-health-check';
import type { CallContext, MessageParts, MethodPath, ServerDuplex, ServiceHandlers } from '../protocol/channel.js';
import { withWholeDescriptors } from './descriptors.js';
import { widenServerWindow } from './flow-control.js';
import {
  asBuffer,
  asMessage,
  checkMessageSize,
  DEFAULT_MAX_MESSAGE_BYTES,
  keepalive,
  messageLimits,
} from './grpc-options.js';
import { protoDefinition } from '../protocol/protos.js';
import { toStatus } from './status.js';
import { unresolved } from './unresolved.js';

export interface ListenOptions {
  /** Interface to bind: a name or address. */
  readonly host: string;
  /** 0 takes a free port. */
  readonly port: number;
  /** Larger messages are refused with RESOURCE_EXHAUSTED, either way. Default 256 MB. */
  readonly maxMessageBytes?: number;
  /** More connections at once are refused. Default: as many as the system has. */
  readonly maxConnections?: number;
  /** In PEM: then TLS, and nothing else. */
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer } | undefined;
  /** Whether a call that has this `authorization` may be made. Not asked for health. Default: each may. */
  readonly authorize?: ((authorization: string | undefined) => boolean) | undefined;
  readonly clock?: Clock;
}

const HEALTH_EVERY_MS = 500;

export interface Listening {
  readonly host: string;
  readonly port: number;
  /** `host:port`. */
  readonly address: string;
  /** What grpc.health.v1 answers for the server as a whole and for each service. */
  setServing(serving: boolean): void;
  /** Refuses new calls, lets running ones end within `graceMs`, then ends them. */
  close(graceMs: number): Promise<void>;
}

/** Throws ADDRESS_IN_USE (the port is taken) or INVALID_ARGUMENT (the address cannot be bound). */
export async function listenGrpc(handlers: ServiceHandlers, options: ListenOptions): Promise<Listening> {
  const { host, port, maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES, clock = systemClock, tls, authorize } = options;
  const interceptors = authorize === undefined ? [] : [asksWho(authorize)];
  const server = new Server({ ...messageLimits(maxMessageBytes), ...keepalive, interceptors });
  widenServerWindow(server, { maxConnections: options.maxConnections });
  const services = addHandlers(server, handlers, maxMessageBytes);
  const health = new HealthImplementation(statuses(services, true));
  health.addToServer(server);
  const definition = withWholeDescriptors({ ...protoDefinition, ...loadSync(healthProto) });
  new ReflectionService(definition, { services: [...services, 'grpc.health.v1.Health'] }).addToServer(server);

  const literal = host.includes(':') ? `[${host}]` : host;
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${literal}:${port}`, credentialsOf(tls), (error, actual) => {
      if (error === null) return resolve(actual);
      server.forceShutdown();
      if (/EADDRINUSE/.test(error.message)) {
        const advice = 'another process listens there; stop it or choose another port (0 takes a free one)';
        return reject(new KofnError('ADDRESS_IN_USE', `${literal}:${port} is taken: ${advice}`, { cause: error }));
      }
      void unresolved(host).then(why => {
        const message = `cannot listen on ${literal}:${port}: ${why ?? error.message}`;
        reject(new KofnError('INVALID_ARGUMENT', message, { cause: error }));
      });
    });
  });
  return {
    host,
    port: bound,
    address: `${literal}:${bound}`,
    setServing(serving) {
      for (const [service, status] of Object.entries(statuses(services, serving))) health.setStatus(service, status);
    },
    async close(graceMs) {
      const timer = clock.setTimer(() => server.forceShutdown(), graceMs);
      // tryShutdown waits for idle keepalive connections too and has been seen to hang: the timer ends it.
      await new Promise<void>(resolve => server.tryShutdown(() => resolve()));
      timer.cancel();
      server.forceShutdown();
    },
  };
}

/** grpc.health.v1 says what `isReady` says, half a second later at most, until it is disposed. */
export function followHealth(listening: Listening, isReady: () => boolean, clock: Clock): AsyncDisposable {
  const follow = () => {
    listening.setServing(isReady());
    timer = clock.setTimer(follow, HEALTH_EVERY_MS, { background: true });
  };
  let timer = clock.setTimer(follow, HEALTH_EVERY_MS, { background: true });
  return { [Symbol.asyncDispose]: () => Promise.resolve(timer.cancel()) };
}

function credentialsOf(tls: ListenOptions['tls']): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure();
  return ServerCredentials.createSsl(null, [{ cert_chain: tls.cert, private_key: tls.key }]);
}

const HEALTH = '/grpc.health.v1.Health/';

/** Ends calls that may not be made before their messages are read. */
function asksWho(authorize: (authorization: string | undefined) => boolean): grpc.ServerInterceptor {
  return ({ path }, call) =>
    new ServerInterceptingCall(call, {
      start: next =>
        next({
          onReceiveMetadata(metadata, go) {
            const [given] = metadata.get('authorization');
            if (path.startsWith(HEALTH) || authorize(given?.toString())) return go(metadata);
            const what = 'this server asks for a token: give it as metadata, authorization: Bearer TOKEN';
            call.sendStatus(toStatus(new KofnError('UNAUTHENTICATED', what)));
          },
        }),
    });
}

function statuses(services: readonly string[], serving: boolean): Record<string, 'SERVING' | 'NOT_SERVING'> {
  return Object.fromEntries(['', ...services].map(name => [name, serving ? 'SERVING' : 'NOT_SERVING']));
}

/** Adds every handler under its own service; returns the services' names. */
function addHandlers(
  server: Server,
  { unary, clientStream, duplex }: ServiceHandlers,
  maxMessageBytes: number,
): string[] {
  const services = new Map<
    string,
    { definition: grpc.ServiceDefinition; handlers: Record<string, UntypedHandleCall> }
  >();
  const add = (path: MethodPath, requestStream: boolean, responseStream: boolean, handler: UntypedHandleCall) => {
    const [, service = '', method = ''] = path.split('/');
    const entry = services.get(service) ?? { definition: {}, handlers: {} };
    services.set(service, entry);
    const raw = { requestSerialize: identity, requestDeserialize: identity, responseSerialize: identity };
    entry.definition = {
      ...entry.definition,
      [method]: { path, requestStream, responseStream, ...raw, responseDeserialize: identity },
    };
    entry.handlers[method] = handler;
  };
  for (const [path, handler] of unary) {
    add(path, false, false, (call: grpc.ServerUnaryCall<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) => {
      settle(handler(call.request, contextOf(call)), done);
    });
  }
  for (const [path, handler] of clientStream) {
    add(path, true, false, (call: grpc.ServerReadableStream<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) => {
      const context = contextOf(call);
      settle(handler(messagesOf(call, context.signal), context), done);
    });
  }
  for (const [path, handler] of duplex) {
    add(path, true, true, (call: grpc.ServerDuplexStream<Buffer, Buffer>) => {
      const context = contextOf(call);
      const send = async (message: Uint8Array | MessageParts) => {
        checkMessageSize(message, maxMessageBytes, `to ${context.peer}`); // not by the transport: it would end the stream
        await abortable(new Promise<void>(resolve => call.write(asMessage(message), () => resolve())), context.signal);
      };
      const receive: ServerDuplex['receive'] = (onMessage, signal = context.signal) =>
        receiveFrom(call, onMessage, signal);
      handler({ ...context, receive, send }).then(
        () => call.end(),
        (error: unknown) => call.emit('error', toStatus(error)),
      );
    });
  }
  for (const { definition, handlers } of services.values()) server.addService(definition, handlers);
  return [...services.keys()];
}

function settle(reply: Promise<Uint8Array>, done: grpc.sendUnaryData<Buffer>): void {
  reply.then(
    bytes => done(null, asBuffer(bytes)),
    (error: unknown) => done(toStatus(error)),
  );
}

/** The signal aborts when the caller cancelled, is gone, or its deadline passed. */
function contextOf(call: {
  readonly cancelled: boolean;
  getPeer(): string;
  on(event: 'cancelled', listener: () => void): unknown;
}): CallContext {
  const controller = openController();
  const gone = () => controller.abort(new KofnError('CANCELLED', 'the caller cancelled the call or is gone'));
  call.on('cancelled', gone);
  if (call.cancelled) gone();
  return { signal: controller.signal, peer: call.getPeer() };
}

/** Ends when the caller half-closed; throws the signal's reason when it cancelled or is gone. */
async function* messagesOf(
  call: Readable & { sendMetadata(metadata: Metadata): void },
  signal: Signal,
): AsyncGenerator<Uint8Array> {
  // Left to itself, the iterator destroys a duplex when its readable side ends, and the status would never be sent.
  const iterator = call.iterator({ destroyOnReturn: false }) as AsyncIterableIterator<Buffer>;
  for (;;) {
    const next = await abortable(iterator.next(), signal);
    if (next.done === true) break;
    yield next.value;
  }
  await halfClosed(call, signal);
}

/** As `ServerDuplex.receive`: without an iterator, whose every message takes several promises. */
function receiveFrom(
  call: grpc.ServerDuplexStream<Buffer, Buffer>,
  onMessage: Parameters<ServerDuplex['receive']>[0],
  signal: Signal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const leave = () => {
      call.off('data', onData);
      call.off('end', onEnd);
      signal.removeEventListener('abort', onAbort);
    };
    const fail = (error: unknown) => {
      leave();
      reject(KofnError.from(error));
    };
    const onAbort = () => fail(abortReason(signal));
    const onEnd = () => {
      leave();
      halfClosed(call, signal).then(resolve, reject);
    };
    const onData = (message: Buffer) => {
      try {
        const taken = onMessage(message);
        if (taken === undefined) return;
        call.pause();
        taken.then(() => call.resume(), fail);
      } catch (error) {
        fail(error);
      }
    };
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    call.on('end', onEnd);
    call.on('data', onData);
  });
}

/** Returns when the caller has really half-closed; throws the signal's reason when it cancelled or is gone. */
async function halfClosed(call: { sendMetadata(metadata: Metadata): void }, signal: Signal): Promise<void> {
  // A reset stream ends like a half-closed one, and only later says that it was cancelled. Sending the headers makes
  // grpc-js look, and tell it in the next tick.
  call.sendMetadata(new Metadata());
  await new Promise(resolve => setImmediate(resolve));
  throwIfAborted(signal);
}

function identity(bytes: Buffer): Buffer {
  return bytes;
}
