/** What asks a server to stop: the first signal, or the end of npx, ends it in order, one more signal at once. */
import { KofnError, openController, type Signal } from '@kofn/core';
import { StopRequests, type StopRequest } from '@kofn/worker/stop-requests';

export class Stopping implements Disposable {
  readonly #controller = openController();
  readonly #requests = new StopRequests(
    request => this.#stop(request),
    ({ exitCode }) => process.exit(exitCode),
  );
  /** What asked first. */
  readonly asked: Promise<StopRequest>;
  #ask!: (request: StopRequest) => void;
  #exitCode: number | undefined;

  constructor() {
    this.asked = new Promise(resolve => (this.#ask = resolve));
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
    this.#requests[Symbol.dispose]();
  }

  #stop(request: StopRequest): void {
    this.#exitCode = request.exitCode;
    this.#controller.abort(new KofnError('CANCELLED', `stopped: ${request.reason}`));
    this.#ask(request);
  }
}
