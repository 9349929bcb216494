/**
 * One machine as a run sees it: its fault control, and what it has used, over all processes that a worker is one after the other.
 *
 * Invariant: what a process has used is added up before its counters begin anew or it is killed.
 */
import { FaultControl, type FaultAction, type FaultSettings } from './fault-control.js';
import type { DeviceSetup, Usage } from './fleet.js';

export class Machine implements AsyncDisposable {
  #control: FaultControl | undefined;
  #used: Usage = { cpuMs: 0, busyMs: 0 };
  /** Of the process there is now, as of when `#used` was added up last. */
  #counted: Usage = { cpuMs: 0, busyMs: 0 };

  /** To a process that has just started, or that nobody asked before. Throws UNAVAILABLE, PERMISSION_DENIED. */
  async connect(address: string): Promise<void> {
    await this.#control?.[Symbol.asyncDispose]();
    this.#control = undefined; // stays so when nobody answers
    this.#control = await FaultControl.connect(address);
    this.#counted = await this.#control.status();
  }

  async set(settings: FaultSettings): Promise<void> {
    await this.count();
    await this.#control!.set(settings);
    this.#counted = { ...this.#counted, busyMs: 0 };
  }

  act(action: FaultAction): Promise<void> {
    return this.#control!.act(action);
  }

  /** Adds up what the process has used since it was counted last, and returns all. */
  async count(): Promise<Usage> {
    const now = await this.#control!.status();
    this.#used = {
      cpuMs: this.#used.cpuMs + now.cpuMs - this.#counted.cpuMs,
      busyMs: this.#used.busyMs + now.busyMs - this.#counted.busyMs,
    };
    this.#counted = now;
    return this.#used;
  }

  /** What was counted. */
  get used(): Usage {
    return this.#used;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#control?.[Symbol.asyncDispose]();
    this.#control = undefined;
  }
}

export function settingsOf(device: DeviceSetup): FaultSettings {
  if (device.kind !== 'stated') return {};
  return { device: { gflops: device.gflops, overheadMs: device.overheadMs, replay: !device.arithmetic } };
}

export function totalOf(usages: readonly Usage[]): Usage {
  const sum = (of: (usage: Usage) => number) => usages.reduce((total, usage) => total + of(usage), 0);
  return { cpuMs: sum(({ cpuMs }) => cpuMs), busyMs: sum(({ busyMs }) => busyMs) };
}
