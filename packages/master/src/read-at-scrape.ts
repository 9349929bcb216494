/** Metrics whose values are kept elsewhere and read when a scrape asks: counting them then costs a request nothing. */
import { Counter, Gauge, type LabelValues, type Registry } from 'prom-client';

export type Sample = readonly [labels: LabelValues<string>, value: number];

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
