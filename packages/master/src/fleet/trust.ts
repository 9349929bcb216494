/** What is known of one worker's answers: how many of them were wrong, as found by verification.ts. Held by its connection. */

/** So many wrong answers, each confirmed, and a worker is left alone until it is released. */
const STRIKES = 2;

export class Trust {
  /** Replies that were wrong, confirmed by the master's own computation. */
  wrongAnswers = 0;
  /** Replies that failed their check and were right. */
  falseAlarms = 0;
  /** How often it was released: what was answered before says nothing of the worker after. */
  releases = 0;
  /** Since it was last released. */
  #strikes = 0;
  /** Why it is not to be believed any more. */
  #distrust: string | undefined;

  /** Replies that have been looked into. */
  get judged(): number {
    return this.wrongAnswers + this.falseAlarms;
  }

  get distrust(): string | undefined {
    return this.#distrust;
  }

  /** One more answer that failed its check: it was `wrong` (the answer to what), or right. */
  count(wrong: string | undefined): void {
    if (wrong === undefined) {
      this.falseAlarms++;
      return;
    }
    this.wrongAnswers++;
    this.#strikes++;
    if (this.#strikes >= STRIKES) this.#distrust ??= `answered wrong twice: ${wrong}`;
  }

  release(): void {
    this.releases++;
    this.#strikes = 0;
    this.#distrust = undefined;
  }
}
