/**
 * Gives a process a part of a processor, by a control group of its own (Linux, version 1 or 2, and the right to make groups).
 *
 * The kernel lets a group run for `quota` in each `period` and then holds it until the next, so a slowed process moves in steps. The
 * period is 10 ms, so that a step is short beside a request; below a tenth of a processor it is longer, since no quota can be below
 * 1 ms. The kernel looks at ticks (1 to 10 ms): a process can overrun its quota by one and then waits it out, so the part is right over some
 * periods and not in each.
 *
 * Invariants
 * 1. A group is gone on disposal and when this process exits, the process back where it came from; what a killed run left is removed
 *    by the next.
 */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { KofnError, sleep, systemClock } from '@kofn/core';
import { isLeftover, ownName, removeAtExit } from '../links/leftovers.js';

/** Where groups are made, of the first version that has the controller. */
interface Hierarchy {
  readonly version: 1 | 2;
  readonly root: string;
}

const PERIOD_US = 10_000;
const MIN_QUOTA_US = 1_000;
const MAX_PERIOD_US = 1_000_000;
/** A process that was killed leaves its group when it has exited, which takes a moment. */
const EMPTY_WAIT_MS = 2_000;
const LOOK_EVERY_MS = 5;

export class CpuQuota implements AsyncDisposable {
  readonly #hierarchy: Hierarchy;
  readonly #pid: number;
  readonly #folder: string;
  /** Where the process came from. */
  readonly #home: string;
  readonly #keep: () => void;
  #isOpen = true;

  /** Why there can be none here, after having tried; undefined when there can. */
  static available(): string | undefined {
    try {
      const hierarchy = hierarchyHere();
      const folder = makeGroup(hierarchy);
      try {
        limit(hierarchy, folder, 0.5);
      } finally {
        rmdirSync(folder);
      }
      return undefined;
    } catch (error) {
      return KofnError.from(error).message;
    }
  }

  /**
   * Process `pid`, with all its threads, gets `fraction` of one processor: from 0.001 to 64. Throws INVALID_ARGUMENT (fraction),
   * NOT_FOUND (no such process), UNSUPPORTED (no groups here).
   */
  static open(pid: number, fraction: number): CpuQuota {
    checkFraction(fraction);
    const hierarchy = hierarchyHere();
    const home = groupOf(pid, hierarchy);
    const folder = makeGroup(hierarchy);
    try {
      limit(hierarchy, folder, fraction);
      write(path.join(folder, 'cgroup.procs'), String(pid));
    } catch (error) {
      rmdirSync(folder);
      throw error;
    }
    return new CpuQuota(hierarchy, pid, folder, home);
  }

  private constructor(hierarchy: Hierarchy, pid: number, folder: string, home: string) {
    this.#hierarchy = hierarchy;
    this.#pid = pid;
    this.#folder = folder;
    this.#home = home;
    this.#keep = removeAtExit(() => void this.#remove());
  }

  /** Null: as much as it likes. Throws INVALID_ARGUMENT, also when it is disposed. */
  set(fraction: number | null): void {
    if (fraction !== null) checkFraction(fraction);
    if (!this.#isOpen) throw new KofnError('INVALID_ARGUMENT', `the CPU quota of process ${this.#pid} is disposed`);
    limit(this.#hierarchy, this.#folder, fraction);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    const endsAt = systemClock.now() + EMPTY_WAIT_MS;
    while (!this.#remove() && systemClock.now() < endsAt) await sleep(systemClock, LOOK_EVERY_MS);
    this.#keep();
  }

  /** False while something is in the group. */
  #remove(): boolean {
    for (const home of [this.#home, this.#hierarchy.root]) {
      try {
        writeFileSync(path.join(home, 'cgroup.procs'), String(this.#pid));
        break;
      } catch {
        // It has exited, and left the group by that; or its old group is not one to come back to.
      }
    }
    return removeGroup(this.#folder);
  }
}

function checkFraction(fraction: number): void {
  if (fraction >= 0.001 && fraction <= 64) return;
  throw new KofnError('INVALID_ARGUMENT', `${fraction} of a processor: must be from 0.001 to 64`);
}

/** Throws UNSUPPORTED. */
function hierarchyHere(): Hierarchy {
  if (process.platform !== 'linux') throw impossible('only Linux has control groups');
  for (const line of readFileSync('/proc/mounts', 'utf8').split('\n')) {
    const [, root, type, options] = line.split(' ');
    if (type === 'cgroup' && options!.split(',').includes('cpu')) return { version: 1, root: root! };
    if (type === 'cgroup2' && controllers(root!, 'cgroup.controllers').includes('cpu'))
      return { version: 2, root: root! };
  }
  throw impossible('no control group hierarchy with the cpu controller is mounted');
}

function controllers(folder: string, file: string): readonly string[] {
  try {
    return readFileSync(path.join(folder, file), 'utf8').trim().split(' ');
  } catch {
    return [];
  }
}

/** A new group, and those of dead owners gone. */
function makeGroup({ version, root }: Hierarchy): string {
  for (const name of readdirSync(root)) if (isLeftover(name)) emptyAndRemove(root, path.join(root, name));
  if (version === 2 && !controllers(root, 'cgroup.subtree_control').includes('cpu')) {
    write(path.join(root, 'cgroup.subtree_control'), '+cpu');
  }
  const folder = path.join(root, ownName());
  try {
    mkdirSync(folder);
  } catch (error) {
    throw impossible(KofnError.from(error).message, error);
  }
  return folder;
}

/** Of a dead owner; a process that it slowed, if it lives, goes on as any other. */
function emptyAndRemove(root: string, folder: string): void {
  try {
    for (const pid of readFileSync(path.join(folder, 'cgroup.procs'), 'utf8').split('\n')) {
      if (pid !== '') writeFileSync(path.join(root, 'cgroup.procs'), pid);
    }
  } catch {
    // Another run does the same, or that process has just exited: what is left is tried again by the next.
  }
  removeGroup(folder);
}

/** False when it is not empty. */
function removeGroup(folder: string): boolean {
  try {
    rmdirSync(folder);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}

function limit({ version }: Hierarchy, folder: string, fraction: number | null): void {
  const period = Math.min(MAX_PERIOD_US, Math.max(PERIOD_US, Math.ceil(MIN_QUOTA_US / (fraction ?? 1))));
  const quota = fraction === null ? undefined : Math.max(MIN_QUOTA_US, Math.round(fraction * period));
  if (version === 2) return write(path.join(folder, 'cpu.max'), `${quota ?? 'max'} ${period}`);
  const file = (name: string) => path.join(folder, `cpu.cfs_${name}_us`);
  write(file('quota'), '-1'); // or the old one may not fit the new period
  write(file('period'), String(period));
  if (quota !== undefined) write(file('quota'), String(quota));
}

/** The folder of the group that a process is in. Throws NOT_FOUND. */
function groupOf(pid: number, { version, root }: Hierarchy): string {
  let groups: string;
  try {
    groups = readFileSync(`/proc/${pid}/cgroup`, 'utf8');
  } catch (error) {
    throw new KofnError('NOT_FOUND', `there is no process ${pid} to slow down`, { cause: error });
  }
  for (const line of groups.split('\n')) {
    const [id, names, ...rest] = line.split(':');
    const isIt = version === 2 ? id === '0' : names?.split(',').includes('cpu');
    if (isIt) return path.join(root, rest.join(':'));
  }
  return root;
}

function write(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ESRCH')
      throw new KofnError('NOT_FOUND', `there is no process ${text} to slow down`, { cause: error });
    throw impossible(`${text} cannot be written to ${file}: ${KofnError.from(error).message}`, error);
  }
}

function impossible(why: string, cause?: unknown): KofnError {
  return new KofnError('UNSUPPORTED', `a process cannot be slowed down by its CPU quota here: ${why}`, { cause });
}
