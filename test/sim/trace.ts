/** What happened in a simulation, line by line with its time: to be read by people, and compared by its hash. */
import { createHash } from 'node:crypto';
import type { Clock } from '@kofn/core';

export class Trace {
  readonly lines: string[] = [];
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(who: string, what: string): void {
    this.lines.push(`${this.#clock.now().toFixed(3).padStart(12)} ms  ${who.padEnd(10)} ${what}`);
  }

  /** SHA-256 of the lines, hexadecimal. */
  hash(): string {
    return createHash('sha256').update(this.lines.join('\n')).digest('hex');
  }
}
