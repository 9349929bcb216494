/**
 * What this worker counts, for Prometheus: docs/metrics.md has it as a table. Values are read from where they are kept when a scrape asks;
 * only times are observed as they pass.
 */
import type { RequestQueue } from '@kofn/wire';
import { counterOf, gaugeOf } from '@kofn/wire/metrics';
import { Histogram, Registry } from 'prom-client';
import type { Executor } from '../inference/executor.js';
import type { ShardStore } from '../store/shard-store.js';

const DURATIONS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

export interface MeasuredWorker {
  readonly queue: RequestQueue;
  readonly executor: Executor;
  readonly store: ShardStore;
  readonly isReady: boolean;
}

export function workerMetrics(worker: MeasuredWorker): Registry {
  const { queue, executor, store } = worker;
  const registry = new Registry();
  counterOf(registry, {
    name: 'kofn_worker_requests_total',
    help: 'Requests by what became of them in the queue',
    labelNames: ['outcome'],
    read() {
      const { started, finished, cancelledBeforeStart, expiredBeforeStart, refused } = queue.counters;
      const outcomes = { started, finished, cancelledBeforeStart, expiredBeforeStart, refused };
      return Object.entries(outcomes).map(([outcome, count]) => [{ outcome }, count]);
    },
  });
  counterOf(registry, {
    name: 'kofn_worker_sessions_total',
    help: 'Sessions opened and closed',
    labelNames: ['event'],
    read: () => Object.entries(executor.counters).map(([event, count]) => [{ event }, count as number]),
  });
  const gauge = (name: string, help: string, read: () => number) =>
    gaugeOf(registry, { name, help, read: () => [[{}, read()]] });
  gauge('kofn_worker_serving', 'Whether it takes requests and its engine is not stuck: 1 or 0', () =>
    worker.isReady ? 1 : 0,
  );
  gauge('kofn_worker_queue_waiting', 'Requests that wait for the engine', () => queue.waiting);
  gauge('kofn_worker_queue_limit', 'Requests that may wait; more are refused (--max-queue)', () => queue.maxWaiting);
  gauge('kofn_worker_session_bytes', 'Estimated memory of the open sessions', () => executor.usedBytes);
  gauge(
    'kofn_worker_session_limit_bytes',
    'What open sessions may take (--max-memory)',
    () => executor.memoryLimitBytes,
  );
  gauge('kofn_worker_shard_bytes', 'Bytes of the shards held', () => store.diskUsedBytes);
  gauge('kofn_worker_shard_limit_bytes', 'What shards may take on disk (--max-disk)', () => store.diskLimitBytes);
  gauge('kofn_worker_shard_claims', 'Claims on the shards held, those without an owner included', () => store.claims);
  return registry;
}

/** Counts in `registry` how long inferences waited and ran. */
export function inferenceTimes(registry: Registry): (queueMs: number, engineMs: number) => void {
  const histogram = (name: string, help: string) =>
    new Histogram({ name, help, buckets: DURATIONS, registers: [registry] });
  const queue = histogram('kofn_worker_queue_duration_seconds', 'Wait of the inferences that ran for their turn');
  const engine = histogram('kofn_worker_engine_duration_seconds', 'Time of inferences in the engine');
  return (queueMs, engineMs) => {
    queue.observe(queueMs / 1000);
    engine.observe(engineMs / 1000);
  };
}
