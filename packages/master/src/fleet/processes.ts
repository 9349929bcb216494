/**
 * Which number each worker process is known by. One that two addresses lead to is one worker: it counts under the address that reached it
 * first, for as long as that link stands, and the other is a duplicate until it leads elsewhere.
 */

/** A worker as a cluster lists it. */
export interface ListedWorker {
  readonly index: number;
  readonly address: string;
}

export class Processes {
  readonly #workers = new Map<string, ListedWorker>();

  /** From now until `leave` the process is `worker`; returns as whom it is known already, if it is. */
  enter(processId: string, worker: ListedWorker): ListedWorker | undefined {
    if (processId === '') return undefined; // one that says none, which cannot be told from others
    const known = this.#workers.get(processId);
    if (known === undefined) this.#workers.set(processId, worker);
    return known;
  }

  leave(processId: string): void {
    this.#workers.delete(processId);
  }
}

export function sameProcess({ index, address }: ListedWorker): string {
  return `it is worker ${index} (${address}) under another name`;
}
