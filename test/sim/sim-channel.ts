/**
 * A channel (packages/wire/src/protocol/channel.ts is the contract) over a link of the simulated network, to the handlers of
 * whatever runs at the other end.
 *
 * Invariants
 * 1. Every call ends once: answered, aborted, broken with its connection (UNAVAILABLE), or closed with the channel
 *    (CANCELLED).
 * 2. A call belongs to one connection, and a connection to one process at the other end; the next call after a break makes
 *    another.
 * 3. What a caller gave up is told to the handler by its signal, one message later.
 */
import { abortable, abortReason, KofnError, openScope, throwIfAborted, type Clock } from '@kofn/core';
import {
  checkMessageSize,
  type CallOptions,
  type Channel,
  type DuplexCall,
  type DuplexEvents,
  type MessageParts,
  type MethodPath,
} from '@kofn/wire';
import { describeFrame, whole, type FrameInfo } from './frames.js';
import type { Direction, Flow, Link } from './link.js';
import { Call, Connection, type Event, type Peer } from './sim-call.js';

/** What a channel leads to: a process, or none (nobody listens). */
export interface Host {
  readonly link: Link;
  accept(): Peer | undefined;
}

export interface NetworkObserver {
  /** A frame of an inference stream was sent ('out', by the master) or came ('back', to the master). */
  onFrame(link: Link, stream: number, direction: Direction, info: FrameInfo, fate: string): void;
  /** The master's end of an inference stream is over. */
  onStreamEnd(link: Link, stream: number): void;
}

/** What a process that has died waits for. */
const never = () => new Promise<never>(() => undefined);

export class SimChannel implements Channel {
  readonly address: string;
  readonly #host: Host;
  readonly #clock: Clock;
  readonly #maxMessageBytes: number;
  readonly #observer: NetworkObserver | undefined;
  readonly #listeners = new Set<(error: KofnError) => void>();
  /** Ends each open call with the error given. */
  readonly #open = new Set<(error: KofnError) => void>();
  #connection: Connection | undefined;
  #connecting: Promise<Connection> | undefined;
  #streams = 0;
  #isClosed = false;
  #isDead = false;

  constructor(parts: {
    address: string;
    host: Host;
    clock: Clock;
    maxMessageBytes: number;
    observer?: NetworkObserver;
  }) {
    this.address = parts.address;
    this.#host = parts.host;
    this.#clock = parts.clock;
    this.#maxMessageBytes = parts.maxMessageBytes;
    this.#observer = parts.observer;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Calls that have not ended. */
  get openCalls(): number {
    return this.#open.size;
  }

  /** The connection breaks, as when the process at the other end is gone or keepalives stay away. */
  break(why: string): void {
    const connection = this.#connection;
    if (connection === undefined || connection.isBroken || this.#isClosed) return;
    connection.isBroken = true;
    this.#connection = undefined;
    const error = new KofnError('UNAVAILABLE', `the connection to ${this.address} broke: ${why}`);
    for (const call of [...connection.calls]) call.break(error);
    for (const listener of [...this.#listeners]) listener(error);
  }

  /** The process at this end has died: nothing of what it began reaches it any more, and the other end learns that it is over. */
  die(): void {
    this.#isDead = true;
    this.#isClosed = true;
    this.#listeners.clear();
    for (const call of [...(this.#connection?.calls ?? [])]) call.cancel();
  }

  /** The other end leaves in order: the connection breaks behind all that it has sent. */
  leave(why: string): void {
    const connection = this.#connection;
    if (connection === undefined) return;
    this.#host.link.transmit('back', connection.flow, () => connection === this.#connection && this.break(why));
  }

  async ready({ signal, deadlineMs }: CallOptions): Promise<void> {
    using scope = openScope(this.#clock, { parent: signal, deadlineMs, what: `connection to ${this.address}` });
    await abortable(this.#connect(), scope.signal);
  }

  onBroken(listener: (error: KofnError) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  unary(method: MethodPath, request: Uint8Array, options: CallOptions = {}): Promise<Uint8Array> {
    return this.#settle(method, options, { request });
  }

  clientStream(
    method: MethodPath,
    messages: AsyncIterable<Uint8Array | MessageParts>,
    options: CallOptions = {},
  ): Promise<Uint8Array> {
    const start = (call: Call, reject: (error: KofnError) => void, over: Promise<unknown>) => {
      const send = async () => {
        for await (const given of messages) {
          const message = whole(given);
          this.#checkSize(message);
          const written = new Promise<boolean>(done => call.send(message, () => done(true)));
          if (!(await Promise.race([written, over.then(() => false)]))) return;
        }
        call.halfClose();
      };
      send().catch((error: unknown) => reject(KofnError.from(error)));
    };
    return this.#settle(method, options, { start });
  }

  duplex(method: MethodPath, events: DuplexEvents): DuplexCall {
    const stream = ++this.#streams;
    const { link } = this.#host;
    let ended: KofnError | undefined;
    let call: Call | undefined;
    const early: ((call: Call) => void)[] = [];
    const finish = (error: KofnError | undefined) => {
      if (ended !== undefined) return;
      ended = error ?? new KofnError('UNAVAILABLE', `${this.address} ended the stream`);
      this.#open.delete(close);
      this.#observer?.onStreamEnd(link, stream);
      events.onEnd(error);
    };
    const close = (error: KofnError) => {
      finish(error);
      call?.cancel();
    };
    const onCall = (work: (call: Call) => void) => {
      if (call === undefined) early.push(work);
      else work(call);
    };
    this.#open.add(close);
    this.#whenConnected(connection => {
      if (ended !== undefined) return;
      call = new Call(link, connection, method, {
        receive: event => {
          if (ended !== undefined) return;
          if (event.kind === 'failed' || event.kind === 'done')
            return finish(event.kind === 'failed' ? event.error : undefined);
          this.#observer?.onFrame(link, stream, 'back', describeFrame('back', event.bytes), 'arrive');
          events.onMessage(event.bytes);
        },
      });
      for (const work of early.splice(0)) work(call);
    }, close);
    return {
      send: async given => {
        if (this.#isDead) await never();
        const message = whole(given);
        this.#checkSize(message);
        if (ended !== undefined) throw ended;
        onCall(open => {
          const fate = open.sendFrame(message);
          this.#observer?.onFrame(link, stream, 'out', describeFrame('out', message), fate);
        });
      },
      end: () => void (this.#isDead || onCall(open => open.halfClose())),
      cancel: () => close(new KofnError('CANCELLED', `the stream to ${this.address} was cancelled`)),
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#listeners.clear();
    for (const close of [...this.#open]) close(this.#closedError());
    return Promise.resolve();
  }

  /** Runs a call with one reply to its end, or until the signal or deadline ends it. */
  async #settle(
    method: MethodPath,
    { signal, deadlineMs }: CallOptions,
    {
      request,
      start,
    }: {
      request?: Uint8Array;
      start?: (call: Call, reject: (error: KofnError) => void, over: Promise<unknown>) => void;
    },
  ): Promise<Uint8Array> {
    if (this.#isDead) return never();
    using scope = openScope(this.#clock, { parent: signal, deadlineMs, what: `call to ${this.address}` });
    if (this.#isClosed) throw this.#closedError();
    throwIfAborted(scope.signal);
    if (request !== undefined) this.#checkSize(request);
    let call: Call | undefined;
    let resolve!: (reply: Uint8Array) => void;
    let reject!: (error: KofnError) => void;
    const outcome = new Promise<Uint8Array>((onReply, onError) => {
      resolve = onReply;
      reject = onError;
    });
    const over = outcome.catch(() => undefined);
    const receive = (event: Event) => {
      if (event.kind === 'reply') resolve(event.bytes);
      else if (event.kind === 'failed') reject(event.error);
      else reject(new KofnError('PROTOCOL', `${this.address} gave no reply`));
    };
    this.#whenConnected(connection => {
      if (scope.signal.aborted) return;
      call = new Call(this.#host.link, connection, method, { receive }, request);
      start?.(call, reject, over);
    }, reject);
    const onAbort = () => reject(abortReason(scope.signal));
    this.#open.add(reject);
    scope.signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await outcome;
    } finally {
      call?.cancel();
      this.#open.delete(reject);
      scope.signal.removeEventListener('abort', onAbort);
    }
  }

  #whenConnected(work: (connection: Connection) => void, fail: (error: KofnError) => void): void {
    if (this.#isDead) return;
    if (this.#isClosed) return fail(this.#closedError());
    if (this.#connection !== undefined) return work(this.#connection);
    this.#connect().then(work, (error: unknown) => fail(KofnError.from(error, 'UNAVAILABLE')));
  }

  #connect(): Promise<Connection> {
    if (this.#connection !== undefined) return Promise.resolve(this.#connection);
    return (this.#connecting ??= this.#shakeHands().finally(() => (this.#connecting = undefined)));
  }

  #shakeHands(): Promise<Connection> {
    const { link } = this.#host;
    const flow: Flow = { out: 0, back: 0 };
    return new Promise((resolve, reject) => {
      link.transmit('out', flow, () => {
        const peer = this.#host.accept();
        link.transmit('back', flow, () => {
          if (this.#isDead) return;
          if (this.#isClosed) return reject(this.#closedError());
          if (peer === undefined || this.#host.accept() !== peer) {
            return reject(new KofnError('UNAVAILABLE', `nobody answers at ${this.address}`));
          }
          resolve((this.#connection = new Connection(peer)));
        });
      });
    });
  }

  #checkSize(message: Uint8Array): void {
    checkMessageSize(message, this.#maxMessageBytes, `to ${this.address}`);
  }

  #closedError(): KofnError {
    return new KofnError('CANCELLED', `the channel to ${this.address} is closed`);
  }
}
