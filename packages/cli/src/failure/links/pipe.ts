/** One direction of one connection: takes what it reads to its way, and passes it on when it is due and the mode lets it. */
import type { Socket } from 'node:net';
import type { Clock, Timer } from '@kofn/core';
import { FrameCursor, flipIn } from './corrupt.js';
import type { LastingMode } from './mode.js';
import { FRAME_BYTES } from './shape.js';
import type { Way } from './way.js';

/** What waits in a direction, beside what its way has in flight. */
const MAX_HELD = 256 * 1024;

interface Held {
  bytes: Buffer;
  /** Infinity: not sent yet. */
  dueAt: number;
}

export class Pipe {
  readonly #source: Socket;
  readonly #sink: Socket;
  readonly #way: Way;
  readonly #clock: Clock;
  readonly #frames: FrameCursor;
  readonly #held: Held[] = [];
  #heldBytes = 0;
  #lastDueAt = -Infinity;
  #ended = false;
  #isBroken = false;
  #full = false;
  #mode: LastingMode = { kind: 'forward' };
  #hasCorrupted = false;
  #dripAt = -Infinity;
  #timer: Timer | undefined;

  constructor(source: Socket, sink: Socket, way: Way, clock: Clock) {
    this.#source = source;
    this.#sink = sink;
    this.#way = way;
    this.#clock = clock;
    this.#frames = new FrameCursor(way.direction);
    source.on('data', (bytes: Buffer) => this.#hold(bytes));
    source.on('end', () => {
      this.#ended = true;
      this.#pump();
    });
    source.on('error', () => {
      this.#isBroken = true;
      this.#pump();
    });
    sink.on('close', () => {
      this.#timer?.cancel();
      this.#way.forget(this);
      this.#held.length = 0;
    });
    sink.on('drain', () => {
      this.#full = false;
      this.#pump();
    });
  }

  /** Whether nothing can come or go any more. */
  get isOver(): boolean {
    return this.#source.destroyed && this.#sink.destroyed;
  }

  take(mode: LastingMode): void {
    this.#mode = mode;
    this.#hasCorrupted = false;
    if (mode.kind === 'reset') this.#source.resetAndDestroy();
    else this.look();
  }

  /** To be called when something that it waits for has changed. */
  look(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#pump();
  }

  #hold(bytes: Buffer): void {
    if (this.#sink.destroyed) return;
    const cameAt = this.#clock.now();
    this.#heldBytes += bytes.length;
    if (this.#heldBytes > MAX_HELD + this.#way.flightBytes) this.#source.pause();
    for (let at = 0; at < bytes.length; at += FRAME_BYTES) {
      const held: Held = { bytes: bytes.subarray(at, at + FRAME_BYTES), dueAt: Infinity };
      this.#held.push(held);
      const sent = (dueAt: number) => {
        // Not before those that it comes behind.
        held.dueAt = this.#lastDueAt = Math.max(this.#lastDueAt, dueAt);
        this.#pump();
      };
      this.#way.take({ length: held.bytes.length, cameAt, owner: this, sent });
    }
  }

  #pump(): void {
    if (this.#timer !== undefined || this.#sink.destroyed || this.#isInHole) return;
    const stalledMs = this.#way.stalledUntil - this.#clock.now();
    if (stalledMs > 0) return this.#later(stalledMs);
    if (this.#isBroken) return void this.#sink.resetAndDestroy();
    while (this.#held.length > 0 && !this.#full && this.#passOne());
    if (this.#held.length === 0 && this.#ended) this.#sink.end();
  }

  get #isInHole(): boolean {
    const mode = this.#mode;
    return mode.kind === 'hole' && (mode.direction ?? this.#way.direction) === this.#way.direction;
  }

  /** Passes the first of what is held, or as much of it as the mode lets; false when the time for it is to come. */
  #passOne(): boolean {
    const first = this.#held[0]!;
    const mode = this.#mode;
    if (first.dueAt === Infinity) return false;
    const dueAt = first.dueAt + (mode.kind === 'delay' ? mode.ms : 0);
    const now = this.#clock.now();
    const waitMs = Math.max(dueAt, mode.kind === 'drip' ? this.#dripAt : -Infinity) - now;
    if (waitMs > 0) {
      this.#later(waitMs);
      return false;
    }
    const bytes = first.bytes.subarray(0, mode.kind === 'drip' ? mode.bytes : first.bytes.length);
    if (bytes.length === first.bytes.length) this.#held.shift();
    else first.bytes = first.bytes.subarray(bytes.length);
    if (mode.kind === 'drip') this.#dripAt = Math.max(this.#dripAt, now - mode.everyMs) + mode.everyMs;
    this.#heldBytes -= bytes.length;
    if (this.#heldBytes <= MAX_HELD + this.#way.flightBytes) this.#source.resume();
    this.#full = !this.#sink.write(this.#disturbed(bytes));
    return true;
  }

  #later(ms: number): void {
    this.#timer = this.#clock.setTimer(() => {
      this.#timer = undefined;
      this.#pump();
    }, ms);
  }

  #disturbed(bytes: Buffer): Buffer {
    const frames = this.#frames.pass(bytes);
    if (this.#mode.kind !== 'corrupt' || this.#hasCorrupted) return bytes;
    const flip = flipIn(frames, this.#way.direction, this.#mode);
    if (flip === undefined) return bytes;
    this.#hasCorrupted = true;
    const copy = Buffer.from(bytes);
    copy[flip.at]! ^= flip.bit;
    return copy;
  }
}
