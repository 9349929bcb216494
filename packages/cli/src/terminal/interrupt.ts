/**
 * Ctrl-C and friends: the first signal, or the end of npx, ends the command in order (workers stopped, temporary files removed), one more
 * signal at once. local-workers.ts kills what is left when the process exits.
 */
import { setMaxListeners } from 'node:events';
import { KofnError } from '@kofn/core';
import { StopRequests, type StopRequest } from '@kofn/worker/stop-requests';

export class Interrupt implements Disposable {
  readonly #controller = new AbortController();
  readonly #requests = new StopRequests(
    request => this.#interrupt(request),
    ({ exitCode }) => process.exit(exitCode),
  );
  #exitCode: number | undefined;

  constructor() {
    setMaxListeners(0, this.#controller.signal); // every request of a command may wait for it
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
    this.#requests[Symbol.dispose]();
  }

  #interrupt({ reason, exitCode }: StopRequest): void {
    this.#exitCode = exitCode;
    this.#controller.abort(new KofnError('CANCELLED', `interrupted: ${reason}`));
  }
}
