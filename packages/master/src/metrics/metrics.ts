/** What a cluster tells Prometheus: docs/metrics.md has it as a table. request-metrics.ts is its part of requests and layers. */
import { counterOf, gaugeOf, processMetrics, type Sample } from '@kofn/wire/metrics';
import { Registry } from 'prom-client';
import type { Cluster, Standing } from '../fleet/cluster.js';
import type { Connection } from '../fleet/connection.js';
import { EVENT_KINDS, type EventKind } from '../fleet/events.js';
import { RequestMetrics } from './request-metrics.js';

const WORKER = ['worker', 'address'] as const;

/** Of `cluster` and the `models` that stand on it. Counts requests from now on. */
export function clusterMetrics(cluster: Cluster, models: Iterable<Standing>): Registry {
  const registry = Registry.merge([processMetrics()]);
  const requests = new RequestMetrics(registry, () => new Set([...models].map(({ name }) => name)));
  cluster.onRequest(end => requests.ended(end));
  gaugeOf(registry, {
    name: 'kofn_requests_in_flight',
    help: 'Requests under way on the cluster',
    read: () => [[{}, cluster.load.inFlight]],
  });
  gaugeOf(registry, {
    name: 'kofn_requests_in_flight_limit',
    help: 'Requests that may be under way at once; more are refused (maxInFlight)',
    read: () => [[{}, cluster.load.maxInFlight]],
  });
  layerMetrics(registry, models);
  workerMetrics(registry, cluster);
  fleetMetrics(registry, cluster);
  return registry;
}

function layerMetrics(registry: Registry, models: Iterable<Standing>): void {
  gaugeOf(registry, {
    name: 'kofn_layer_margin',
    help: 'Blocks of the layer that may still be lost before workers alone cannot answer',
    labelNames: ['model', 'layer'],
    read: () =>
      [...models].flatMap(model =>
        model.health().layers.map(({ layer, margin }): Sample => [{ model: model.name, layer }, margin]),
      ),
  });
  counterOf(registry, {
    name: 'kofn_audits_total',
    help: "Requests whose audit is over, by what became of it (verify: 'audit')",
    labelNames: ['model', 'outcome'],
    read: () =>
      [...models].flatMap(model =>
        Object.entries(model.audits()).map(([outcome, count]): Sample => [{ model: model.name, outcome }, count]),
      ),
  });
}

/** As the master sees them; one that was removed from the cluster is left out. */
function workerMetrics(registry: Registry, { connections }: Cluster): void {
  const there = () => connections.filter(({ state }) => state.kind !== 'removed');
  const labelsOf = ({ index: worker, address }: Connection) => ({ worker, address });
  const samples = (valueOf: (connection: Connection) => number | boolean | null) => (): Sample[] =>
    there().flatMap(connection => {
      const value = valueOf(connection);
      return value === null ? [] : [[labelsOf(connection), Number(value)]];
    });
  const gauge = (name: string, help: string, valueOf: (connection: Connection) => number | boolean | null) =>
    gaugeOf(registry, { name, help, labelNames: WORKER, read: samples(valueOf) });
  const counter = (name: string, help: string, valueOf: (connection: Connection) => number) =>
    counterOf(registry, { name, help, labelNames: WORKER, read: samples(valueOf) });

  gauge('kofn_worker_ready', 'Whether the worker is ready: 1 or 0', ({ state }) => state.kind === 'ready');
  gauge(
    'kofn_worker_quarantined',
    'Whether the worker is given no calls because its replies were none, or wrong: 1 or 0',
    ({ state }) => state.kind === 'quarantined',
  );
  gauge('kofn_worker_straggler', 'Whether the worker is a straggler: 1 or 0', ({ speed }) => speed.isStraggler);
  gauge(
    'kofn_worker_macs_per_second',
    'Multiply-accumulates a second of its median run of the last minutes',
    ({ speed }) => speed.view.macsPerSecond,
  );
  gauge('kofn_worker_round_trip_seconds', 'Median round trip of the last minutes', ({ speed }) => {
    const { rttMs } = speed.view;
    return rttMs === null ? null : rttMs / 1000;
  });
  gauge(
    'kofn_worker_bytes_per_second',
    'Rate of the link by its median large call of the last minutes',
    ({ speed }) => speed.view.bytesPerSecond,
  );
  counter('kofn_worker_arrivals_total', 'Replies of the worker that were verified', ({ tally }) => tally.arrivals);
  counter(
    'kofn_worker_missed_calls_total',
    'Calls that the worker had not answered when others had',
    ({ tally }) => tally.missed,
  );
  counter(
    'kofn_worker_late_replies_total',
    'Replies that came after their request was over; they are dropped',
    ({ lateReplies }) => lateReplies,
  );
  counter(
    'kofn_worker_reconnects_total',
    'Links to the worker that were made anew after the one before was lost',
    ({ tally }) => tally.reconnects,
  );
  counter(
    'kofn_worker_wrong_answers_total',
    'Replies that were wrong by the computation of the master',
    ({ trust }) => trust.wrongAnswers,
  );
  counter(
    'kofn_worker_false_alarms_total',
    'Replies that failed their check and were right',
    ({ trust }) => trust.falseAlarms,
  );
  counterOf(registry, {
    name: 'kofn_worker_erasures_total',
    help: 'Failed calls to the worker, by code',
    labelNames: [...WORKER, 'code'],
    read: () =>
      there().flatMap(connection =>
        [...connection.tally.erasures].map(([code, count]): Sample => [{ ...labelsOf(connection), code }, count]),
      ),
  });
}

function fleetMetrics(registry: Registry, cluster: Cluster): void {
  const counts = new Map<EventKind, number>(EVENT_KINDS.map(kind => [kind, 0]));
  const count = ({ kind }: { kind: EventKind }) => void counts.set(kind, counts.get(kind)! + 1);
  cluster.events.forEach(count);
  cluster.onEvent(count);
  counterOf(registry, {
    name: 'kofn_events_total',
    help: 'Changes of the fleet by kind, as in cluster.events',
    labelNames: ['kind'],
    read: () => [...counts].map(([kind, total]) => [{ kind }, total]),
  });
  counterOf(registry, {
    name: 'kofn_verification_failures_total',
    help: 'Replies that failed their fingerprint, and audits of requests that failed',
    labelNames: ['check'],
    read: () => [
      [{ check: 'fingerprint' }, sum(cluster.connections, ({ tally }) => tally.erasures.get('WRONG_ANSWER') ?? 0)],
      [{ check: 'audit' }, counts.get('audit-failed')!],
    ],
  });
}

function sum(connections: readonly Connection[], of: (connection: Connection) => number): number {
  return connections.reduce((total, each) => total + of(each), 0);
}
