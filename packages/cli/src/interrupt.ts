/**
 * Ctrl-C and friends: the first signal ends the command in order (workers stopped, temporary files removed), the second
 * at once. local-workers.ts kills what is left when the process exits.
 */
import { setMaxListeners } from 'node:events';
import { constants } from 'node:os';
import { KofnError } from '@kofn/core';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export class Interrupt implements Disposable {
  readonly #controller = new AbortController();
  readonly #listeners = SIGNALS.map(name => ({ name, listener: () => this.#interrupt(name) }));
  #exitCode: number | undefined;

  constructor() {
    setMaxListeners(0, this.#controller.signal); // every request of a command may wait for it
    for (const { name, listener } of this.#listeners) process.on(name, listener);
  }

  /** Aborts with CANCELLED at the first signal. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** 128 + the signal's number, as shells do (130 for Ctrl-C); undefined when there was none. */
  get exitCode(): number | undefined {
    return this.#exitCode;
  }

  [Symbol.dispose](): void {
    for (const { name, listener } of this.#listeners) process.off(name, listener);
  }

  #interrupt(name: (typeof SIGNALS)[number]): void {
    const code = 128 + constants.signals[name];
    if (this.#exitCode !== undefined) process.exit(code);
    this.#exitCode = code;
    this.#controller.abort(new KofnError('CANCELLED', `interrupted by ${name}`));
  }
}
