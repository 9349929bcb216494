/**
 * The line between the master and one worker: what each message takes, and what a fault makes of it. Above it
 * sim-channel.ts makes calls of messages.
 *
 * Invariants
 * 1. Messages of one flow (a connection's) arrive in the order in which they were sent, unless a fault reorders them.
 * 2. A partition holds messages back, as TCP does, until it heals or the connection is given up.
 * 3. Only frames of inference streams are lost, doubled, reordered or changed: of what else travels, TCP makes whole
 *    what arrives.
 */
import type { Clock, Rng } from '@kofn/core';
import { between } from './streams.js';

export type Direction = 'out' | 'back';

/** The latest arrival of each direction of one connection, which the next may not overtake. */
export interface Flow {
  out: number;
  back: number;
}

/** What may happen to one frame, each with its chance. */
export interface FrameFaults {
  drop: number;
  duplicate: number;
  reorder: number;
  corrupt: number;
  truncate: number;
}

export const NO_FRAME_FAULTS: Readonly<FrameFaults> = { drop: 0, duplicate: 0, reorder: 0, corrupt: 0, truncate: 0 };

export class Link {
  readonly name: string;
  /** What happens on it is drawn from this. */
  readonly rng: Rng;
  readonly #clock: Clock;
  readonly #latencyMs: number;
  readonly #held: Record<Direction, (() => void)[]> = { out: [], back: [] };
  readonly #isBlocked: Record<Direction, boolean> = { out: false, back: false };
  /** A drawn tail: with this chance a message takes so much longer. */
  tail = { chance: 0, ms: 0 };
  frames: FrameFaults = { ...NO_FRAME_FAULTS };
  /** What the slowest message so far has taken. */
  slowestMs = 0;
  /** When it last healed. */
  healedMs = 0;
  /** When an answer last came back over it. */
  heardMs = 0;

  constructor(parts: { name: string; clock: Clock; rng: Rng }) {
    this.name = parts.name;
    this.#clock = parts.clock;
    this.rng = parts.rng;
    this.#latencyMs = between(parts.rng, 0.1, 5);
  }

  get isSilent(): boolean {
    return this.#isBlocked.out || this.#isBlocked.back;
  }

  block(direction: Direction): void {
    this.#isBlocked[direction] = true;
  }

  heal(): void {
    if (this.isSilent) this.healedMs = this.#clock.now();
    for (const direction of ['out', 'back'] as const) {
      this.#isBlocked[direction] = false;
      for (const send of this.#held[direction].splice(0)) send();
    }
  }

  /** Calls `deliver` at the other end when the message has travelled. */
  transmit(direction: Direction, flow: Flow, deliver: () => void, mayOvertake = false): void {
    if (this.#isBlocked[direction]) {
      this.#held[direction].push(() => this.transmit(direction, flow, deliver, mayOvertake));
      return;
    }
    const now = this.#clock.now();
    const ownMs = now + this.#latency();
    const atMs = mayOvertake ? ownMs : Math.max(ownMs, flow[direction]);
    if (!mayOvertake) flow[direction] = atMs;
    this.slowestMs = Math.max(this.slowestMs, atMs - now);
    this.#clock.setTimer(deliver, atMs - now);
  }

  /** An answer came back. */
  heard(): void {
    this.heardMs = this.#clock.now();
  }

  /** What becomes of one frame of an inference stream. */
  drawFate(): keyof FrameFaults | 'arrive' {
    let draw = this.rng.uniform();
    for (const [fault, chance] of Object.entries(this.frames) as [keyof FrameFaults, number][]) {
      if (draw < chance) return fault;
      draw -= chance;
    }
    return 'arrive';
  }

  #latency(): number {
    const usual = this.#latencyMs * between(this.rng, 0.8, 1.5);
    return this.rng.uniform() < this.tail.chance ? usual + this.tail.ms * this.rng.uniform() : usual;
  }
}
