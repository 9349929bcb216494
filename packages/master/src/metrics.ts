/** What a cluster tells Prometheus. Values are read from where they are kept when a scrape asks. */
import { Gauge, Registry } from 'prom-client';
import type { Standing } from './cluster.js';
import type { WorkerView } from './fleet.js';

export interface Measured {
  readonly workers: readonly WorkerView[];
  readonly models: Iterable<Standing>;
}

export function clusterMetrics(read: () => Measured): Registry {
  const registry = new Registry();
  const registers = [registry];
  const perWorker = (name: string, help: string, valueOf: (worker: WorkerView) => number | null) =>
    new Gauge({
      name,
      help,
      labelNames: ['worker', 'address'],
      registers,
      collect() {
        this.reset();
        for (const each of read().workers) {
          const value = valueOf(each);
          if (value !== null) this.set({ worker: each.index, address: each.address }, value);
        }
      },
    });
  perWorker('kofn_worker_ready', 'Whether the worker is ready: 1 or 0', ({ state }) => (state === 'ready' ? 1 : 0));
  perWorker('kofn_worker_straggler', 'Whether the worker is a straggler: 1 or 0', ({ speed }) =>
    speed.isStraggler ? 1 : 0,
  );
  perWorker(
    'kofn_worker_macs_per_second',
    'Multiply-accumulates a second of its median run of the last minutes',
    ({ speed }) => speed.macsPerSecond,
  );
  perWorker('kofn_worker_round_trip_seconds', 'Median round trip of the last minutes', ({ speed }) =>
    speed.rttMs === null ? null : speed.rttMs / 1000,
  );
  perWorker(
    'kofn_worker_bytes_per_second',
    'Rate of the link by its median large call of the last minutes',
    ({ speed }) => speed.bytesPerSecond,
  );
  new Gauge({
    name: 'kofn_layer_margin',
    help: 'Blocks of the layer that may still be lost before workers alone cannot answer',
    labelNames: ['model', 'layer'],
    registers,
    collect() {
      this.reset();
      for (const model of read().models) {
        for (const { layer, margin } of model.health().layers) this.set({ model: model.name, layer }, margin);
      }
    },
  });
  return registry;
}
