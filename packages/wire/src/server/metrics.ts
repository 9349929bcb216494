/** What master and worker both tell Prometheus with: the metrics of the process, and metrics whose values are kept elsewhere. */
import { collectDefaultMetrics, Counter, Gauge, Registry, type LabelValues } from 'prom-client';

let ofProcess: Registry | undefined;

/**
 * What Node tells of this process: processor, memory, files, garbage collection, the delay of the event loop. One for the process,
 * however many clusters it has: it measures as long as the process lives.
 */
export function processMetrics(): Registry {
  if (ofProcess === undefined) {
    ofProcess = new Registry();
    collectDefaultMetrics({ register: ofProcess });
  }
  return ofProcess;
}

export type Sample = readonly [labels: LabelValues<string>, value: number];

/** Read when a scrape asks: counting costs a request nothing. */
export interface Metric {
  readonly name: string;
  readonly help: string;
  readonly labelNames?: readonly string[];
  /** All of it as it is now. */
  readonly read: () => Iterable<Sample>;
}

export function counterOf(registry: Registry, metric: Metric): void {
  new Counter(readingFrom(registry, metric));
}

export function gaugeOf(registry: Registry, metric: Metric): void {
  new Gauge(readingFrom(registry, metric));
}

function readingFrom(registry: Registry, { name, help, labelNames = [], read }: Metric) {
  return {
    name,
    help,
    labelNames: [...labelNames],
    registers: [registry],
    collect(this: { reset(): void; inc(labels: LabelValues<string>, value: number): void }) {
      this.reset();
      for (const [labels, value] of read()) this.inc(labels, value);
    },
  };
}
