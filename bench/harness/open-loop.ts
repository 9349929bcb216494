/**
 * Requests at a fixed rate, whatever becomes of those before: a request that comes while others are late is late, too, as users see it.
 * Its time counts from when it was due.
 */
import { openScope, sleep, systemClock, KofnError, type Scope } from '@kofn/core';

export interface Timed {
  /** On the system clock. */
  readonly dueAt: number;
  readonly ms: number;
}

export class OpenLoop {
  /** Those that have ended. */
  readonly ended: Timed[] = [];
  readonly #request: () => Promise<unknown>;
  readonly #periodMs: number;
  readonly #stop: Scope = openScope(systemClock);
  readonly #underWay = new Set<Promise<void>>();
  readonly #running: Promise<void>;
  #failure: KofnError | undefined;
  #wake: () => void = () => undefined;

  constructor(request: () => Promise<unknown>, perSecond: number) {
    this.#request = request;
    this.#periodMs = 1000 / perSecond;
    this.#running = this.#run();
  }

  /** Resolves when `count` more have ended. Throws what a request threw. */
  async more(count: number): Promise<void> {
    const end = this.ended.length + count;
    while (this.ended.length < end) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>(resolve => (this.#wake = resolve));
    }
  }

  /** No more; resolves when the last has ended. Throws what a request threw. */
  async stop(): Promise<void> {
    this.#stop.abort(new KofnError('CANCELLED', 'enough'));
    await this.#running;
    await Promise.all(this.#underWay);
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    for (let dueAt = systemClock.now(); !signal.aborted; dueAt += this.#periodMs) {
      await sleep(systemClock, Math.max(0, dueAt - systemClock.now()), signal).catch(() => undefined);
      if (signal.aborted) return;
      const one = this.#one(dueAt).finally(() => {
        this.#underWay.delete(one);
        this.#wake();
      });
      this.#underWay.add(one);
    }
  }

  async #one(dueAt: number): Promise<void> {
    try {
      await this.#request();
      this.ended.push({ dueAt, ms: systemClock.now() - dueAt });
    } catch (error) {
      this.#failure ??= KofnError.from(error);
    }
  }
}
