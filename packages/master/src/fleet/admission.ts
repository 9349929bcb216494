/** How many requests are under way on a cluster: no more than `maxInFlight`, and none that is new once it drains. */
import { KofnError } from '@kofn/core';

export class Admission {
  readonly maxInFlight: number;
  readonly #idle: (() => void)[] = [];
  #inFlight = 0;
  #isDraining = false;

  constructor(maxInFlight: number) {
    this.maxInFlight = maxInFlight;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Throws UNAVAILABLE while it drains, and ever after. */
  assertOpen(): void {
    if (!this.#isDraining) return;
    throw new KofnError(
      'UNAVAILABLE',
      'this master is shutting down and takes nothing new; ask another, or it again later',
    );
  }

  /** One more request, until it is disposed. Throws RESOURCE_EXHAUSTED: to wait is the caller's decision. */
  admit(): Disposable {
    if (this.#inFlight >= this.maxInFlight) {
      throw new KofnError(
        'RESOURCE_EXHAUSTED',
        `${this.#inFlight} requests are under way on this cluster already; wait for one to end, or raise maxInFlight`,
      );
    }
    this.#inFlight++;
    return {
      [Symbol.dispose]: () => {
        if (--this.#inFlight === 0) for (const resolve of this.#idle.splice(0)) resolve();
      },
    };
  }

  /** Admits no more; resolves when those that were admitted have ended. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    if (this.#inFlight > 0) await new Promise<void>(resolve => this.#idle.push(resolve));
  }
}
