/**
 * A TCP link of stated delay and rate, emulated here: it listens on loopback and passes every connection on to `target`. Each
 * direction of it is a line of its own, which all its connections share: a piece of b bytes that comes at t leaves at
 * max(t, line free) + b / rate, and is there `delayMs` later. Run it in a process of its own (links.ts), for it keeps a core busy.
 *
 * Not emulated: loss, congestion control, jitter, headers. Its own error: a piece is passed on late, never early, by what two
 * copies through this process and waking it up take, which grows where it waits for a core; a piece is what one read gives, up to
 * 64 kB, so a message that ends inside of one waits for its end.
 *
 * Invariants
 * 1. No byte is lost, changed or overtaken.
 * 2. No more than HELD_BYTES, and the last read, wait in a direction of a connection: beyond, its source is not read. That is
 *    many times what travels on a line of 1 Gbit/s and 10 ms, so that the buffer is never what limits the rate.
 * 3. While something is due within FINE_MS nothing sleeps, for timers are no finer, unless the link `isCoarse`; else it sleeps until
 *    then.
 */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { systemClock } from '@kofn/core';

export interface LinkOptions {
  /** Port on loopback. */
  readonly target: number;
  /** Each way. */
  readonly delayMs: number;
  /** Each way; none: nothing but the delay. */
  readonly megabitsPerSecond?: number | undefined;
  /** Leaves the cores to others: nothing is spun, and everything up to 2 ms late. */
  readonly isCoarse?: boolean | undefined;
}

const HELD_BYTES = 8 * 2 ** 20;
/** A timer of n ms comes up to n + 1 ms later, so the rest is spun. */
const FINE_MS = 2;
const BITS_PER_MEGABIT_MS = 1000;

/** Milliseconds that `bytes` take to leave. */
export function serialisationMs(bytes: number, megabitsPerSecond = Infinity): number {
  return (8 * bytes) / (BITS_PER_MEGABIT_MS * megabitsPerSecond);
}

export class RateLink implements AsyncDisposable {
  readonly #options: LinkOptions;
  readonly #server: Server;
  readonly #pipes = new Set<Pipe>();

  static async open(options: LinkOptions): Promise<RateLink> {
    const link = new RateLink(options);
    link.#server.listen(0, '127.0.0.1');
    await once(link.#server, 'listening');
    return link;
  }

  private constructor(options: LinkOptions) {
    this.#options = options;
    const [there, back] = [new Line(options), new Line(options)];
    this.#server = createServer({ noDelay: true }, near => {
      const far = connect({ port: this.#options.target, host: '127.0.0.1', noDelay: true });
      for (const pipe of [new Pipe(near, far, there), new Pipe(far, near, back)]) {
        this.#pipes.add(pipe);
        pipe.source.on('close', () => this.#pipes.delete(pipe));
      }
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Whether nothing is on its way. */
  get isIdle(): boolean {
    return [...this.#pipes].every(({ heldBytes }) => heldBytes === 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { source } of this.#pipes) source.destroy();
    await new Promise(resolve => this.#server.close(resolve));
  }
}

/** One direction: when its last piece has left. */
class Line {
  readonly #options: LinkOptions;
  #freeAt = 0;

  constructor(options: LinkOptions) {
    this.#options = options;
  }

  get isCoarse(): boolean {
    return this.#options.isCoarse ?? false;
  }

  /** Takes a piece; returns when it is at the other end. */
  take(bytes: number): number {
    const { delayMs, megabitsPerSecond } = this.#options;
    this.#freeAt = Math.max(systemClock.now(), this.#freeAt) + serialisationMs(bytes, megabitsPerSecond);
    return this.#freeAt + delayMs;
  }
}

/** One direction of one connection. */
class Pipe {
  readonly source: Socket;
  heldBytes = 0;
  readonly #sink: Socket;
  readonly #line: Line;
  readonly #held: { readonly bytes: Buffer; readonly dueAt: number }[] = [];
  #ended = false;
  #isFull = false;
  #isWaiting = false;

  constructor(source: Socket, sink: Socket, line: Line) {
    this.source = source;
    this.#sink = sink;
    this.#line = line;
    source.on('data', (bytes: Buffer) => this.#hold(bytes));
    source.on('end', () => {
      this.#ended = true;
      this.#pump();
    });
    source.on('error', () => sink.destroy());
    source.on('close', () => {
      if (!this.#ended) sink.destroy();
    });
    sink.on('drain', () => {
      this.#isFull = false;
      this.#pump();
    });
  }

  #hold(bytes: Buffer): void {
    this.#held.push({ bytes, dueAt: this.#line.take(bytes.length) });
    this.heldBytes += bytes.length;
    if (this.heldBytes > HELD_BYTES) this.source.pause();
    this.#pump();
  }

  #pump(): void {
    if (this.#isWaiting || this.#sink.destroyed) return;
    while (this.#held.length > 0 && !this.#isFull) {
      const [{ bytes, dueAt }] = this.#held as [{ bytes: Buffer; dueAt: number }];
      const dueIn = dueAt - systemClock.now();
      if (dueIn > 0) return this.#wait(dueIn);
      this.#held.shift();
      this.heldBytes -= bytes.length;
      if (this.heldBytes <= HELD_BYTES) this.source.resume();
      this.#isFull = !this.#sink.write(bytes);
    }
    if (this.#held.length === 0 && this.#ended) this.#sink.end();
  }

  #wait(ms: number): void {
    this.#isWaiting = true;
    const on = () => {
      this.#isWaiting = false;
      this.#pump();
    };
    const spunMs = this.#line.isCoarse ? 0 : FINE_MS;
    if (ms > spunMs) systemClock.setTimer(on, ms - spunMs);
    else setImmediate(on);
  }
}
