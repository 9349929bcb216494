/**
 * The faults of a worker: what both ends of kofn.v1.FaultControl take for valid, and how it stands in messages. What the fields mean
 * is said in fault_control.proto; the worker's faults.ts does it.
 */
import { KofnError } from '@kofn/core';
import type { FaultActionMessage, FaultSettingsMessage } from '../protocol/protos.js';

/** No time is longer. */
const HOUR_MS = 3_600_000;
const MAX_SLOW_FACTOR = 1e6;

export interface FaultDevice {
  /** 10^9 floating-point operations a second. */
  readonly gflops: number;
  /** Default 0. */
  readonly overheadMs?: number;
  /** Default false. */
  readonly replay?: boolean;
}

export interface FaultStall {
  readonly rate: number;
  readonly minMs: number;
  readonly maxMs: number;
}

/** Without any of them a worker is sound. */
export interface FaultSettings {
  /** Default 0. */
  readonly seed?: number | undefined;
  readonly device?: FaultDevice | undefined;
  /** Default 1. */
  readonly slowFactor?: number | undefined;
  readonly stall?: FaultStall | undefined;
  /** Default 0. */
  readonly dropRate?: number | undefined;
  /** Default 0. */
  readonly corruptRate?: number | undefined;
  /** Default 0. */
  readonly wrongRate?: number | undefined;
}

export interface ResolvedFaultSettings {
  readonly seed: number;
  readonly device: Required<FaultDevice> | undefined;
  readonly slowFactor: number;
  readonly stall: FaultStall | undefined;
  readonly dropRate: number;
  readonly corruptRate: number;
  readonly wrongRate: number;
}

export type FaultAction =
  { readonly kind: 'kill' | 'killOnNext' } | { readonly kind: 'pause' | 'pauseOnNext'; readonly ms: number };

export interface FaultStatus {
  readonly received: number;
  readonly run: number;
  readonly stalled: number;
  readonly dropped: number;
  readonly corrupted: number;
  readonly busyMs: number;
  readonly stalledMs: number;
  readonly cpuMs: number;
  readonly rssBytes: number;
  readonly settings: ResolvedFaultSettings;
  /** What the next inference will meet. */
  readonly armed: FaultAction | undefined;
}

/** With the defaults for what is not said. Throws INVALID_ARGUMENT, which names the field as the protocol has it. */
export function resolveFaults(settings: FaultSettings): ResolvedFaultSettings {
  const { seed = 0, device, slowFactor = 1, stall, dropRate = 0, corruptRate = 0, wrongRate = 0 } = settings;
  if (!Number.isSafeInteger(seed) || seed < 0) throw invalid('seed', seed, 'a whole number from 0 to 2^53 - 1');
  if (device !== undefined && !(device.gflops > 0 && device.gflops < Infinity)) {
    throw invalid('device.gflops', device.gflops, 'more than 0 and finite');
  }
  return {
    seed,
    device: device && {
      gflops: device.gflops,
      overheadMs: inRange('device.overhead_ms', device.overheadMs ?? 0, 0, HOUR_MS),
      replay: device.replay ?? false,
    },
    slowFactor: inRange('slow_factor', slowFactor, 1, MAX_SLOW_FACTOR),
    stall: stall && {
      rate: inRange('stall.rate', stall.rate, 0, 1),
      minMs: inRange('stall.min_ms', stall.minMs, 0, HOUR_MS),
      maxMs: inRange('stall.max_ms', stall.maxMs, stall.minMs, HOUR_MS),
    },
    dropRate: inRange('drop_rate', dropRate, 0, 1),
    corruptRate: inRange('corrupt_rate', corruptRate, 0, 1),
    wrongRate: inRange('wrong_rate', wrongRate, 0, 1),
  };
}

export function settingsMessage(settings: ResolvedFaultSettings): FaultSettingsMessage {
  const { device, stall } = settings;
  return {
    seed: settings.seed,
    device: device ? { gflops: device.gflops, overhead_ms: device.overheadMs, replay: device.replay } : null,
    slow_factor: settings.slowFactor,
    stall: stall ? { rate: stall.rate, min_ms: stall.minMs, max_ms: stall.maxMs } : null,
    drop_rate: settings.dropRate,
    corrupt_rate: settings.corruptRate,
    wrong_rate: settings.wrongRate,
  };
}

/** Throws as `resolveFaults`. */
export function settingsFrom(message: FaultSettingsMessage): ResolvedFaultSettings {
  const { device, stall } = message;
  return resolveFaults({
    seed: Number(message.seed),
    device: device ? { gflops: device.gflops, overheadMs: device.overhead_ms, replay: device.replay } : undefined,
    slowFactor: message.slow_factor === 0 ? 1 : message.slow_factor,
    stall: stall ? { rate: stall.rate, minMs: stall.min_ms, maxMs: stall.max_ms } : undefined,
    dropRate: message.drop_rate,
    corruptRate: message.corrupt_rate,
    wrongRate: message.wrong_rate,
  });
}

/** Throws INVALID_ARGUMENT. */
export function actionMessage(action: FaultAction): FaultActionMessage {
  switch (action.kind) {
    case 'kill':
      return { kill: {} };
    case 'pause':
      return { pause: { ms: inRange('pause.ms', action.ms, 1, HOUR_MS) } };
    case 'killOnNext':
      return { kill_on_next: {} };
    case 'pauseOnNext':
      return { pause_on_next: { ms: inRange('pause_on_next.ms', action.ms, 1, HOUR_MS) } };
  }
}

/** Throws INVALID_ARGUMENT. */
export function actionFrom(message: FaultActionMessage): FaultAction {
  const { kill, pause, kill_on_next: killOnNext, pause_on_next: pauseOnNext } = message;
  if (kill) return { kind: 'kill' };
  if (killOnNext) return { kind: 'killOnNext' };
  if (pause) return { kind: 'pause', ms: inRange('pause.ms', pause.ms, 1, HOUR_MS) };
  if (pauseOnNext) return { kind: 'pauseOnNext', ms: inRange('pause_on_next.ms', pauseOnNext.ms, 1, HOUR_MS) };
  throw new KofnError('INVALID_ARGUMENT', 'action: must be one of kill, pause, kill_on_next and pause_on_next');
}

/** NaN is in no range. */
function inRange(field: string, value: number, least: number, most: number): number {
  if (value >= least && value <= most) return value;
  throw invalid(field, value, `from ${least} to ${most}`);
}

function invalid(field: string, value: number, range: string): KofnError {
  return new KofnError('INVALID_ARGUMENT', `${field} ${value}: must be ${range}`);
}
