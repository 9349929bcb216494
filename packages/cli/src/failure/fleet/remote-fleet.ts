/**
 * A real cluster: workers that were started with `--allow-faults`, whose faults are brought about by a call to them. Links are what
 * they are, and so are devices unless a cell states one.
 *
 * Invariants
 * 1. When the fleet is disposed every worker that is reached has no fault and the device it had.
 */
import { KofnError, openScope, sleep, systemClock } from '@kofn/core';
import type { FaultSettings } from './fault-control.js';
import type { FaultEvent } from './fault-plan.js';
import type { BenchFleet, DeviceSetup, Usage } from './fleet.js';
import { Machine, settingsOf, totalOf } from './machine.js';

/** Until a worker that was killed is back: whoever watches it there (systemd, Kubernetes) starts it. */
const RETURN_MS = 120_000;
const RETRY_MS = 500;

export class RemoteFleet implements BenchFleet {
  readonly addresses: readonly string[];
  readonly hooks = {};
  readonly #hosts: Host[];
  #workers = 0;
  #settings: FaultSettings = { seed: 0 };

  /** Throws UNAVAILABLE (nobody there), PERMISSION_DENIED (a worker without --allow-faults), naming the host. */
  static async open(addresses: readonly string[]): Promise<RemoteFleet> {
    const hosts = addresses.map(address => new Host(address));
    const fleet = new RemoteFleet(addresses, hosts);
    try {
      await Promise.all(hosts.map(host => host.open()));
      return fleet;
    } catch (error) {
      await fleet[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(addresses: readonly string[], hosts: Host[]) {
    this.addresses = addresses;
    this.#hosts = hosts;
  }

  get hosts(): readonly string[] {
    return this.addresses;
  }

  async prepare(workers: number, device: DeviceSetup, seed: number): Promise<void> {
    this.#workers = workers;
    this.#settings = { seed, ...settingsOf(device) };
    await Promise.all(
      this.#hosts.map(async (host, index) => {
        if (host.isKilled) await host.untilBack();
        await host.set({ ...this.#settings, seed: seed + index });
      }),
    );
  }

  async shape(): Promise<void> {
    // The network is what it is.
  }

  async begin({ kind, midRequest, workers, ms, factor }: FaultEvent): Promise<void> {
    for (const worker of workers) {
      const host = this.#hosts[worker]!;
      switch (kind) {
        case 'kill':
          await host.kill(midRequest);
          break;
        case 'pause':
          // It goes on by itself: a process that stands still takes no orders.
          await host.act(midRequest ? { kind: 'pauseOnNext', ms } : { kind: 'pause', ms });
          break;
        case 'slow':
          await host.set({ ...this.#settings, slowFactor: factor });
          break;
        case 'stalls':
          await host.set({ ...this.#settings, stall: { rate: 1, minMs: ms, maxMs: ms } });
          break;
        case 'loss':
          await host.set({ ...this.#settings, dropRate: 1 });
          break;
        case 'corrupt':
          await host.set({ ...this.#settings, corruptRate: 1 });
          break;
        case 'restart':
        case 'partition':
          throw new KofnError('UNSUPPORTED', `fault ${kind}: cannot be brought about on a real cluster`);
      }
    }
  }

  settle(): Promise<null> {
    return Promise.resolve(null);
  }

  async end({ kind, workers }: FaultEvent): Promise<void> {
    for (const worker of workers) {
      const host = this.#hosts[worker]!;
      if (kind === 'kill') await host.untilBack();
      if (kind !== 'pause') await host.set(this.#settings);
    }
  }

  async usage(): Promise<Usage> {
    const hosts = this.#hosts.slice(0, this.#workers);
    await Promise.all(hosts.filter(({ isKilled }) => !isKilled).map(host => host.count()));
    return totalOf(hosts.map(({ used }) => used));
  }

  traffic(): Promise<null> {
    return Promise.resolve(null);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#hosts.map(host => host.set({ seed: 0 })));
    await Promise.allSettled(this.#hosts.map(host => host[Symbol.asyncDispose]()));
  }
}

/** A machine that is somewhere, at one address. */
class Host extends Machine {
  isKilled = false;
  readonly #address: string;

  constructor(address: string) {
    super();
    this.#address = address;
  }

  /** Throws what `Machine.connect` does, naming the host. */
  async open(): Promise<void> {
    try {
      await this.connect(this.#address);
    } catch (cause) {
      const error = KofnError.from(cause);
      throw new KofnError(error.code, `worker ${this.#address}: ${error.message}`, { cause });
    }
  }

  async kill(onNext: boolean): Promise<void> {
    await this.count();
    this.isKilled = true;
    await this.act({ kind: onNext ? 'killOnNext' : 'kill' });
  }

  /** Resolves when a worker answers there again. Throws DEADLINE_EXCEEDED. */
  async untilBack(): Promise<void> {
    const what = `return of worker ${this.#address}, which something there has to start again (systemd: Restart=always)`;
    using scope = openScope(systemClock, { deadlineMs: RETURN_MS, what });
    for (;;) {
      try {
        await this.open();
        this.isKilled = false;
        return;
      } catch {
        await sleep(systemClock, RETRY_MS, scope.signal);
      }
    }
  }
}
