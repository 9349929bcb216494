/**
 * A TCP link to one station: it listens on loopback and passes every connection on to its target. Its *mode* says what is done to it
 * (mode.ts), its *shape* what each frame takes (shape.ts); a frame that is late holds up those behind it on its connection, as in TCP.
 *
 * Parts: pipe.ts (a direction of a connection), way.ts (a direction of the station: order, draws, line), air.ts (what stations share),
 * draws.ts, trace.ts, corrupt.ts; links.ts runs it in a process of its own (child.ts), with a finer clock (fine-clock.ts).
 *
 * Its own error: nothing is early, and nothing is late but by its clock (Node's timers 1 ms, the finer ones 0.1 ms; more on a machine
 * without a free core) and two copies. That does not add up, as times are reckoned from times that were due. It never spins. Not
 * emulated: headers, congestion control, and loss other than as the time that TCP takes to make it good.
 *
 * Invariants
 * 1. In no mode but `corrupt` and `reset`, and in no shape, is a byte lost, changed or overtaken: what is held back goes on when the
 *    mode ends. A connection's end comes behind its bytes; a reset by a peer cuts them off, but does not pass a hole or stall either.
 * 2. It holds no more than 256 KiB a direction of a connection, beside what its shape has in flight, and the last read; beyond that its
 *    source is not read, as a full socket would not be.
 * 3. Disposed, every connection and timer of it has ended.
 */
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { systemClock, type Clock } from '@kofn/core';
import type { ListenAddress } from '@kofn/wire';
import { Airs } from './air.js';
import type { LastingMode, LinkMode } from './mode.js';
import { Pipe } from './pipe.js';
import { checkShape, type LinkShape } from './shape.js';
import { parseTarget, type LinkTarget } from './target.js';
import { Way } from './way.js';

export interface LinkOptions {
  readonly shape?: LinkShape | undefined;
  /** Of all draws of its shape. Default 1. */
  readonly seed?: number | undefined;
  /** Which one it is, of those with that seed. Default 0. */
  readonly station?: number | undefined;
  /** Of the links that share a shape's air. Default: of this one alone. */
  readonly airs?: Airs | undefined;
  readonly clock?: Clock | undefined;
}

export interface LinkCounters {
  /** Of what was sent, which takes its time on the line or in the air whether it arrives or not. */
  readonly bytesThere: number;
  readonly bytesBack: number;
  readonly framesThere: number;
  readonly framesBack: number;
  /** Drawn by the shape, in both directions; the modes' are not counted. */
  readonly stalls: number;
  readonly losses: number;
}

export class Link implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #airs: Airs;
  readonly #server: Server;
  readonly #ways: { readonly there: Way; readonly back: Way };
  readonly #pipes = new Set<Pipe>();
  #target: ListenAddress;
  #mode: LastingMode = { kind: 'forward' };

  /** Throws INVALID_ARGUMENT (target, shape or seed). */
  static async open(target: LinkTarget, options: LinkOptions = {}): Promise<Link> {
    const link = new Link(target, options);
    link.#server.listen(0, '127.0.0.1');
    await once(link.#server, 'listening');
    return link;
  }

  private constructor(target: LinkTarget, { clock = systemClock, airs, station = 0, ...options }: LinkOptions) {
    this.#target = parseTarget(target);
    this.#clock = clock;
    this.#airs = airs ?? new Airs(clock);
    this.#ways = {
      there: new Way(clock, this.#airs, station, 'there'),
      back: new Way(clock, this.#airs, station, 'back'),
    };
    this.shape(options.shape ?? {}, options.seed);
    this.#server = createServer({ noDelay: true, allowHalfOpen: true }, socket => this.#join(socket));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** What is behind it, for connections that come from now on. */
  set target(target: LinkTarget) {
    this.#target = parseTarget(target);
  }

  set mode(mode: LinkMode) {
    if (mode.kind === 'stall') this.#stall(mode);
    else this.#enter(mode);
  }

  /** For all that has not been sent; the draws begin anew. Throws INVALID_ARGUMENT. */
  shape(shape: LinkShape, seed = 1): void {
    checkShape(shape);
    for (const way of this.#bothWays) way.shape(shape, seed, this.#airs);
    for (const pipe of [...this.#pipes]) pipe.look();
  }

  get counters(): LinkCounters {
    const [there, back] = [this.#ways.there.counters, this.#ways.back.counters];
    return {
      bytesThere: there.bytes,
      bytesBack: back.bytes,
      framesThere: there.frames,
      framesBack: back.frames,
      stalls: there.stalls + back.stalls,
      losses: there.losses + back.losses,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.mode = { kind: 'reset' };
    await new Promise(resolve => this.#server.close(resolve));
  }

  get #bothWays(): readonly Way[] {
    return [this.#ways.there, this.#ways.back];
  }

  #enter(mode: LastingMode): void {
    this.#mode = mode;
    if (mode.kind === 'forward') for (const way of this.#bothWays) way.stalledUntil = -Infinity;
    for (const pipe of [...this.#pipes]) pipe.take(mode);
  }

  #stall({ ms, direction }: LinkMode & { readonly kind: 'stall' }): void {
    const until = this.#clock.now() + ms;
    for (const way of this.#bothWays) {
      if ((direction ?? way.direction) === way.direction) way.stalledUntil = Math.max(way.stalledUntil, until);
    }
    for (const pipe of [...this.#pipes]) pipe.look();
  }

  #join(near: Socket): void {
    const far = connect({ ...this.#target, noDelay: true, allowHalfOpen: true });
    const pipes = [
      new Pipe(near, far, this.#ways.there, this.#clock),
      new Pipe(far, near, this.#ways.back, this.#clock),
    ];
    const tidy = () => pipes.forEach(pipe => pipe.isOver && this.#pipes.delete(pipe));
    near.on('close', tidy);
    far.on('close', tidy);
    for (const pipe of pipes) {
      this.#pipes.add(pipe);
      pipe.take(this.#mode);
    }
  }
}
