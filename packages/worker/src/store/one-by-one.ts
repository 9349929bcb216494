/** Work on one name at a time: what is given for a name begins when all that was given for it before has ended. */
export class OneByOne {
  /** The end of the work given last, by name; it never rejects. */
  readonly #last = new Map<string, Promise<void>>();

  /** What `work` returns or throws; the failure of one work is nothing to the next. */
  run<T>(name: string, work: () => Promise<T>): Promise<T> {
    const result = (this.#last.get(name) ?? Promise.resolve()).then(work);
    const end = () => {
      if (this.#last.get(name) === ended) this.#last.delete(name);
    };
    const ended: Promise<void> = result.then(end, end);
    this.#last.set(name, ended);
    return result;
  }

  /** Resolves when nothing is left to do. */
  async idle(): Promise<void> {
    while (this.#last.size > 0) await Promise.all(this.#last.values());
  }
}
