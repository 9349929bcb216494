import type { LinkConfig } from './config-schema.js';
import type { LinkShape } from '../links/shape.js';
import { readTrace } from '../links/trace.js';

/** The shape of a link as a config has it; a rate by tbf is the kernel's part. Throws as `readTrace`. */
export async function shapeOf({ trace, rateBy, megabitsPerSecond, ...rest }: LinkConfig): Promise<LinkShape> {
  return {
    ...rest,
    megabitsPerSecond: rateBy === 'proxy' ? megabitsPerSecond : undefined,
    trace: trace === undefined ? undefined : await readTrace(trace),
  };
}
