/** docs/metrics.md is what is exported, and rules and dashboard ask for nothing else. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { serverMetrics } from '@kofn/master/serve';
import { endpointMetrics, startWorker, type RunningWorker } from '@kofn/worker';
import { connect, type Cluster } from 'kofn';
import { after, before, describe, it } from 'mocha';

const ROOT = new URL('../../', import.meta.url);
const SECTIONS = ['Master', 'Server', 'Worker', 'Process'] as const;

type Registry = Awaited<ReturnType<Cluster['metrics']>>;

interface Row {
  readonly name: string;
  readonly type: string;
  readonly labels: string;
  readonly help: string;
}

function read(file: string): string {
  return readFileSync(new URL(file, ROOT), 'utf8');
}

function exportedBy(registry: Registry): Row[] {
  const metrics = registry.getMetricsAsArray() as unknown as (Omit<Row, 'labels'> & { labelNames: string[] })[];
  return metrics.map(({ name, type, labelNames, help }) => ({ name, type, labels: labelNames.join(', '), help }));
}

/** The table of a section. */
function documentedIn(section: string): Row[] {
  const [, text] = new RegExp(`^## ${section}$(.*?)(?=^## |$(?![^]))`, 'ms').exec(read('docs/metrics.md')) ?? [];
  const rows = [...(text ?? '').matchAll(/^\| `(\w+)` +\| (\w+) +\| ([^|]*?) *\| ([^|]*?) *\|$/gm)];
  return rows.map(([, name, type, labels, help]) => ({
    name: name!,
    type: type!,
    labels: labels!.replaceAll('`', ''),
    help: help!,
  }));
}

describe('docs/metrics.md', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-metrics-'));
  let worker: RunningWorker;
  let cluster: Cluster;
  let exported: Readonly<Record<(typeof SECTIONS)[number], Row[]>>;

  before(async () => {
    worker = await startWorker({ listen: '127.0.0.1:0', dataDir: folder });
    cluster = await connect({ workers: [worker.address] });
    const nobody = {
      cluster,
      models: () => [],
      load: () => ({ queued: 0, running: 0 }),
      onEnded: () => () => undefined,
    };
    const isProcess = ({ name }: Row) => /^(process|nodejs)_/.test(name);
    const master = exportedBy(await cluster.metrics());
    const own = exportedBy(endpointMetrics(worker.server.metrics, worker.dataDir));
    const process = master.filter(isProcess);
    assert.deepEqual(own.filter(isProcess), process);
    exported = {
      Master: master.filter(row => !isProcess(row)),
      Server: exportedBy(serverMetrics(nobody).registry),
      Worker: own.filter(row => !isProcess(row)),
      Process: process,
    };
  });

  after(async () => {
    await cluster?.close();
    await worker?.close();
    rmSync(folder, { recursive: true });
  });

  for (const section of SECTIONS) {
    it(`has every metric of section ${section}, with its type, labels and help`, () => {
      assert.deepEqual(documentedIn(section), exported[section]);
    });
  }

  it('is all that rules and dashboards ask for', () => {
    const rows = Object.values(exported).flat();
    const names = new Set(
      rows.flatMap(({ name, type }) =>
        type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
      ),
    );
    for (const file of [
      'deploy/prometheus/rules.yml',
      'deploy/prometheus/rules.test.yml',
      'deploy/grafana/dashboard.json',
    ]) {
      const asked = [...read(file).matchAll(/\b(?:kofn|nodejs|process)_\w+/g)].map(([name]) => name);
      assert.ok(asked.length > 10, file);
      assert.deepEqual(
        asked.filter(name => !names.has(name)),
        [],
        file,
      );
    }
    assert.deepEqual(readdirSync(new URL('deploy/prometheus', ROOT)).sort(), [
      'prometheus.yml',
      'rules.test.yml',
      'rules.yml',
    ]);
  });
});
