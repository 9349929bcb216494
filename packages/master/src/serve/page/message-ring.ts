/** The latest messages by number, so that a reader who lost the connection can go on where it was. */

export interface Message {
  readonly id: string;
  readonly data: string;
}

export class MessageRing {
  readonly #run: string;
  readonly #most: number;
  readonly #kept: string[] = [];
  /** Of the message that comes next. */
  #next = 0;

  /** `run` tells this ring's ids from those of another; no hyphens. At most `most` messages are kept. */
  constructor(run: string, most: number) {
    this.#run = run;
    this.#most = most;
  }

  /** Of the last message; of none before the first. */
  get lastId(): string {
    return this.#idOf(this.#next - 1);
  }

  add(data: string): Message {
    this.#kept.push(data);
    if (this.#kept.length > this.#most) this.#kept.shift();
    return { id: this.#idOf(this.#next++), data };
  }

  /** All after the message `id`, oldest first; undefined when some of them are gone, or it is none of this ring. */
  after(id: string): Message[] | undefined {
    const [run, digits = ''] = id.split('-');
    const number = /^\d{1,15}$/.test(digits) ? Number(digits) - 1 : NaN;
    const first = this.#next - this.#kept.length;
    if (run !== this.#run || !(number >= first - 1 && number < this.#next)) return undefined;
    const kept = this.#kept.slice(number + 1 - first);
    return kept.map((data, index) => ({ id: this.#idOf(number + 1 + index), data }));
  }

  /** Counted from 1, so that there is an id before the first message. */
  #idOf(number: number): string {
    return `${this.#run}-${number + 1}`;
  }
}
