/** No worker's sessions hold more than its limit at any time. */
import type { Machine } from '../machine.js';
import type { Violation } from './request.js';

export class MemoryCheck {
  readonly violations: Violation[] = [];

  onMemory = ({ name, limits }: Machine, usedBytes: number): void => {
    if (usedBytes <= limits.memoryBytes) return;
    this.violations.push(`${name} holds ${usedBytes} bytes of sessions, its limit is ${limits.memoryBytes}`);
  };
}
