/**
 * What is known of how fast each worker is: from its replies (worker-call.ts), also those that came too late to be used, and from the
 * questions that its connection asks all the time. placement.ts, homes.ts and measure.ts decide by it, `cluster.workers` shows it.
 *
 * Of a block's time the engine's part and the way there and back are counted, not the wait behind other requests: that is load, and
 * comes and goes with it. Blocks of one layer are equal, so a worker is held against the others that have one (BlockPace).
 *
 * Invariants
 * 1. Nothing here waits or sets a timer, and a call costs a microsecond or two.
 * 2. A figure that was not seen lately is undefined, never assumed.
 * 3. Straggler and steady alternate, with a gap between the two bounds: a worker at the edge does not change with each reply.
 */
import type { Clock } from '@kofn/core';
import type { WorkerTimes } from '@kofn/wire';
import { RecentTimes } from './recent-times.js';
import { RecentValues, WINDOW_MS } from './recent-values.js';

/** A straggler takes so many times as long as the others, and is none again below the second figure. */
export const STRAGGLER_FACTOR = 2;
export const STEADY_FACTOR = 1.5;
/** Below this a worker counts as no slower than the others: less is noise. */
const SLOW_FACTOR = 1.25;
/** By the median of so many of its latest blocks; fewer than the second figure say nothing; looked at after each so many. */
const BLOCKS = 32;
const LEAST_BLOCKS = 16;
const LOOK_EVERY = 8;
/** A difference below this does not make one worker slower than another: a timer, another process, a garbage collection. */
const LEAST_DIFFERENCE_MS = 1;
/** Calls of less tell nothing of a link's rate. */
const LEAST_RATE_BYTES = 2 ** 16;
/** Of about so many of the latest calls it is known whether they were in time. */
const CALLS = 64;
/** A measurement made on purpose counts as so many runs. */
const CALIBRATION_WEIGHT = 16;

/** What a worker was seen to do in the last five to ten minutes; null where nothing was. */
export interface WorkerSpeed {
  /** Runs of coded blocks that it told its time of. */
  readonly runs: number;
  /** Multiply-accumulates a second in its engine: of the median run, and what 95 % of the runs reached. */
  readonly macsPerSecond: number | null;
  readonly macsPerSecondP5: number | null;
  /** Round trip of a question: median and 95th percentile. */
  readonly rttMs: number | null;
  readonly rttMsP95: number | null;
  /** To and from it, as calls of 64 KiB and more saw it; calls of one layer share the master's link. */
  readonly bytesPerSecond: number | null;
  /** How many times as long as other workers' its blocks take, by its last 32. */
  readonly slowness: number | null;
  readonly isStraggler: boolean;
  /** The part of its calls that were answered before the layer could do without, of the last 64 or so. */
  readonly inTime: number | null;
}

/** A call that was answered, in time or not. */
export interface SeenCall {
  /** Until the reply was read. */
  readonly callMs: number;
  /** What travelled, there and back together. */
  readonly bytes: number;
  readonly worker: WorkerTimes;
  /** Multiply-accumulates of the block, and the pace of those that have one of the same layers; undefined for a segment. */
  readonly block: { readonly macs: number; readonly pace: BlockPace } | undefined;
}

/** What of it is used to plan by. */
export interface KnownSpeed {
  /** Its time for a block, beside the master's own for as much of the same layer. */
  readonly relative: number | undefined;
  readonly rttMs: number | undefined;
  /** Of uploads that had the link for themselves. */
  readonly uploadBytesPerMs: number | undefined;
}

export class SpeedRecord {
  readonly #clock: Clock;
  readonly #onVerdict: () => void;
  readonly #nsPerMac: RecentValues;
  readonly #rttMs: RecentValues;
  /** Milliseconds for 2^20 bytes: of calls, and of uploads made to measure it. */
  readonly #callMs: RecentValues;
  readonly #uploadMs: RecentValues;
  readonly #relative: RecentValues;
  /** Its blocks' times as factors of the others'. */
  readonly #factors = new RecentTimes(BLOCKS);
  #looked = 0;
  #factorMs = -Infinity;
  #isStraggler = false;
  #inTime = 0;
  #calls = 0;

  /** `onVerdict` is told when it becomes a straggler, or none again. */
  constructor(clock: Clock, onVerdict: () => void = () => undefined) {
    this.#clock = clock;
    this.#onVerdict = onVerdict;
    this.#nsPerMac = new RecentValues(clock);
    this.#rttMs = new RecentValues(clock);
    this.#callMs = new RecentValues(clock);
    this.#uploadMs = new RecentValues(clock);
    this.#relative = new RecentValues(clock);
  }

  get isStraggler(): boolean {
    return this.#isStraggler;
  }

  /** How many times as long as others' its blocks take, by the latest; undefined while too few are known, or none lately. */
  get slowness(): number | undefined {
    const isKnown = this.#factors.count >= LEAST_BLOCKS && this.#clock.now() - this.#factorMs < 2 * WINDOW_MS;
    return isKnown ? this.#factors.quantile(0.5) : undefined;
  }

  /** As `slowness`, 1 for one that is not slower than the others or not known: what placement counts with. */
  get handicap(): number {
    const { slowness = 1 } = this;
    return slowness > SLOW_FACTOR ? slowness : 1;
  }

  get known(): KnownSpeed {
    const uploadMs = this.#uploadMs.quantile(0.5);
    return {
      relative: this.#relative.quantile(0.5),
      rttMs: this.#rttMs.quantile(0.5),
      uploadBytesPerMs: uploadMs === undefined || uploadMs === 0 ? undefined : 2 ** 20 / uploadMs,
    };
  }

  get view(): WorkerSpeed {
    const perSecond = (nsPerMac: number | undefined) => inverse(nsPerMac, 1e9);
    return {
      runs: this.#nsPerMac.count,
      macsPerSecond: perSecond(this.#nsPerMac.quantile(0.5)),
      macsPerSecondP5: perSecond(this.#nsPerMac.quantile(0.95)),
      rttMs: this.#rttMs.quantile(0.5) ?? null,
      rttMsP95: this.#rttMs.quantile(0.95) ?? null,
      bytesPerSecond: inverse(this.#callMs.quantile(0.5) ?? this.#uploadMs.quantile(0.5), 1000 * 2 ** 20),
      slowness: this.slowness ?? null,
      isStraggler: this.#isStraggler,
      inTime: this.#calls === 0 ? null : this.#inTime,
    };
  }

  /** A reply that was used, or could have been. */
  answered(call: SeenCall): void {
    this.#count(1);
    this.#see(call);
  }

  /** A call was given up because others had answered. */
  missed(): void {
    this.#count(0);
  }

  /** The reply to such a call. */
  late(call: SeenCall): void {
    this.#see(call);
  }

  /** A question without a payload was answered. */
  probed(ms: number): void {
    this.#rttMs.add(ms);
  }

  /** An upload of so many bytes took so long, with nothing beside it. */
  uploaded(bytes: number, ms: number): void {
    this.#uploadMs.add((Math.max(0, ms) * 2 ** 20) / bytes);
  }

  /** It took for the same so many times as long as the master. */
  calibrated(relative: number): void {
    this.#relative.add(relative, CALIBRATION_WEIGHT);
  }

  #count(isInTime: 0 | 1): void {
    this.#inTime += (isInTime - this.#inTime) / Math.min(++this.#calls, CALLS);
  }

  #see({ callMs, bytes, worker: { queueMs, engineMs, workerMs }, block }: SeenCall): void {
    const wayMs = Math.max(0, callMs - workerMs);
    if (bytes >= LEAST_RATE_BYTES) {
      const rttMs = this.#rttMs.quantile(0.5) ?? 0;
      this.#callMs.add((Math.max(0, wayMs - rttMs) * 2 ** 20) / bytes);
    }
    if (block === undefined) return;
    const { macs, pace } = block;
    this.#nsPerMac.add((1e6 * engineMs) / macs);
    if (pace.localMsPerMac !== undefined) this.#relative.add(engineMs / (macs * pace.localMsPerMac));
    const factor = pace.factor(wayMs + workerMs - queueMs);
    if (factor === undefined) return;
    this.#factors.add(factor);
    this.#factorMs = this.#clock.now();
    if (++this.#looked % LOOK_EVERY === 0) this.#judge();
  }

  #judge(): void {
    const { slowness } = this;
    if (slowness === undefined) return;
    const isStraggler = slowness >= (this.#isStraggler ? STEADY_FACTOR : STRAGGLER_FACTOR);
    if (isStraggler === this.#isStraggler) return;
    this.#isStraggler = isStraggler;
    this.#onVerdict();
  }
}

/** What a block of some layers takes, whichever worker has it: by the latest replies of all. */
export class BlockPace {
  /** What the master itself takes for a multiply-accumulate of these layers; undefined when that was not measured. */
  readonly localMsPerMac: number | undefined;
  readonly #times = new RecentTimes(BLOCKS);
  #typicalMs = NaN;
  #seen = 0;

  constructor(localMsPerMac?: number) {
    this.localMsPerMac = localMsPerMac;
  }

  /**
   * So many times the typical time is `ms`, which is 1 while they differ by less than a millisecond; undefined while too few are
   * known. The typical time is the lower median, so that of two workers the faster is the measure.
   */
  factor(ms: number): number | undefined {
    this.#times.add(ms);
    if (++this.#seen % LOOK_EVERY === 0) this.#typicalMs = this.#times.quantile(0.5);
    if (Number.isNaN(this.#typicalMs)) return undefined;
    return Math.abs(ms - this.#typicalMs) < LEAST_DIFFERENCE_MS ? 1 : ms / this.#typicalMs;
  }
}

function inverse(value: number | undefined, of: number): number | null {
  return value === undefined || value === 0 ? null : of / value;
}
