/**
 * One call over a connection of the simulated network: what travels between its two ends, and the handler at the far one.
 *
 * Invariants
 * 1. The client's end hears of the call's end once: by an answer, a failure, or the break of the connection.
 * 2. After the client's end is over nothing more reaches it, and the handler's signal aborts when word of it has come.
 */
import { abortable, KofnError, openController, throwIfAborted, type Signal } from '@kofn/core';
import type { CallContext, MessageParts, MethodPath, ServerDuplex, ServiceHandlers } from '@kofn/wire';
import { corrupted, isCancel, truncated, whole } from './frames.js';
import type { Direction, Flow, Link } from './link.js';

/** A process at the other end, as a channel needs it. */
export interface Peer {
  readonly handlers: ServiceHandlers;
  /** It does nothing while it is paused, and nothing ever again once it is dead. */
  readonly clock: { whenAwake(work: () => void): void };
  /** It ended a stream in order, on which so many requests had no reply. */
  onUnanswered?(requests: number): void;
}

export type Event =
  | { readonly kind: 'message'; readonly bytes: Uint8Array }
  /** A message, and nothing after it. */
  | { readonly kind: 'reply'; readonly bytes: Uint8Array }
  | { readonly kind: 'done' }
  | { readonly kind: 'failed'; readonly error: KofnError };

export interface ClientEnd {
  receive(event: Event): void;
}

export class Connection {
  readonly peer: Peer;
  readonly calls = new Set<Call>();
  /** One for all calls: what one end sends arrives in that order, as on TCP. */
  readonly flow: Flow = { out: 0, back: 0 };
  isBroken = false;

  constructor(peer: Peer) {
    this.peer = peer;
  }
}

/** One call over one connection: its two ends and what travels between them. */
export class Call {
  readonly #link: Link;
  readonly #connection: Connection;
  readonly #client: ClientEnd;
  readonly #controller = openController();
  readonly #inbox: Uint8Array[] = [];
  readonly #change: { wake: () => void } = { wake: () => undefined };
  #isHalfClosed = false;
  #isOver = false;

  /** With `request`, that message and no other goes with it. */
  constructor(link: Link, connection: Connection, method: MethodPath, client: ClientEnd, request?: Uint8Array) {
    this.#link = link;
    this.#connection = connection;
    this.#client = client;
    connection.calls.add(this);
    this.#out(() => {
      if (request !== undefined) this.#inbox.push(request);
      this.#isHalfClosed = request !== undefined;
      this.#serve(method);
    });
  }

  /** The other end has it when `onDelivered` is called. */
  send(bytes: Uint8Array, onDelivered?: () => void, mayOvertake = false): void {
    this.#out(() => {
      this.#inbox.push(bytes);
      this.#change.wake();
      onDelivered?.();
    }, mayOvertake);
  }

  halfClose(): void {
    this.#out(() => {
      this.#isHalfClosed = true;
      this.#change.wake();
    });
  }

  /** The client's end is over; the other end learns of it. */
  cancel(): void {
    if (!this.#leave()) return;
    this.#out(() => this.#abort());
  }

  /** The connection broke: both ends learn of it by themselves. */
  break(error: KofnError): void {
    if (!this.#leave()) return;
    this.#connection.peer.clock.whenAwake(() => this.#abort());
    this.#client.receive({ kind: 'failed', error });
  }

  #leave(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    this.#connection.calls.delete(this);
    return true;
  }

  #abort(): void {
    this.#controller.abort(new KofnError('CANCELLED', 'the caller cancelled the call or is gone'));
  }

  #out(deliver: () => void, mayOvertake = false): void {
    const { peer } = this.#connection;
    this.#link.transmit('out', this.#connection.flow, () => peer.clock.whenAwake(deliver), mayOvertake);
  }

  #back(event: Event, mayOvertake = false): void {
    const arrive = () => {
      this.#link.heard();
      if (this.#isOver) return;
      if (event.kind !== 'message') this.#leave();
      this.#client.receive(event);
    };
    this.#link.transmit('back', this.#connection.flow, arrive, mayOvertake);
  }

  #serve(method: MethodPath): void {
    const { unary, clientStream, duplex } = this.#connection.peer.handlers;
    const context: CallContext = { signal: this.#controller.signal, peer: 'master' };
    this.#handle(method, context, { unary, clientStream, duplex }).then(
      reply => {
        this.#back(reply === undefined ? { kind: 'done' } : { kind: 'reply', bytes: reply });
      },
      (error: unknown) => {
        const { code, message } = KofnError.from(error);
        this.#back({ kind: 'failed', error: new KofnError(code, message) });
      },
    );
  }

  async #handle(method: MethodPath, context: CallContext, handlers: ServiceHandlers): Promise<Uint8Array | undefined> {
    const unary = handlers.unary.get(method);
    if (unary !== undefined) return unary(this.#inbox.shift()!, context);
    const messages = this.#messages(context.signal);
    const clientStream = handlers.clientStream.get(method);
    if (clientStream !== undefined) return clientStream(messages, context);
    const duplex = handlers.duplex.get(method);
    if (duplex === undefined) throw new KofnError('PROTOCOL', `there is no method ${method}`);
    let unanswered = 0;
    const send = (given: Uint8Array | MessageParts) => {
      const bytes = whole(given);
      throwIfAborted(context.signal);
      unanswered--;
      this.#spoiled('back', bytes, (frame, mayOvertake) => this.#back({ kind: 'message', bytes: frame }, mayOvertake));
      return Promise.resolve();
    };
    const counted = async function* () {
      for await (const message of messages) {
        if (!isCancel(message)) unanswered++;
        yield message;
      }
    };
    const receive: ServerDuplex['receive'] = (onMessage, signal = context.signal) => {
      const handOver = async () => {
        for await (const message of counted()) {
          if (signal.aborted) return;
          await onMessage(message);
        }
      };
      return abortable(handOver(), signal);
    };
    await duplex({ ...context, receive, send });
    if (unanswered > 0) this.#connection.peer.onUnanswered?.(unanswered);
    return undefined;
  }

  async *#messages(signal: Signal): AsyncGenerator<Uint8Array> {
    for (;;) {
      throwIfAborted(signal);
      const next = this.#inbox.shift();
      if (next !== undefined) yield next;
      else if (this.#isHalfClosed) return;
      else await abortable(new Promise<void>(resolve => (this.#change.wake = resolve)), signal);
    }
  }

  /** Sends a frame of an inference stream as the link's faults leave it: not at all, once or twice. */
  #spoiled(direction: Direction, bytes: Uint8Array, send: (frame: Uint8Array, mayOvertake: boolean) => void): string {
    const fate = this.#link.drawFate();
    if (fate === 'corrupt') send(corrupted(bytes, this.#link.rng), false);
    else if (fate === 'truncate') send(truncated(direction, bytes), false);
    else if (fate !== 'drop') send(bytes, fate === 'reorder');
    if (fate === 'duplicate') send(bytes, false);
    return fate;
  }

  /** As `send`, for a frame of an inference stream. Says what became of it. */
  sendFrame(bytes: Uint8Array): string {
    return this.#spoiled('out', bytes, (frame, mayOvertake) => this.send(frame, undefined, mayOvertake));
  }
}
