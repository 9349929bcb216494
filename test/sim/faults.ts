/**
 * The faults of one seed: what happens to which worker when, drawn before anything runs. `apply` sets a timer for each.
 *
 * Invariant: only workers of `afflicted` have faults, so that a schedule for at most r of them stays within what the code
 * covers at every moment, lost workers included.
 */
import type { Clock, Rng } from '@kofn/core';
import type { Lie } from './lies.js';
import type { Machine } from './machine.js';
import { NO_FRAME_FAULTS, type FrameFaults } from './link.js';
import { between, pick } from './streams.js';
import type { Trace } from './trace.js';

export type Fault =
  | { readonly kind: 'crash'; readonly restartMs: number | undefined; readonly keepDisk: boolean }
  | { readonly kind: 'drain'; readonly restartMs: number | undefined }
  | { readonly kind: 'hang'; readonly ms: number }
  | { readonly kind: 'pause'; readonly ms: number }
  | { readonly kind: 'slow'; readonly factor: number; readonly ms: number }
  | { readonly kind: 'tail'; readonly chance: number; readonly tailMs: number; readonly ms: number }
  | { readonly kind: 'partition'; readonly directions: readonly ('out' | 'back')[]; readonly ms: number }
  | { readonly kind: 'frames'; readonly fault: keyof FrameFaults; readonly chance: number; readonly ms: number }
  | { readonly kind: 'spoil'; readonly how: 'nan' | 'shape'; readonly ms: number }
  | { readonly kind: 'lie'; readonly how: Lie; readonly ms: number }
  | { readonly kind: 'reset' }
  | { readonly kind: 'refuse'; readonly ms: number }
  | { readonly kind: 'full disk'; readonly ms: number }
  | { readonly kind: 'rot'; readonly place: number };

export interface ScheduledFault {
  readonly atMs: number;
  readonly worker: number;
  readonly fault: Fault;
}

const FRAME_FAULTS = ['drop', 'duplicate', 'reorder', 'corrupt', 'truncate'] as const;

/** One to three faults for each of `afflicted`, within `spanMs`. */
export function drawFaults(rng: Rng, afflicted: readonly number[], spanMs: number): ScheduledFault[] {
  const faults = afflicted.flatMap(worker =>
    Array.from({ length: 1 + rng.integer(3) }, () => {
      const fault = drawFault(rng, spanMs);
      // Bytes are looked at when a session opens: rot that is there before the first request is what is met most.
      const atMs = fault.kind === 'rot' && rng.integer(2) === 0 ? 0 : between(rng, 0, spanMs);
      return { atMs, worker, fault };
    }),
  );
  return faults.sort((a, b) => a.atMs - b.atMs);
}

function drawFault(rng: Rng, spanMs: number): Fault {
  // Mostly short, some longer than any keepalive.
  const ms = rng.integer(8) === 0 ? between(rng, 10_000, 25_000) : between(rng, 1, spanMs);
  const draws: (() => Fault)[] = [
    () => ({ kind: 'crash', restartMs: rng.integer(3) === 0 ? undefined : ms, keepDisk: rng.integer(2) === 0 }),
    () => ({ kind: 'drain', restartMs: rng.integer(3) === 0 ? undefined : ms }),
    () => ({ kind: 'hang', ms: between(rng, 1_000, 25_000) }),
    () => ({ kind: 'pause', ms }),
    () => ({ kind: 'slow', factor: 10 ** between(rng, 0.3, 4), ms }),
    () => ({ kind: 'tail', chance: between(rng, 0.1, 1), tailMs: 10 ** between(rng, 1, 3.5), ms }),
    () => ({ kind: 'partition', directions: pick(rng, [['out'], ['back'], ['out', 'back']] as const), ms }),
    () => ({ kind: 'frames', fault: pick(rng, FRAME_FAULTS), chance: between(rng, 0.2, 1), ms }),
    () => ({ kind: 'frames', fault: pick(rng, FRAME_FAULTS), chance: between(rng, 0.2, 1), ms }),
    () => ({ kind: 'spoil', how: pick(rng, ['nan', 'shape'] as const), ms }),
    () => ({ kind: 'reset' }),
    () => ({ kind: 'refuse', ms }),
    () => ({ kind: 'full disk', ms }),
    () => ({ kind: 'rot', place: rng.uniform() }),
  ];
  return pick(rng, draws)();
}

/** What befalls machines that a model does not use yet, while it may be made whole with them; each is over within so long. */
export const SPARE_FAULTS_MS = 40_000;

/** At most one for each of `spares`. */
export function drawSpareFaults(rng: Rng, spares: readonly number[]): ScheduledFault[] {
  return spares.flatMap(worker => {
    if (rng.integer(3) > 0) return [];
    const ms = between(rng, 1_000, SPARE_FAULTS_MS);
    const isFull = rng.integer(3) > 0;
    const fault: Fault = isFull ? { kind: 'full disk', ms } : { kind: 'crash', restartMs: ms / 4, keepDisk: false };
    return [{ atMs: isFull ? 0 : between(rng, 0, ms / 2), worker, fault }];
  });
}

/** Whether what it did stays: the process or what was on its disk is gone, or the disk is damaged. */
export function isLasting(fault: Fault): boolean {
  return fault.kind === 'rot' || isDeadly(fault) || (fault.kind === 'crash' && !fault.keepDisk);
}

/** Whether the process is gone for good. */
export function isDeadly(fault: Fault): boolean {
  return (fault.kind === 'drain' || fault.kind === 'crash') && fault.restartMs === undefined;
}

/** Sets a timer for each fault, from now on. */
export function applyFaults(
  faults: readonly ScheduledFault[],
  { machines, clock, trace }: { machines: readonly Machine[]; clock: Clock; trace: Trace },
): void {
  for (const { atMs, worker, fault } of faults) {
    clock.setTimer(() => {
      trace.add('fault', `worker ${worker}: ${JSON.stringify(fault)}`);
      strike(machines[worker]!, fault, clock);
    }, atMs);
  }
}

/** Ends what lasts: links heal, machines are fast and right again. What is dead stays dead. */
export function healAll(machines: readonly Machine[]): void {
  for (const machine of machines) {
    machine.link.heal();
    machine.link.tail = { chance: 0, ms: 0 };
    machine.link.frames = { ...NO_FRAME_FAULTS };
    machine.slowness = 1;
    machine.resume();
    machine.spoiling = 'none';
    machine.lying = undefined;
    machine.refuses = false;
    machine.disk.limitBytes = Infinity;
  }
}

function strike(machine: Machine, fault: Fault, clock: Clock): void {
  const { link, disk } = machine;
  const later = (undo: () => void, ms: number) => void clock.setTimer(undo, ms);
  switch (fault.kind) {
    case 'crash': {
      const { restartMs, keepDisk } = fault;
      machine.crash({ keepDisk });
      if (restartMs === undefined) machine.isGone = true;
      else later(() => void machine.start(), restartMs);
      return;
    }
    case 'drain': {
      const { restartMs } = fault;
      void machine.drain().then(() => {
        if (restartMs === undefined) machine.isGone = true;
        else later(() => void machine.start(), restartMs);
      });
      return;
    }
    case 'hang':
      machine.hang();
      return later(() => machine.resume(), fault.ms);
    case 'pause':
      return machine.pause(fault.ms);
    case 'slow':
      machine.slowness = fault.factor;
      return later(() => (machine.slowness = 1), fault.ms);
    case 'tail':
      link.tail = { chance: fault.chance, ms: fault.tailMs };
      return later(() => (link.tail = { chance: 0, ms: 0 }), fault.ms);
    case 'partition':
      return machine.cutOff(fault.directions, fault.ms);
    case 'frames':
      link.frames = { ...link.frames, [fault.fault]: fault.chance };
      return later(() => (link.frames = { ...link.frames, [fault.fault]: 0 }), fault.ms);
    case 'spoil':
      machine.spoiling = fault.how;
      return later(() => (machine.spoiling = 'none'), fault.ms);
    case 'lie':
      machine.lying = fault.how;
      return later(() => (machine.lying = undefined), fault.ms);
    case 'reset':
      return machine.onBreak('reset by the network');
    case 'refuse':
      machine.refuses = true;
      return later(() => (machine.refuses = false), fault.ms);
    case 'full disk':
      disk.limitBytes = disk.usedBytes;
      return later(() => (disk.limitBytes = Infinity), fault.ms);
    case 'rot':
      return disk.rot(fault.place);
  }
}
