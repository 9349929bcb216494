/**
 * A TCP link that can be disturbed: it listens on loopback, passes every connection on to `target`, and `mode` says how.
 *
 * Invariants
 * 1. In no mode but `corrupt` and `reset` is a byte lost, changed or overtaken: what is held back goes on when the mode ends.
 * 2. It holds no more than MAX_HELD bytes a direction; beyond that its source is not read, as a full socket would not be.
 * 3. `close` ends every connection and timer of it.
 */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { seededRng } from '@kofn/core';

export type LinkMode =
  | { readonly kind: 'forward' }
  /** Nothing passes and nothing breaks. */
  | { readonly kind: 'hole' }
  /** Connections are reset, those that come too. */
  | { readonly kind: 'reset' }
  /**
   * Flips one bit, once a connection: in the length in the next HTTP/2 frame header on the way back, which the receiver must
   * notice; or `inPayload`, in any byte of the next DATA frames there or back, which only a checksum above TCP's can notice.
   */
  | { readonly kind: 'corrupt'; readonly seed: number; readonly inPayload: boolean }
  | { readonly kind: 'drip'; readonly bytes: number; readonly everyMs: number }
  | { readonly kind: 'delay'; readonly ms: number };

const MAX_HELD = 256 * 1024;
const FRAME_HEADER = 9;
const FRAME_TYPE = 3;
const DATA_FRAME = 0;
/** What a client sends before its first frame (RFC 9113, 3.4). */
const PREFACE = 24;

export class Link implements AsyncDisposable {
  /** Port of what is behind it, for connections that come from now on. */
  target: number;
  readonly #server: Server;
  readonly #pipes = new Set<Pipe>();
  #mode: LinkMode = { kind: 'forward' };

  static async open(target: number): Promise<Link> {
    const link = new Link(target);
    link.#server.listen(0, '127.0.0.1');
    await once(link.#server, 'listening');
    return link;
  }

  private constructor(target: number) {
    this.target = target;
    this.#server = createServer(socket => this.#join(socket));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  set mode(mode: LinkMode) {
    this.#mode = mode;
    for (const pipe of [...this.#pipes]) pipe.take(mode);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.mode = { kind: 'reset' };
    await new Promise(resolve => this.#server.close(resolve));
  }

  #join(near: Socket): void {
    const far = connect(this.target, '127.0.0.1');
    for (const [source, sink, isReply] of [
      [near, far, false],
      [far, near, true],
    ] as const) {
      const pipe = new Pipe(source, sink, isReply);
      this.#pipes.add(pipe);
      source.on('close', () => this.#pipes.delete(pipe));
      pipe.take(this.#mode);
    }
  }
}

/** One direction of one connection. */
class Pipe {
  readonly #source: Socket;
  readonly #sink: Socket;
  readonly #isReply: boolean;
  readonly #frames: FrameCursor;
  readonly #held: { bytes: Buffer; since: number }[] = [];
  #heldBytes = 0;
  #ended = false;
  #full = false;
  #mode: LinkMode = { kind: 'forward' };
  #timer: NodeJS.Timeout | undefined;

  constructor(source: Socket, sink: Socket, isReply: boolean) {
    this.#source = source;
    this.#sink = sink;
    this.#isReply = isReply;
    this.#frames = new FrameCursor(isReply ? 0 : PREFACE);
    source.setNoDelay(true);
    source.on('data', (bytes: Buffer) => this.#hold(bytes));
    source.on('end', () => {
      this.#ended = true;
      this.#pump();
    });
    source.on('error', () => sink.resetAndDestroy());
    source.on('close', () => {
      if (!this.#ended) sink.destroy();
    });
    sink.on('close', () => clearTimeout(this.#timer));
    sink.on('drain', () => {
      this.#full = false;
      this.#pump();
    });
  }

  take(mode: LinkMode): void {
    this.#mode = mode;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (mode.kind === 'reset') this.#source.resetAndDestroy();
    else this.#pump();
  }

  #hold(bytes: Buffer): void {
    this.#held.push({ bytes, since: performance.now() });
    this.#heldBytes += bytes.length;
    if (this.#heldBytes > MAX_HELD) this.#source.pause();
    this.#pump();
  }

  #pump(): void {
    if (this.#mode.kind === 'hole' || this.#timer !== undefined || this.#sink.destroyed) return;
    while (this.#held.length > 0 && !this.#full && this.#timer === undefined) this.#passOne();
    if (this.#held.length === 0 && this.#ended) this.#sink.end();
  }

  /** Passes the first of what is held, or as much of it as the mode lets, or sets the timer for it. */
  #passOne(): void {
    const [first] = this.#held;
    const mode = this.#mode;
    const dueIn = mode.kind === 'delay' ? first!.since + mode.ms - performance.now() : 0;
    if (dueIn > 0) return this.#later(dueIn);
    const size = mode.kind === 'drip' ? Math.min(mode.bytes, first!.bytes.length) : first!.bytes.length;
    const bytes = first!.bytes.subarray(0, size);
    if (size === first!.bytes.length) this.#held.shift();
    else first!.bytes = first!.bytes.subarray(size);
    this.#heldBytes -= size;
    if (this.#heldBytes <= MAX_HELD) this.#source.resume();
    this.#full = !this.#sink.write(this.#disturbed(bytes));
    if (mode.kind === 'drip') this.#later(mode.everyMs);
  }

  #later(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#pump();
    }, ms);
  }

  #disturbed(bytes: Buffer): Buffer {
    const frames = this.#frames.pass(bytes);
    if (this.#mode.kind !== 'corrupt') return bytes;
    const flip = this.#mode.inPayload
      ? this.#inPayload(frames, this.#mode.seed)
      : this.#inHeader(frames, this.#mode.seed);
    if (flip === undefined) return bytes;
    const copy = Buffer.from(bytes);
    copy[flip.at]! ^= flip.bit;
    this.#mode = { kind: 'forward' };
    return copy;
  }

  #inHeader({ header }: Frames, seed: number): Flip | undefined {
    if (!this.#isReply || header === undefined) return undefined;
    return { at: header, bit: 0x40 << seededRng(seed).integer(2) };
  }

  #inPayload({ data }: Frames, seed: number): Flip | undefined {
    const rng = seededRng(seed);
    const isMine = this.#isReply === (rng.integer(2) === 0);
    const size = data.reduce((sum, { length }) => sum + length, 0);
    if (!isMine || size === 0) return undefined;
    let offset = rng.integer(size);
    for (const { at, length } of data) {
      if (offset < length) return { at: at + offset, bit: 1 << rng.integer(8) };
      offset -= length;
    }
    return undefined;
  }
}

interface Flip {
  readonly at: number;
  readonly bit: number;
}

/** What of HTTP/2's frames is in some bytes. */
interface Frames {
  /** Where the first frame begins, if one does. */
  readonly header: number | undefined;
  /** Payloads of DATA frames. */
  readonly data: readonly { readonly at: number; readonly length: number }[];
}

/** Follows the frames of HTTP/2 (RFC 9113, 4.1: length in 3 bytes, type, 5 more, payload) behind `preface` other bytes. */
class FrameCursor {
  readonly #header: number[] = [];
  #payloadLeft: number;
  #isData = false;

  constructor(preface: number) {
    this.#payloadLeft = preface;
  }

  pass(bytes: Buffer): Frames {
    let header: number | undefined;
    const data: { at: number; length: number }[] = [];
    let at = 0;
    while (at < bytes.length) {
      const length = Math.min(this.#payloadLeft, bytes.length - at);
      if (this.#isData && length > 0) data.push({ at, length });
      this.#payloadLeft -= length;
      at += length;
      if (at === bytes.length) break;
      if (this.#header.length === 0) header ??= at;
      this.#header.push(bytes[at++]!);
      if (this.#header.length < FRAME_HEADER) continue;
      const full = Buffer.from(this.#header.splice(0));
      this.#payloadLeft = full.readUIntBE(0, 3);
      this.#isData = full[FRAME_TYPE] === DATA_FRAME;
    }
    return { header, data };
  }
}
