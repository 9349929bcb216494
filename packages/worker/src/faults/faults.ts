/**
 * The faults of this worker, as whoever tests its masters sets them (fault_control.proto says what each is). They exist only with
 * --allow-faults. fault-rpc.ts takes them in; stream.ts asks for the fate of each inference; emulated-device.ts is what befalls a run.
 *
 * Invariants
 * 1. The fate of the i-th inference since `set` depends on the seed, i, and the rates alone: each takes as many draws.
 * 2. An inference ends with the settings it arrived under, a run with those it began under, and they are counted there.
 * 3. What is armed happens the moment an inference arrives, before any of it is read further, and once.
 */
import { KofnError, openScope, seededRng, sleep, type Clock, type Rng, type Scope, type Tensors } from '@kofn/core';
import {
  resolveFaults,
  SEAL_BYTES,
  type FaultAction,
  type FaultStatus,
  type MessageParts,
  type ResolvedFaultSettings,
} from '@kofn/wire';
import { endNow, standStill } from '../process/own-process.js';

/** In so many turns of the event loop a reply has been handed to the operating system. */
const TURNS_OF_A_REPLY = 10;

const FLOAT_BYTES = 4;

type Counters = Record<'received' | 'run' | 'stalled' | 'dropped' | 'corrupted' | 'busyMs' | 'stalledMs', number>;

/** Settings, and what was counted under them. */
export interface Regime {
  readonly settings: ResolvedFaultSettings;
  readonly counters: Counters;
}

/** What befalls one inference. */
export interface Fate {
  readonly regime: Regime;
  /** 0 when it does not stall. */
  readonly stallMs: number;
  readonly isDropped: boolean;
  /** Where in the payload a bit is flipped, in [0, 1): on its way, and before it has its checksum. */
  readonly corruptAt: number | undefined;
  readonly wrongAt: number | undefined;
}

export class Faults implements Disposable {
  readonly #clock: Clock;
  readonly #life: Scope;
  readonly #stalls = new WeakMap<Tensors, number>();
  /** Runs under way. */
  readonly #running = new Set<{ readonly counters: Counters; readonly start: number }>();
  #regime: Regime = regimeOf(resolveFaults({}));
  #rng: Rng = seededRng(0);
  #armed: FaultAction | undefined;
  #waitsForDevice = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#life = openScope(clock);
  }

  /** Under which what begins now ends. */
  get regime(): Regime {
    return this.#regime;
  }

  set(settings: ResolvedFaultSettings): void {
    this.#regime = regimeOf(settings);
    this.#rng = seededRng(settings.seed);
    this.#armed = undefined;
  }

  /** Arms what is for the next inference; does the rest once what answers this call has left. */
  act(action: FaultAction): void {
    if (action.kind === 'killOnNext' || action.kind === 'pauseOnNext') this.#armed = action;
    else void this.#actAfterReply(action);
  }

  status(): FaultStatus {
    const { settings, counters } = this.#regime;
    const { user, system } = process.cpuUsage();
    const now = this.#clock.now();
    const under = [...this.#running].filter(run => run.counters === counters);
    return {
      ...counters,
      busyMs: under.reduce((ms, { start }) => ms + now - start, counters.busyMs),
      cpuMs: (user + system) / 1000,
      rssBytes: process.memoryUsage.rss(),
      settings,
      armed: this.#armed,
    };
  }

  /** An inference arrives. */
  meet(): Fate {
    const regime = this.#regime;
    const { stall, dropRate, corruptRate, wrongRate } = regime.settings;
    regime.counters.received++;
    const armed = this.#armed;
    this.#armed = undefined;
    if (armed !== undefined) perform(armed);
    const draw = () => this.#rng.uniform();
    const [ifStalled, howLong, ifDropped, ifCorrupted, where] = [draw(), draw(), draw(), draw(), draw()];
    const stalls = stall !== undefined && ifStalled < stall.rate;
    return {
      regime,
      stallMs: stalls ? stall.minMs + howLong * (stall.maxMs - stall.minMs) : 0,
      isDropped: ifDropped < dropRate,
      corruptAt: ifCorrupted < corruptRate ? where : undefined,
      wrongAt: ifCorrupted >= 1 - wrongRate ? where : undefined,
    };
  }

  /** The run of these inputs shares the fate of their inference. */
  follow(inputs: Tensors, { stallMs }: Fate): void {
    if (stallMs > 0) this.#stalls.set(inputs, stallMs);
  }

  /** Stands still when the run of these inputs is to; counted in `regime`. */
  async stall(inputs: Tensors, { counters }: Regime): Promise<void> {
    const stallMs = this.#stalls.get(inputs);
    if (stallMs === undefined) return;
    counters.stalled++;
    const start = this.#clock.now();
    await this.until(start + stallMs);
    counters.stalledMs += this.#clock.now() - start;
  }

  /** What `run` returns; the engine is busy with it from now on, for its time. */
  async busy<T>({ counters }: Regime, run: (start: number) => Promise<T>): Promise<T> {
    const running = { counters, start: this.#clock.now() };
    counters.run++;
    this.#running.add(running);
    try {
      return await run(running.start);
    } finally {
      this.#running.delete(running);
      counters.busyMs += this.#clock.now() - running.start;
    }
  }

  /** Resolves not before `time` on the clock. Throws CANCELLED when the worker closes. */
  async until(time: number): Promise<void> {
    // A timer of the system may be a fraction of a millisecond early.
    for (let leftMs = 0; (leftMs = time - this.#clock.now()) > 0;) await sleep(this.#clock, leftMs, this.#life.signal);
  }

  /** As `until`, of a device that is slow, and not stuck. */
  async untilDevice(time: number): Promise<void> {
    this.#waitsForDevice++;
    try {
      await this.until(time);
    } finally {
      this.#waitsForDevice--;
    }
  }

  /** Whether what runs is known to end in its time. */
  get isWaitingForDevice(): boolean {
    return this.#waitsForDevice > 0;
  }

  [Symbol.dispose](): void {
    this.#life.abort(new KofnError('CANCELLED', 'this worker is closed'));
    this.#life[Symbol.dispose]();
  }

  async #actAfterReply(action: FaultAction): Promise<void> {
    try {
      for (let turn = 0; turn < TURNS_OF_A_REPLY; turn++) await new Promise(resolve => setImmediate(resolve));
      perform(action);
    } catch (error) {
      process.emitWarning(KofnError.from(error).message);
    }
  }
}

function perform(action: FaultAction): void {
  if ('ms' in action) standStill(action.ms);
  else endNow();
}

/** Whether what answers this inference is never sent; counts it. */
export function isLost(fate: Fate | undefined): boolean {
  if (fate?.isDropped !== true) return false;
  fate.regime.counters.dropped++;
  return true;
}

/** `outputs`, the payloads of a reply, as this worker computes them: one value of the last may be wrong. Nothing given is changed. */
export function asComputed(outputs: Uint8Array[], fate: Fate): Uint8Array[] {
  const payload = outputs.at(-1);
  const count = Math.floor((payload?.byteLength ?? 0) / FLOAT_BYTES);
  if (fate.wrongAt === undefined || payload === undefined || count === 0) return outputs;
  const bytes = payload.slice();
  bytes[FLOAT_BYTES * Math.floor(fate.wrongAt * count) + 2]! ^= 0x40; // bit 22 of a float, little-endian
  return [...outputs.slice(0, -1), bytes];
}

/**
 * `frame`, the reply that ends in `payload` (and its checksum when it `isSealed`), as it is sent: one bit of the payload may be another.
 * Nothing that was given is changed.
 */
export function asSent(
  frame: MessageParts,
  fate: Fate,
  payload: Uint8Array | undefined,
  isSealed: boolean,
): MessageParts {
  if (fate.corruptAt === undefined || payload === undefined || payload.byteLength === 0) return frame;
  fate.regime.counters.corrupted++;
  const bytes = Buffer.concat(frame);
  const start = bytes.byteLength - (isSealed ? SEAL_BYTES : 0) - payload.byteLength;
  const bit = Math.floor(fate.corruptAt * 8 * payload.byteLength);
  bytes[start + (bit >> 3)]! ^= 1 << (bit & 7);
  return [bytes];
}

function regimeOf(settings: ResolvedFaultSettings): Regime {
  const counters = { received: 0, run: 0, stalled: 0, dropped: 0, corrupted: 0, busyMs: 0, stalledMs: 0 };
  return { settings, counters };
}
