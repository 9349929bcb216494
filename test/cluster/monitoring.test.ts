/** What a real Prometheus reads of a master and a worker is what the cluster did; its alerts and the dashboard ask for what is there. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { registerMetrics } from '@kofn/master/serve';
import { startWorker, type RunningWorker } from '@kofn/worker';
import { fastify, type FastifyInstance } from 'fastify';
import {
  codedModel,
  connect,
  type Cluster,
  type CodedModel,
  type LayerReport,
  type RunReport,
  type Tensors,
} from 'kofn';
import { loadDemoData } from 'kofn/measure';
import { after, before, describe, it } from 'mocha';
import { needDebian } from '../support/debian.js';
import { untilLost } from '../support/dense-layer.js';
import { keptWorkers, type KeptWorkers } from '../support/kept-workers.js';
import { hasPrometheus, Prometheus } from '../support/prometheus.js';
import { SmallServer } from '../support/small-server.js';

const DEPLOY = fileURLToPath(new URL('../../../deploy/', import.meta.url));
const RULES = path.join(DEPLOY, 'prometheus', 'rules.yml');
const REQUESTS = 5;
/** What is told only when it is above 0, and speeds, which are unknown until something was seen. */
const MAY_BE_EMPTY = / > 0$|^kofn_worker_\w+(_per|_trip)_seconds?\{/;

function promtool(args: readonly string[], input = ''): string {
  const { status, stdout, stderr } = spawnSync('promtool', args, { input, encoding: 'utf8' });
  assert.ok(status === 0 || args.includes('metrics'), `${stdout}${stderr}`); // its advice on names is no 0
  return stdout + stderr;
}

/** PromQL of all panels. */
function dashboardExpressions(): string[] {
  const dashboard = JSON.parse(readFileSync(path.join(DEPLOY, 'grafana', 'dashboard.json'), 'utf8')) as {
    panels: { id: number; targets?: { expr: string }[] }[];
  };
  const { panels } = dashboard;
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length, 'ids of panels');
  return panels
    .flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
    .map(expr => expr.replaceAll('$__rate_interval', '1m').replaceAll(/\$(master|model)/g, '.*'));
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

describe('monitoring', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-monitoring-'));
  const reports: RunReport[] = [];
  let inputs: Tensors;
  let workers: KeptWorkers;
  let own: RunningWorker;
  let cluster: Cluster;
  let model: CodedModel;
  let server: SmallServer;
  let app: FastifyInstance;
  let prometheus: Prometheus;

  const ofLayers = (of: (layer: LayerReport) => number) =>
    sum(reports.flatMap(({ layers }) => layers).map(layer => of(layer)));
  const runs = async (count: number) => {
    for (let i = 0; i < count; i++) reports.push(await server.run(inputs));
    await prometheus.untilIs('sum(kofn_requests_total{code="OK"})', reports.length);
  };

  before(async function () {
    needDebian(this, { prometheus: hasPrometheus() });
    const data = await loadDemoData();
    inputs = data.inputs(0);
    workers = await keptWorkers(4);
    own = await startWorker({ listen: '127.0.0.1:0', dataDir: folder, metrics: '127.0.0.1:0', threads: 1 });
    const addresses = [...workers.addresses, own.address];
    cluster = await connect({ workers: addresses, healAfterMs: Infinity, silenceMs: 20_000 });
    model = await codedModel(data.modelPath, { cluster, name: 'fashion', onLoss: 'fail' });
    server = new SmallServer(cluster, model);
    app = fastify();
    registerMetrics(app, server, { maxQueued: 100 });
    const url = new URL(await app.listen({ host: '127.0.0.1', port: 0 }));
    prometheus = await Prometheus.start({ 'kofn-master': [url.host], 'kofn-worker': [own.metricsAddress!] }, RULES);
  });

  after(async () => {
    await prometheus?.[Symbol.asyncDispose]();
    await app?.close();
    await model?.close();
    await cluster?.close();
    await own?.close();
    await workers?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  // First, for Prometheus scrapes nothing in its first 5 s.
  it('names them as Prometheus advises', async () => {
    const master = await app.inject('/metrics');
    const worker = await fetch(`http://${own.metricsAddress}/metrics`);
    assert.equal(master.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
    for (const text of [master.body, await worker.text()]) {
      const advice = promtool(['check', 'metrics'], text).split('\n');
      assert.deepEqual(
        advice.filter(line => line.startsWith('kofn_')),
        [],
      );
    }
  });

  it('comes with rules and a configuration that Prometheus takes, and each alert fires when it should', () => {
    promtool(['check', 'config', path.join(DEPLOY, 'prometheus', 'prometheus.yml')]);
    promtool(['test', 'rules', path.join(DEPLOY, 'prometheus', 'rules.test.yml')]);
  });

  it('counts what the reports of requests say', async () => {
    await prometheus.untilIs('sum(up)', 2);
    await assert.rejects(server.run(inputs, { signal: AbortSignal.abort() }), { code: 'CANCELLED' });
    await runs(REQUESTS);
    const layers = model.plan.layers.filter(({ coded }) => coded !== null);
    const calls = 5 * layers.length * REQUESTS;
    const expected: Readonly<Record<string, number>> = {
      'kofn_request_duration_seconds_count{model="fashion"}': REQUESTS,
      'kofn_request_duration_seconds_sum{model="fashion"}': sum(reports.map(({ ms }) => ms)) / 1000,
      'sum(kofn_request_span_seconds_total)':
        sum(reports.flatMap(({ spans }) => Object.values<number>({ ...spans }))) / 1000,
      'sum(kofn_layer_duration_seconds_count)': layers.length * REQUESTS,
      'sum(kofn_layer_duration_seconds_sum)': ofLayers(({ ms }) => ms) / 1000,
      'sum(kofn_layer_decode_duration_seconds_sum)': ofLayers(({ spans }) => spans.decode) / 1000,
      'sum(kofn_layer_error_gain_sum)': ofLayers(({ errorGain }) => errorGain),
      'sum(kofn_layer_recovered_blocks_total{kind="late"})': ofLayers(({ recovered }) => recovered.late.length),
      'sum(kofn_layer_recovered_blocks_total{kind="lost"})': ofLayers(({ recovered }) => recovered.lost.length),
      'sum(kofn_layer_substituted_blocks_total)': 0,
      'sum(kofn_layer_bytes_total{direction="sent"})': ofLayers(({ bytesSent }) => bytesSent),
      'sum(kofn_layer_bytes_total{direction="received"})': ofLayers(({ bytesReceived }) => bytesReceived),
      'sum(kofn_worker_arrivals_total) + sum(kofn_worker_missed_calls_total)': calls,
      'count(kofn_worker_erasures_total) or vector(0)': 0,
      'kofn_requests_total{code="CANCELLED"}': 1,
      'kofn_server_requests_total{code="CANCELLED"}': 1,
      'kofn_server_requests_total{code="OK"}': REQUESTS,
      kofn_server_request_duration_seconds_count: REQUESTS,
      kofn_server_requests_queued_limit: 100,
      kofn_requests_in_flight: 0,
      'min(kofn_layer_margin)': 1,
      'count(kofn_layer_margin)': layers.length,
      'sum(kofn_worker_ready)': 5,
      kofn_worker_shard_bytes: own.server.store.diskUsedBytes,
      kofn_worker_serving: 1,
    };
    for (const [expression, value] of Object.entries(expected)) await prometheus.untilIs(expression, value);
    const { finished } = own.server.queue.counters;
    await prometheus.untilIs('kofn_worker_requests_total{outcome="finished"}', finished);
    await prometheus.untilIs('kofn_worker_engine_duration_seconds_count', finished);
  });

  it('tells of a kill: margin, who is lost, what is recovered; and the alerts wait for it to last', async () => {
    await workers.kill(0);
    await untilLost(cluster, 0);
    await runs(REQUESTS);
    assert.equal(model.health.margin, 0);
    await prometheus.untilIs('max(kofn_layer_margin)', 0);
    await prometheus.untilIs('kofn_worker_ready{worker="0"}', 0);
    await prometheus.untilIs('kofn_events_total{kind="lost"}', 1);
    const lost = ofLayers(({ recovered }) => recovered.lost.length);
    assert.ok(lost > 0);
    await prometheus.untilIs('sum(kofn_layer_recovered_blocks_total{kind="lost"})', lost);
    await prometheus.untilIs(
      'sum(kofn_worker_erasures_total{worker="0"})',
      ofLayers(layer => layer.erasures.length),
    );
    await prometheus.untilIs(
      'count(ALERTS{alertname="KofnNoMargin", alertstate="pending"})',
      model.health.layers.length,
    );
    await prometheus.untilIs('count(ALERTS{alertname="KofnWorkerDown", worker="0", alertstate="pending"})', 1);
  });

  it('has what every rule and every panel of the dashboard asks for', async () => {
    interface Groups {
      readonly groups: { rules: { name: string; health: string; lastError?: string }[] }[];
    }
    const { groups } = await prometheus.get<Groups>('rules');
    const rules = groups.flatMap(group => group.rules);
    assert.deepEqual(
      rules.filter(({ health }) => health !== 'ok'),
      [],
    );
    const tests = readFileSync(path.join(DEPLOY, 'prometheus', 'rules.test.yml'), 'utf8');
    assert.deepEqual(
      rules.filter(({ name }) => !tests.includes(name)),
      [],
      'alerts without a test',
    );
    for (const expression of dashboardExpressions()) {
      if (MAY_BE_EMPTY.test(expression)) await prometheus.query(expression);
      else await prometheus.untilSome(expression);
    }
  });

  it('forgets a model that is closed', async () => {
    assert.match((await app.inject('/metrics')).body, /model="fashion",layer=/);
    await model.close();
    const { body } = await app.inject('/metrics');
    assert.deepEqual(
      body
        .split('\n')
        .filter(line => line.startsWith('kofn_') && !line.startsWith('kofn_server') && line.includes('fashion')),
      [],
    );
  });
});
