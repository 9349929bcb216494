/** What this worker counts, for Prometheus. Values are read from where they are kept when a scrape asks. */
import { Counter, Gauge, Registry } from 'prom-client';
import type { RequestQueue } from '@kofn/wire';
import type { Executor } from './executor.js';
import type { ShardStore } from './shard-store.js';

export function workerMetrics(parts: { queue: RequestQueue; executor: Executor; store: ShardStore }): Registry {
  const { queue, executor, store } = parts;
  const registry = new Registry();
  const registers = [registry];
  new Counter({
    name: 'kofn_worker_requests_total',
    help: 'Requests by what became of them in the queue',
    labelNames: ['outcome'],
    registers,
    collect() {
      this.reset();
      const { started, finished, cancelledBeforeStart, expiredBeforeStart, refused } = queue.counters;
      const outcomes = { started, finished, cancelledBeforeStart, expiredBeforeStart, refused };
      for (const [outcome, count] of Object.entries(outcomes)) this.inc({ outcome }, count);
    },
  });
  new Counter({
    name: 'kofn_worker_sessions_total',
    help: 'Sessions opened and closed',
    labelNames: ['event'],
    registers,
    collect() {
      this.reset();
      for (const [event, count] of Object.entries(executor.counters)) this.inc({ event }, count as number);
    },
  });
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  gauge('kofn_worker_queue_waiting', 'Requests that wait for the engine', () => queue.waiting);
  gauge('kofn_worker_session_bytes', 'Estimated memory of the open sessions', () => executor.usedBytes);
  gauge('kofn_worker_shard_bytes', 'Bytes of the shards held', () => store.diskUsedBytes);
  gauge('kofn_worker_shard_claims', 'Claims on the shards held, those without an owner included', () => store.claims);
  return registry;
}
