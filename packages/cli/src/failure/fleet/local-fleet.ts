/**
 * Workers as processes of this machine, each behind a link of its own (links/): what a laptop has for a cluster.
 *
 * Invariants
 * 1. Only processes that `startLocalWorkers` started are signalled; they, links, namespaces and quotas end with the fleet.
 * 2. A worker that was killed starts again on the same disk, with the device of the cell, and only then does its link lead to it.
 * 3. What a process had used is counted before a fault ends it.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { KofnError } from '@kofn/core';
import { startLocalWorkers, type LocalWorkers } from '../../workers/local-workers.js';
import { CpuQuota } from './cgroup.js';
import type { LinkConfig } from '../config/config-schema.js';
import type { FaultEvent } from './fault-plan.js';
import type { BenchFleet, DeviceSetup, Traffic, Usage } from './fleet.js';
import { Links } from '../links/links.js';
import { shapeOf } from '../config/shape-of.js';
import { NetworkNamespaces } from '../links/namespaces.js';
import { Machine, settingsOf, totalOf } from './machine.js';
import { MidRequest } from './mid-request.js';

export interface LocalFleetOptions {
  readonly count: number;
  /** Workers live in network namespaces, whose rates the kernel limits. */
  readonly namespaces: boolean;
  readonly signal: AbortSignal;
}

/** Requests that wait in a worker: more than any cell has under way. */
const MAX_QUEUE = 65_536;

/** Workers that start at once: each has a time to do so, which many at once would use up on few cores that are busy with other things. */
const STARTING = 8;

export class LocalFleet implements BenchFleet {
  readonly hosts = [];
  readonly #folder: string;
  readonly #slots: Slot[];
  readonly #links: Links;
  readonly #namespaces: NetworkNamespaces | undefined;
  readonly #midRequest = new MidRequest();
  readonly #restarts = new Map<number, Promise<void>>();
  #workers = 0;
  #device: DeviceSetup = { kind: 'native' };
  #seed = 0;

  static async open({ count, namespaces: wantsNamespaces, signal }: LocalFleetOptions): Promise<LocalFleet> {
    const folder = mkdtempSync(path.join(tmpdir(), 'kofn-bench-'));
    const namespaces = wantsNamespaces ? await NetworkNamespaces.open(count) : undefined;
    const slots = Array.from(
      { length: count },
      (_, index) => new Slot(index, path.join(folder, `${index}`), namespaces),
    );
    try {
      for (let first = 0; first < count; first += STARTING) {
        const group = slots.slice(first, first + STARTING);
        const starts = await Promise.allSettled(group.map(slot => slot.start(signal)));
        for (const start of starts) if (start.status === 'rejected') throw KofnError.from(start.reason);
      }
      const links = await Links.open(slots.map(({ address }) => address));
      return new LocalFleet(folder, slots, links, namespaces);
    } catch (error) {
      await Promise.all(slots.map(slot => slot[Symbol.asyncDispose]()));
      await namespaces?.[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  private constructor(folder: string, slots: Slot[], links: Links, namespaces: NetworkNamespaces | undefined) {
    this.#folder = folder;
    this.#slots = slots;
    this.#links = links;
    this.#namespaces = namespaces;
  }

  get addresses(): readonly string[] {
    return this.#links.addresses;
  }

  get hooks() {
    return this.#midRequest.hooks;
  }

  async prepare(workers: number, device: DeviceSetup, seed: number): Promise<void> {
    this.#workers = workers;
    this.#device = device;
    this.#seed = seed;
    await this.#links.shape('all', {}, seed);
    await Promise.all(this.#slots.map(({ index }) => this.#links.set(index, { kind: 'forward' })));
    await Promise.all(
      this.#slots.map(slot => (slot.isRunning ? slot.prepare(device, seed + slot.index) : this.#revive(slot))),
    );
  }

  async shape(link: LinkConfig, seed: number): Promise<void> {
    if (link.rateBy === 'tbf') await this.#namespaces!.setRate(link.megabitsPerSecond);
    else await this.#namespaces?.setRate(undefined);
    await this.#links.shape('all', await shapeOf(link), seed);
  }

  async begin(event: FaultEvent): Promise<void> {
    await Promise.all(event.workers.map(worker => this.#begin(event, worker, this.#slots[worker]!)));
  }

  async settle(event: FaultEvent): Promise<boolean | null> {
    if (!event.midRequest) return null;
    let hit = true;
    for (const worker of event.workers) {
      if (this.#midRequest.disarm(worker)) continue;
      // No call went to it during the request: it is struck now, so that what comes next meets the fault all the same.
      hit = false;
      const slot = this.#slots[worker]!;
      if (event.kind === 'pause') slot.workers.pause(0);
    }
    // Waits until it is gone, and kills it where that is still to be done.
    if (event.kind === 'kill') await Promise.all(event.workers.map(worker => this.#slots[worker]!.workers.kill(0)));
    return hit;
  }

  async end(event: FaultEvent): Promise<void> {
    await Promise.all(event.workers.map(worker => this.#end(event.kind, worker, this.#slots[worker]!)));
  }

  async usage(): Promise<Usage> {
    const slots = this.#slots.slice(0, this.#workers);
    await Promise.all(slots.filter(({ isRunning }) => isRunning).map(({ machine }) => machine.count()));
    return totalOf(slots.map(({ machine }) => machine.used));
  }

  async traffic(): Promise<Traffic> {
    const counters = await this.#links.counters();
    const sum = (of: (each: (typeof counters)[number]) => number) =>
      counters.reduce((total, each) => total + of(each), 0);
    return { sent: sum(({ bytesThere }) => bytesThere), received: sum(({ bytesBack }) => bytesBack) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#slots.map(slot => slot[Symbol.asyncDispose]()));
    await this.#links[Symbol.asyncDispose]();
    await this.#namespaces?.[Symbol.asyncDispose]();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #begin(event: FaultEvent, worker: number, slot: Slot): Promise<void> {
    switch (event.kind) {
      case 'kill':
        await slot.machine.count();
        if (event.midRequest) this.#midRequest.arm({ worker, pid: slot.pid, action: 'kill' });
        else await slot.workers.kill(0);
        return;
      case 'pause':
        if (event.midRequest) this.#midRequest.arm({ worker, pid: slot.pid, action: 'pause' });
        else slot.workers.pause(0);
        return;
      case 'restart':
        await slot.machine.count();
        // In the background: requests go on meanwhile.
        this.#restarts.set(
          worker,
          slot.workers.close().then(() => this.#revive(slot)),
        );
        return;
      case 'slow':
        return slot.prepare(this.#device, this.#seed + worker, event.factor);
      case 'stalls':
      case 'loss':
        return this.#links.set(worker, { kind: 'stall', ms: event.ms });
      case 'partition':
        return this.#links.set(worker, { kind: 'hole', direction: 'back' });
      case 'corrupt':
        return this.#links.set(worker, { kind: 'corrupt', seed: event.seed, inPayload: true, direction: 'back' });
    }
  }

  async #end(kind: FaultEvent['kind'], worker: number, slot: Slot): Promise<void> {
    if (kind === 'kill') await this.#revive(slot);
    else if (kind === 'restart') await this.#restarts.get(worker);
    else if (kind === 'pause') slot.workers.resume(0);
    else if (kind === 'slow') await slot.prepare(this.#device, this.#seed + worker);
    else if (kind === 'partition' || kind === 'corrupt') await this.#links.set(worker, { kind: 'forward' });
  }

  async #revive(slot: Slot): Promise<void> {
    await slot.start();
    await slot.prepare(this.#device, this.#seed + slot.index);
    await this.#links.aim(slot.index, slot.address);
  }
}

/** One machine: a process, and when that is gone the next. */
class Slot implements AsyncDisposable {
  readonly index: number;
  readonly machine = new Machine();
  readonly #folder: string;
  readonly #namespaces: NetworkNamespaces | undefined;
  #workers: LocalWorkers | undefined;
  #quota: CpuQuota | undefined;

  constructor(index: number, folder: string, namespaces: NetworkNamespaces | undefined) {
    this.index = index;
    this.#folder = folder;
    this.#namespaces = namespaces;
  }

  get workers(): LocalWorkers {
    return this.#workers!;
  }

  get address(): string {
    return this.workers.addresses[0]!;
  }

  get pid(): number {
    return this.workers.pidOf(0) ?? -1;
  }

  get isRunning(): boolean {
    return this.#workers?.pidOf(0) !== undefined;
  }

  async start(signal?: AbortSignal): Promise<void> {
    await this.#dropQuota();
    await this.#workers?.close();
    const namespaces = this.#namespaces;
    this.#workers = await startLocalWorkers(1, {
      dataDir: this.#folder,
      extraArgs: ['--allow-faults', '--max-queue', String(MAX_QUEUE)],
      ...(namespaces === undefined
        ? {}
        : { listen: () => `${namespaces.address(this.index)}:0`, command: () => namespaces.command(this.index) }),
      ...(signal === undefined ? {} : { signal }),
    });
    await this.machine.connect(this.address);
  }

  async prepare(device: DeviceSetup, seed: number, slowFactor = 1): Promise<void> {
    if (device.kind === 'quota') {
      this.#quota ??= CpuQuota.open(this.pid, device.cpus);
      this.#quota.set(device.cpus / slowFactor);
      await this.machine.set({ seed });
    } else {
      await this.#dropQuota();
      await this.machine.set({ seed, ...settingsOf(device), slowFactor });
    }
  }

  async #dropQuota(): Promise<void> {
    await this.#quota?.[Symbol.asyncDispose]();
    this.#quota = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.machine[Symbol.asyncDispose]();
    await this.#dropQuota();
    await this.#workers?.close();
  }
}
