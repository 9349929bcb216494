/** Signals of a server: the first ends it in order, once more ends it at once. */
import { constants } from 'node:os';
import { KofnError, openController, type Signal } from '@kofn/core';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export class Stopping implements Disposable {
  readonly #controller = openController();
  readonly #listeners = SIGNALS.map(name => ({ name, listener: () => this.#stop(name) }));
  /** The signal that came; resolves with the first. */
  readonly asked: Promise<(typeof SIGNALS)[number]>;
  #ask!: (name: (typeof SIGNALS)[number]) => void;
  #exitCode: number | undefined;

  constructor() {
    this.asked = new Promise(resolve => (this.#ask = resolve));
    for (const { name, listener } of this.#listeners) process.on(name, listener);
  }

  /** Aborts with CANCELLED at the first. */
  get signal(): Signal {
    return this.#controller.signal;
  }

  /** 128 + the signal's number, as shells have it; undefined when none came. */
  get exitCode(): number | undefined {
    return this.#exitCode;
  }

  [Symbol.dispose](): void {
    for (const { name, listener } of this.#listeners) process.off(name, listener);
  }

  #stop(name: (typeof SIGNALS)[number]): void {
    const code = 128 + constants.signals[name];
    if (this.#exitCode !== undefined) process.exit(code);
    this.#exitCode = code;
    this.#controller.abort(new KofnError('CANCELLED', `stopped by ${name}`));
    this.#ask(name);
  }
}
