/**
 * One direction of a station, for all its connections: its line, its chance, its turn at the air, and its counters.
 *
 * Invariants
 * 1. Frames are sent in the order they came, by one line; each has one draw.
 * 2. A new shape holds for every frame that has not been sent.
 */
import type { Clock } from '@kofn/core';
import type { Air, Airs, Sender } from './air.js';
import { Draws } from './draws.js';
import type { Direction } from './mode.js';
import { flightBytes, serialisationMs, type LinkShape } from './shape.js';
import { TraceClock } from './trace.js';

export interface Frame {
  readonly length: number;
  readonly cameAt: number;
  /** Whose it is. */
  readonly owner: object;
  /** Called when it is sent, with the time that it is there. */
  sent(dueAt: number): void;
}

export interface WayCounters {
  /** Of what was sent: it takes the air whether it arrives or not. */
  bytes: number;
  frames: number;
  /** Drawn, not ordered. */
  stalls: number;
  losses: number;
}

export class Way implements Sender {
  readonly direction: Direction;
  readonly counters: WayCounters = { bytes: 0, frames: 0, stalls: 0, losses: 0 };
  /** By an order: nothing arrives before. */
  stalledUntil = -Infinity;
  /** Beside what waits. */
  flightBytes = 0;
  readonly #clock: Clock;
  readonly #station: number;
  #queue: Frame[] = [];
  #shape: LinkShape = {};
  #trace: TraceClock | undefined;
  #draws: Draws;
  #air: Air;
  #lineFreeAt = -Infinity;

  constructor(clock: Clock, airs: Airs, station: number, direction: Direction) {
    this.#clock = clock;
    this.#station = station;
    this.direction = direction;
    this.#draws = new Draws({}, 0, station, direction);
    this.#air = airs.of({});
  }

  shape(shape: LinkShape, seed: number, airs: Airs): void {
    this.#air.leave(this);
    this.#air = airs.of(shape);
    this.#shape = shape;
    this.#draws = new Draws(shape, seed, this.#station, this.direction);
    this.#trace = shape.trace && new TraceClock(shape.trace, this.#clock.now());
    this.#lineFreeAt = -Infinity;
    this.flightBytes = flightBytes(shape);
    if (this.#queue.length > 0) this.#air.ask(this);
  }

  take(frame: Frame): void {
    this.#queue.push(frame);
    if (this.#queue.length === 1) this.#air.ask(this);
  }

  /** Forgets what of `owner` was not sent. */
  forget(owner: object): void {
    this.#queue = this.#queue.filter(frame => frame.owner !== owner);
    if (this.#queue.length === 0) this.#air.leave(this);
  }

  get asksAt(): number {
    const [first] = this.#queue;
    return first === undefined ? Infinity : Math.max(first.cameAt, this.#lineFreeAt);
  }

  send(atMs: number): number {
    const frame = this.#queue.shift()!;
    const { delayMs = 0, megabitsPerSecond, sharedMegabitsPerSecond } = this.#shape;
    const { ms, isStalled, losses } = this.#draws.next();
    const offLine = this.#trace?.sentAt(atMs, frame.length) ?? atMs + serialisationMs(frame.length, megabitsPerSecond);
    const offAir = atMs + serialisationMs(frame.length, sharedMegabitsPerSecond);
    const sentAt = Math.max(offLine, offAir);
    this.#lineFreeAt = sentAt;
    this.counters.bytes += frame.length;
    this.counters.frames++;
    if (isStalled) this.counters.stalls++;
    this.counters.losses += losses;
    frame.sent(sentAt + delayMs + (this.#trace?.delayAt(sentAt) ?? 0) + ms);
    return frame.length;
  }
}
