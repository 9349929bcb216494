/**
 * The contract of a channel: bytes between two ends, in messages, by method. gRPC is one implementation
 * (grpc-channel.ts for the client's end, grpc-server.ts for the server's), the simulator's in-memory link another; the
 * protocols above it (infer-stream.ts, worker-client.ts, and the worker's handlers) are the same for both.
 *
 * Invariants
 * 1. A message is delivered whole or not at all, in order on one stream, and is not looked into here.
 * 2. Every failure is a KofnError: UNAVAILABLE (no link), RESOURCE_EXHAUSTED (message over the limit),
 *    DEADLINE_EXCEEDED, CANCELLED, or the code that the other end's handler threw.
 * 3. After `[Symbol.asyncDispose]` nothing is pending: every open call has ended with CANCELLED.
 */
import type { KofnError, Signal } from '@kofn/core';

/** Full gRPC path: `/package.Service/Method`. */
export type MethodPath = `/${string}/${string}`;

/** One message, in parts that follow each other: many messages may share a part without a copy for each. */
export type MessageParts = readonly Uint8Array[];

export interface CallOptions {
  readonly signal?: Signal | undefined;
  readonly deadlineMs?: number | undefined;
}

/** The client's end of a bidirectional stream. */
export interface DuplexCall {
  /** Hands one message to the transport; resolves once it is written out, rejects when the stream has ended. */
  send(message: Uint8Array | MessageParts): Promise<void>;
  /** Half-closes: no more messages from this end. */
  end(): void;
  /** Ends the stream now, in both directions. */
  cancel(): void;
}

export interface DuplexEvents {
  onMessage(message: Uint8Array): void;
  /** Called once, last: undefined after a clean end, else why. */
  onEnd(error: KofnError | undefined): void;
}

export interface Channel extends AsyncDisposable {
  /** `host:port` of the other end. */
  readonly address: string;
  /** Resolves when a connection stands; rejects with UNAVAILABLE when it cannot be made within `deadlineMs`. */
  ready(options: CallOptions): Promise<void>;
  /** Calls back when the connection breaks (each time); returns the function that stops it. */
  onBroken(listener: (error: KofnError) => void): () => void;
  unary(method: MethodPath, request: Uint8Array, options?: CallOptions): Promise<Uint8Array>;
  /**
   * Sends `messages` as the transport takes them (backpressure), then waits for the single reply. A message may change once the next is
   * asked for.
   */
  clientStream(
    method: MethodPath,
    messages: AsyncIterable<Uint8Array | MessageParts>,
    options?: CallOptions,
  ): Promise<Uint8Array>;
  duplex(method: MethodPath, events: DuplexEvents): DuplexCall;
}

/** What a handler knows of its call. The signal aborts when the caller cancelled, its deadline passed, or it is gone. */
export interface CallContext {
  readonly signal: Signal;
  readonly peer: string;
}

/** The server's end of a bidirectional stream. */
export interface ServerDuplex extends CallContext {
  /**
   * Hands over every message, in order; the next one comes when the promise that `onMessage` may have returned has resolved. Resolves
   * when the caller has half-closed; rejects with the reason of `signal` (the call's own when not given), or what `onMessage` throws.
   */
  receive(onMessage: (message: Uint8Array) => Promise<void> | undefined, signal?: Signal): Promise<void>;
  /** Resolves when the transport can take more. */
  send(message: Uint8Array | MessageParts): Promise<void>;
}

/** A server's side of a protocol: one handler a method. A KofnError that a handler throws reaches the caller as such. */
export interface ServiceHandlers {
  readonly unary: ReadonlyMap<MethodPath, (request: Uint8Array, context: CallContext) => Promise<Uint8Array>>;
  readonly clientStream: ReadonlyMap<
    MethodPath,
    (messages: AsyncIterable<Uint8Array>, context: CallContext) => Promise<Uint8Array>
  >;
  /** Returns when the stream is done; the transport then ends it. */
  readonly duplex: ReadonlyMap<MethodPath, (stream: ServerDuplex) => Promise<void>>;
}
