/** What Node tells of this process: processor, memory, files, garbage collection, the delay of the event loop. */
import { collectDefaultMetrics, Registry } from 'prom-client';

let registry: Registry | undefined;

/** One for the process: it measures as long as the process lives. */
export function processMetrics(): Registry {
  if (registry === undefined) {
    registry = new Registry();
    collectDefaultMetrics({ register: registry });
  }
  return registry;
}
