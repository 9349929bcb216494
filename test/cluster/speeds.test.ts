/** What the master learns of its workers' speed by using them, and does by it: five workers, one of them slow. */
import assert from 'node:assert/strict';
import { sleep, systemClock } from '@kofn/core';
import { layerModel } from '@kofn/graph';
import { codedLayer, connect, planModel, type EventKind, type LayerReport, type Plan, type WorkerSpeed } from 'kofn';
import { untilFleet } from 'kofn/measure';
import { describe, it } from 'mocha';
import { exact, weights } from '../support/dense-layer.js';
import { faultyWorkers } from '../support/lossy-cluster.js';

const SLOW = 1;
/** Of a block of the layer: 12 rows of 32 in four. */
const MACS = 3 * 32;
const model = layerModel({
  name: 'fc',
  operator: 'Gemm',
  units: 64,
  fanIn: 64,
  weights: new Float32Array(64 * 64).fill(0.5),
});

describe('a slow worker', () => {
  it('is named while it is, gets parity, and is not what a plan counts with that can do without', async () => {
    let runMs = 20;
    await using faulty = await faultyWorkers([SLOW], async outputs => {
      if (runMs > 0) await sleep(systemClock, runMs);
      return outputs;
    });
    await using cluster = await connect({ workers: faulty.addresses });
    await using layer = await codedLayer({ type: 'dense', weights }, { cluster });
    assert.deepEqual(layer.health.workers, [[0], [1], [2], [3], [4]]);
    const told = new Map<EventKind, { message: string; speed: WorkerSpeed; metrics: Promise<string> }>();
    const metrics = await cluster.metrics();
    cluster.onEvent(({ kind, worker, message }) => {
      if (worker !== SLOW) return;
      told.set(kind, { message, speed: { ...cluster.workers[SLOW]!.speed }, metrics: metrics.metrics() });
    });
    // Nobody waits for it: what it takes is told by replies that come too late.
    const reports: LayerReport[] = [];
    while (!told.has('straggler')) reports.push(await exact(layer));
    const unanswered = reports.flatMap(report => report.unanswered);
    const late = unanswered.filter(({ worker, lateMs }) => worker === SLOW && lateMs !== undefined);
    assert.ok(late.length >= 8, JSON.stringify(unanswered));
    assert.ok(
      late.every(({ lateMs }) => lateMs! > runMs - 2),
      JSON.stringify(late),
    );
    const { message, speed, ...scraped } = told.get('straggler')!;
    assert.match(message, /worker 1 .* is a straggler: its blocks take \d+\.\d times as long/);
    assert.ok(speed.isStraggler && speed.slowness! >= 2 && speed.inTime! < 1, JSON.stringify(speed));
    assert.ok(speed.macsPerSecond! < 1.05 * (MACS / (runMs / 1000)), JSON.stringify(speed));
    const text = await scraped.metrics;
    assert.match(text, /^kofn_worker_straggler\{worker="1",address="127.0.0.1:\d+"\} 1$/m);
    assert.match(text, /^kofn_layer_margin\{model="model",layer="layer"\} 1$/m);

    await using second = await codedLayer({ type: 'dense', weights }, { cluster, parity: 2 });
    const places = second.health.workers.map(([worker]) => worker!);
    assert.ok(places.indexOf(SLOW) >= 3, places.join());
    assert.deepEqual(second.plan.layers[0]!.coded!.workers, places);

    runMs = 300; // far more than the others, however busy the machine is
    const started = () => faulty.workers.map(({ server }) => server.queue.counters.started);
    const any = await planModel(model, { cluster });
    const measured = started();
    const all = await planModel(model, { cluster, parity: 0 });
    assert.deepEqual(started(), measured); // what is known is not measured again
    const relative = ({ speeds }: Plan) => speeds.workerGflops / speeds.localGflops;
    assert.ok(relative(any) > 1.5 * relative(all), JSON.stringify([any.speeds, all.speeds]));

    runMs = 0;
    while (!told.has('steady')) await exact(layer);
    assert.equal(told.get('steady')!.speed.isStraggler, false);

    // What came late counts once, with the link or without.
    const connection = cluster.connections[SLOW]!;
    let lateReplies = 0;
    cluster.onEvent(({ kind }) => void (kind === 'lost' && (lateReplies = connection.lateReplies)));
    await faulty.workers[SLOW]!.close();
    await untilFleet(cluster, fleet => fleet[SLOW]!.state === 'connecting');
    assert.ok(lateReplies > 0);
    assert.equal(connection.lateReplies, lateReplies);
  });
});
