/** The latest times, as many as it was made for. */
export class RecentTimes {
  readonly #ring: Float64Array;
  #added = 0;
  /** Made when it is asked for. */
  #sorted: Float64Array | undefined;

  constructor(size: number) {
    this.#ring = new Float64Array(size);
  }

  get count(): number {
    return Math.min(this.#added, this.#ring.length);
  }

  add(ms: number): void {
    this.#ring[this.#added++ % this.#ring.length] = ms;
    this.#sorted = undefined;
  }

  /** The smallest time that so large a part of them does not exceed. NaN when there are none. */
  quantile(part: number): number {
    this.#sorted ??= this.#ring.slice(0, this.count).sort();
    return this.#sorted[Math.max(0, Math.ceil(part * this.count) - 1)] ?? NaN;
  }
}
