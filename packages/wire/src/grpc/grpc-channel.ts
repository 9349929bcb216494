/** The client's end of a channel over gRPC (channel.ts is the contract, grpc-server.ts the other end). */
import { Client, connectivityState, Metadata, type ClientDuplexStream, type ServiceError } from '@grpc/grpc-js';
import { abortable, abortReason, KofnError, openScope, systemClock, throwIfAborted, type Clock } from '@kofn/core';
import { parseServer } from '../protocol/address.js';
import type { CallOptions, Channel, DuplexCall, DuplexEvents, MessageParts, MethodPath } from '../protocol/channel.js';
import { clientSockets, type ClientSockets } from './client-sockets.js';
import { clientWindow } from './flow-control.js';
import {
  asBuffer,
  asMessage,
  checkMessageSize,
  DEFAULT_MAX_MESSAGE_BYTES,
  keepalive,
  messageLimits,
} from './grpc-options.js';
import { fromStatus } from './status.js';
import { unresolved } from './unresolved.js';

const READY = connectivityState.READY;

/** A channel to `address` (host:port), without encryption. It connects when it is first used. */
export function connectChannel(address: string, options: { maxMessageBytes?: number; clock?: Clock } = {}): Channel {
  return new GrpcChannel(address, options.maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES, options.clock ?? systemClock);
}

class GrpcChannel implements Channel {
  readonly address: string;
  readonly #clock: Clock;
  readonly #client: Client;
  readonly #sockets: ClientSockets;
  readonly #maxMessageBytes: number;
  /** Ends each open call with the error given. */
  readonly #open = new Set<(error: KofnError) => void>();
  readonly #brokenListeners = new Set<(error: KofnError) => void>();
  #isWatching = false;
  #closed = false;

  constructor(address: string, maxMessageBytes: number, clock: Clock) {
    this.address = address;
    this.#clock = clock;
    this.#maxMessageBytes = maxMessageBytes;
    this.#sockets = clientSockets();
    this.#client = new Client(address, this.#sockets.credentials, {
      ...clientWindow,
      ...messageLimits(maxMessageBytes),
      ...keepalive,
      'grpc.enable_retries': 0,
      // Workers are named directly: neither a proxy meant for the web nor a DNS lookup of a service configuration.
      'grpc.enable_http_proxy': 0,
      'grpc.service_config_disable_resolution': 1,
      // An idle link is not a broken one.
      'grpc.client_idle_timeout_ms': 2 ** 31 - 1,
      // Each channel has a connection of its own: one worker's stall is not another's.
      'grpc.use_local_subchannel_pool': 1,
    });
  }

  async ready({ signal, deadlineMs }: CallOptions): Promise<void> {
    using scope = openScope(this.#clock, { parent: signal, deadlineMs, what: `connection to ${this.address}` });
    const channel = this.#client.getChannel();
    for (;;) {
      if (this.#closed) throw this.#closedError();
      const state = channel.getConnectivityState(true);
      if (state === READY) break;
      if (state === connectivityState.TRANSIENT_FAILURE || state === connectivityState.SHUTDOWN) {
        throw new KofnError('UNAVAILABLE', await abortable(whyNobody(this.address), scope.signal));
      }
      const changed = new Promise<void>(resolve => channel.watchConnectivityState(state, Infinity, () => resolve()));
      await abortable(changed, scope.signal);
    }
    this.#watch();
  }

  onBroken(listener: (error: KofnError) => void): () => void {
    this.#brokenListeners.add(listener);
    return () => this.#brokenListeners.delete(listener);
  }

  unary(method: MethodPath, request: Uint8Array, options: CallOptions = {}): Promise<Uint8Array> {
    return this.#settle(options, 'call', (resolve, reject) => {
      this.#checkSize(request);
      return this.#client.makeUnaryRequest(
        method,
        identity,
        identity,
        asBuffer(request),
        new Metadata(),
        (error, reply) => (error === null ? resolve(reply!) : reject(this.#failure(error))),
      );
    });
  }

  clientStream(
    method: MethodPath,
    messages: AsyncIterable<Uint8Array | MessageParts>,
    options: CallOptions = {},
  ): Promise<Uint8Array> {
    return this.#settle(options, 'transfer', (resolve, reject, over) => {
      const call = this.#client.makeClientStreamRequest(method, identity, identity, new Metadata(), (error, reply) =>
        error === null ? resolve(reply!) : reject(this.#failure(error)),
      );
      // One for all messages: made beside each, it would keep that message until the call is over.
      const unwanted = over.then(() => false);
      const send = async () => {
        for await (const message of messages) {
          this.#checkSize(message);
          const written = new Promise<boolean>(done => call.write(asMessage(message), () => done(true)));
          // Answered before the end, refused or cancelled: the rest is not wanted.
          if (!(await Promise.race([written, unwanted]))) return;
        }
        call.end();
      };
      // A source that fails must not look like a short but complete transfer.
      send().catch((error: unknown) => {
        reject(KofnError.from(error));
        call.cancel();
      });
      return call;
    });
  }

  duplex(method: MethodPath, events: DuplexEvents): DuplexCall {
    const call: ClientDuplexStream<Buffer, Buffer> = this.#client.makeBidiStreamRequest(
      method,
      identity,
      identity,
      new Metadata(),
    );
    let ended: KofnError | undefined;
    const finish = (error: KofnError | undefined) => {
      if (ended !== undefined) return;
      ended = error ?? new KofnError('UNAVAILABLE', `${this.address} ended the stream`);
      this.#open.delete(close);
      events.onEnd(error);
    };
    const close = (error: KofnError) => {
      finish(error);
      call.cancel();
    };
    this.#open.add(close);
    call.on('data', (message: Buffer) => {
      if (ended === undefined) events.onMessage(message);
    });
    call.on('error', (error: ServiceError) => finish(this.#failure(error)));
    call.on('end', () => finish(undefined));
    return {
      send: message =>
        new Promise<void>((resolve, reject) => {
          this.#checkSize(message);
          if (ended !== undefined) return reject(ended);
          call.write(asMessage(message), (error?: Error | null) => {
            if (error || ended !== undefined) reject(ended ?? KofnError.from(error, 'UNAVAILABLE', this.address));
            else resolve();
          });
        }),
      end: () => call.end(),
      cancel: () => call.cancel(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#brokenListeners.clear();
    for (const close of [...this.#open]) close(this.#closedError());
    this.#client.close();
    this.#sockets.destroy();
    return Promise.resolve();
  }

  /** Runs a call with one reply to its end, or until the signal or deadline ends it. */
  async #settle(
    { signal, deadlineMs }: CallOptions,
    what: string,
    start: (
      resolve: (reply: Uint8Array) => void,
      reject: (error: KofnError) => void,
      over: Promise<unknown>,
    ) => { cancel(): void },
  ): Promise<Uint8Array> {
    using scope = openScope(this.#clock, { parent: signal, deadlineMs, what: `${what} to ${this.address}` });
    if (this.#closed) throw this.#closedError();
    throwIfAborted(scope.signal);
    let resolve!: (reply: Uint8Array) => void;
    let reject!: (error: KofnError) => void;
    const outcome = new Promise<Uint8Array>((onReply, onError) => {
      resolve = onReply;
      reject = onError;
    });
    const over = outcome.catch(() => undefined);
    const call = start(resolve, reject, over);
    const close = (error: KofnError) => {
      reject(error);
      call.cancel();
    };
    const onAbort = () => close(abortReason(scope.signal));
    this.#open.add(close);
    scope.signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await outcome;
    } finally {
      this.#open.delete(close);
      scope.signal.removeEventListener('abort', onAbort);
    }
  }

  /** Checked before the transport does, which would end the whole stream for one message. */
  #checkSize(message: Uint8Array | MessageParts): void {
    checkMessageSize(message, this.#maxMessageBytes, `to ${this.address}`);
  }

  #failure(error: ServiceError): KofnError {
    return this.#closed ? this.#closedError() : fromStatus(error, this.address);
  }

  #closedError(): KofnError {
    return new KofnError('CANCELLED', `the channel to ${this.address} is closed`);
  }

  /** Tells the listeners each time that the connection stops being READY. */
  #watch(): void {
    if (this.#isWatching) return;
    this.#isWatching = true;
    const channel = this.#client.getChannel();
    const wait = (state: connectivityState) => {
      channel.watchConnectivityState(state, Infinity, () => {
        if (this.#closed) return;
        if (state === READY) {
          const error = new KofnError('UNAVAILABLE', `the connection to ${this.address} broke`);
          for (const listener of [...this.#brokenListeners]) listener(error);
        }
        wait(channel.getConnectivityState(false));
      });
    };
    wait(READY);
  }
}

async function whyNobody(address: string): Promise<string> {
  const { host } = parseServer('address', address);
  return (await unresolved(host)) ?? `nobody answers at ${address}`;
}

function identity(bytes: Buffer): Buffer {
  return bytes;
}
