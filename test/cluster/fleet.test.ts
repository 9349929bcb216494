/** How the master finds out about its workers, and finds them again: workers in this process, behind links that can be cut. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { float32, systemClock, type Tensors } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import { startWorker, type RunningWorker } from '@kofn/worker';
import { codedLayer, connect, type Cluster, type CodedLayer, type ConnectOptions, type Fleet } from 'kofn';
import { Link, untilFleet } from 'kofn/measure';
import { describe, it } from 'mocha';
import { exact, weights } from '../support/dense-layer.js';
import { spoiled } from '../support/lossy-cluster.js';
import { fails } from '../support/engines.js';
import { standStill } from '../support/stand-still.js';
import { untilEvent } from '../support/until-event.js';

const COUNT = 3;

class Bench implements AsyncDisposable {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'kofn-fleet-'));
  readonly workers: RunningWorker[] = [];
  readonly links: Link[] = [];
  cluster!: Cluster;
  layer!: CodedLayer;

  /** Three workers with a dense layer of theirs; worker 1 runs on what `spoil` makes of an engine. */
  static async open(
    options: Partial<ConnectOptions> = {},
    spoil: (engine: Engine) => Engine = engine => engine,
  ): Promise<Bench> {
    const bench = new Bench();
    try {
      for (let i = 0; i < COUNT; i++) {
        bench.workers.push(await bench.start(i, 0, i === 1 ? spoil(await createEngine('native')) : undefined));
        bench.links.push(await Link.open(bench.workers[i]!.port));
      }
      const workers = bench.links.map(({ port }) => `127.0.0.1:${port}`);
      bench.cluster = await connect({ workers, ...options });
      // With a grace each worker is heard, or known to be lost, before a request ends.
      bench.layer = await codedLayer({ type: 'dense', weights }, { cluster: bench.cluster, systematicGraceMs: 20_000 });
      return bench;
    } catch (error) {
      await bench[Symbol.asyncDispose]();
      throw error;
    }
  }

  start(index: number, port: number, engine?: Engine, dataDir = String(index)): Promise<RunningWorker> {
    const options = { listen: `127.0.0.1:${port}`, dataDir: path.join(this.folder, dataDir) };
    return startWorker(options, engine === undefined ? {} : { engine });
  }

  /** Resolves with the snapshot in which worker 1 is `state`. */
  async until(...states: readonly Fleet[number]['state'][]): Promise<Fleet[number]> {
    return (await untilFleet(this.cluster, fleet => states.includes(fleet[1]!.state)))[1]!;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster?.close();
    for (const link of this.links) await link[Symbol.asyncDispose]();
    for (const worker of this.workers) await worker.close();
    rmSync(this.folder, { recursive: true });
  }
}

/** An engine of which a run takes until `release` once it is `held`. */
function holdable(engine: Engine) {
  let release: () => void = () => undefined;
  let held: Promise<void> | undefined;
  return {
    hold: () => void (held = new Promise(resolve => (release = resolve))),
    release: () => {
      held = undefined;
      release();
    },
    engine: spoiled(engine, async outputs => {
      await held;
      return outputs;
    }),
  };
}

describe('a fleet', () => {
  it('finds a link that swallows everything within 2 s, and uses the worker when it is back', async () => {
    await using bench = await Bench.open();
    const { layer, links } = bench;
    assert.deepEqual((await exact(layer)).erasures, []);
    links[1]!.mode = { kind: 'hole' };
    const start = systemClock.now();
    const request = exact(layer); // sent into the hole, and not waited for longer than it takes to know
    assert.match((await bench.until('dead')).reason, /^silent for \d+ ms$/);
    const ms = systemClock.now() - start;
    assert.ok(ms < 2_000, `found after ${ms} ms`);
    assert.deepEqual((await request).recovered, { lost: [1], late: [] });
    assert.deepEqual((await exact(layer)).recovered, { lost: [1], late: [] });
    links[1]!.mode = { kind: 'forward' };
    await bench.until('ready');
    const back = await exact(layer);
    assert.deepEqual([back.erasures, back.recovered], [[], { lost: [], late: [] }]);
    const metrics = await (await bench.cluster.metrics()).metrics();
    assert.match(metrics, /^kofn_worker_reconnects_total\{worker="1",address="[^"]+"\} 1$/m);
  });

  it('finds an engine that hangs, though its process answers', async () => {
    let control: ReturnType<typeof holdable> | undefined;
    await using bench = await Bench.open({}, engine => (control = holdable(engine)).engine);
    await exact(bench.layer);
    control!.hold();
    const request = exact(bench.layer);
    assert.equal((await bench.until('suspect')).reason, 'engine');
    assert.deepEqual((await request).recovered, { lost: [1], late: [] });
    assert.match((await exact(bench.layer)).erasures[0]!.message, /worker 1 .* is suspect: engine/);
    control!.release();
    await bench.until('ready');
    assert.deepEqual((await exact(bench.layer)).erasures, []);
  });

  it('lets a worker that stops finish what it took, and uses it again when it has started again', async () => {
    let control: ReturnType<typeof holdable> | undefined;
    await using bench = await Bench.open({ silenceMs: 800 }, engine => (control = holdable(engine)).engine);
    const { layer, workers } = bench;
    await exact(layer);
    control!.hold();
    const request = exact(layer);
    await untilRunning(workers[1]!);
    const { port } = workers[1]!;
    const closed = workers[1]!.close();
    await bench.until('draining');
    assert.match((await exact(layer)).erasures[0]!.message, /worker 1 .* is draining/);
    control!.release();
    assert.deepEqual((await request).erasures, []);
    await closed;
    await bench.until('dead', 'connecting');
    workers[1] = await bench.start(1, port);
    await bench.until('ready');
    assert.deepEqual((await exact(layer)).erasures, []);
  });

  it('asks a worker again that was away and is back when another is lost', async () => {
    await using bench = await Bench.open({ silenceMs: 20_000 });
    const { layer, workers, links, cluster } = bench;
    const { port } = workers[0]!;
    await workers[0]!.close();
    await untilFleet(cluster, fleet => ['dead', 'connecting'].includes(fleet[0]!.state));
    links[1]!.mode = { kind: 'hole' };
    const request = exact(layer); // without worker 0, and worker 1 never gets it
    workers[0] = await bench.start(0, port);
    await untilFleet(cluster, fleet => fleet[0]!.state === 'ready');
    links[1]!.mode = { kind: 'reset' };
    const { erasures, arrivals, computedHere } = await request;
    const lost = erasures.map(({ worker, code }) => `${worker} ${code}`);
    assert.deepEqual(lost, ['0 UNAVAILABLE', '1 UNAVAILABLE']);
    assert.deepEqual([arrivals.map(({ worker }) => worker).sort(), computedHere], [[0, 2], []]);
  });

  it('says of a worker that came back without its disk, and is not to be healed, that the shard is not found', async () => {
    await using bench = await Bench.open({ silenceMs: 800, healAfterMs: Infinity });
    const { layer, workers } = bench;
    const { port } = workers[1]!;
    await workers[1]!.close();
    await bench.until('dead', 'connecting');
    workers[1] = await bench.start(1, port, undefined, 'empty');
    await bench.until('ready');
    assert.deepEqual(
      (await exact(layer)).erasures.map(({ worker, code }) => [worker, code]),
      [[1, 'NOT_FOUND']],
    );
  });

  it('puts a worker aside that answers what is no answer', async () => {
    const calls: number[] = [];
    const hooks = { beforeSend: ({ worker }: { worker: number }) => void calls.push(worker) };
    const flat = (outputs: Tensors) => ({ y: float32([1], outputs['y']!.data.slice(0, 1) as Float32Array) });
    await using bench = await Bench.open({ hooks }, engine => spoiled(engine, flat));
    for (let i = 0; i < 3; i++) assert.equal((await exact(bench.layer)).erasures[0]!.code, 'SHAPE_MISMATCH');
    const { reason } = await bench.until('quarantined');
    assert.match(reason, /^3 replies that cannot be used, the last: .*shape/);
    calls.splice(0);
    assert.match((await exact(bench.layer)).erasures[0]!.message, /worker 1 .* is quarantined: 3 replies/);
    assert.deepEqual(calls.sort(), [0, 2]);
  });

  it('counts a worker once that is reached under two names, from when its second name leads to it until it leads elsewhere', async () => {
    await using bench = await Bench.open({ healAfterMs: Infinity });
    const { cluster, layer, workers, links } = bench;
    const [first] = cluster.workers;
    links[1]!.target = workers[0]!.port; // as when another machine is given its address
    breakOnce(links[1]!);
    const told = untilEvent(cluster, ({ kind }) => kind === 'duplicate');
    assert.equal((await bench.until('duplicate')).reason, `it is worker 0 (${first!.address}) under another name`);
    assert.match((await told).message, /^worker 1 \(\S+\) is a duplicate: it is worker 0 \(\S+\) under another name/);
    assert.deepEqual([layer.health.margin, layer.health.ready], [0, 2]);
    const { erasures } = await exact(layer);
    assert.deepEqual(
      erasures.map(({ worker, code }) => [worker, code]),
      [[1, 'UNAVAILABLE']],
    );
    assert.match(erasures[0]!.message, /^worker 1 \(\S+\) is duplicate: it is worker 0/);
    await fails(layer.replan({ workers: [0, 1, 2] }), 'UNAVAILABLE', /worker 1 \(\S+\) is duplicate: it is worker 0/);

    links[0]!.mode = { kind: 'reset' }; // its first name leads nowhere: it goes on under the second
    await bench.until('ready');
    links[0]!.mode = { kind: 'forward' };
    await untilFleet(cluster, fleet => fleet[0]!.state === 'duplicate');
    assert.match(cluster.workers[0]!.reason, /^it is worker 1 /);

    links[1]!.target = workers[1]!.port;
    breakOnce(links[1]!);
    await untilFleet(cluster, fleet => fleet.every(({ state }) => state === 'ready'));
    assert.deepEqual([(await exact(layer)).erasures, layer.health.margin], [[], 1]);
  });

  it('refuses a second name of a worker when it connects, and when one is added', async () => {
    await using bench = await Bench.open();
    const { cluster, workers } = bench;
    const { address, port } = workers[2]!;
    const [a, b] = [`127.0.0.1:${port}`, `localhost:${port}`];
    const twice =
      /^worker 1 \(localhost:\d+\): it is worker 0 \(127\.0\.0\.1:\d+\) under another name; .* list it once$/;
    await fails(connect({ workers: [a, b] }), 'INVALID_ARGUMENT', twice);
    await fails(
      cluster.add(address),
      'INVALID_ARGUMENT',
      /^worker 3 \(\S+\): it is worker 2 \(\S+\) under another name/,
    );
    assert.deepEqual([cluster.workers.length, workers[2]!.server.queue.running], [3, 0]);
  });

  it('finds out when a worker comes that was away under both its names', async () => {
    await using bench = await Bench.open();
    const { workers } = bench;
    const { port } = workers[2]!;
    await workers[2]!.close();
    const names = [`127.0.0.1:${workers[0]!.port}`, `127.0.0.1:${port}`, `localhost:${port}`];
    await using cluster = await connect({ workers: names });
    await using layer = await codedLayer({ type: 'dense', weights }, { cluster });
    const margin = () => layer.health.margin;
    assert.equal(margin(), -1);
    workers[2] = await bench.start(2, port);
    const states = await untilFleet(cluster, fleet => fleet.filter(({ state }) => state === 'duplicate').length === 1);
    assert.deepEqual(states.map(({ state }) => state).sort(), ['duplicate', 'ready', 'ready']);
    if (margin() < 0) await untilEvent(cluster, ({ kind }) => kind === 'restored');
    assert.equal(margin(), 0);
  });

  it('takes nobody for dead while this process itself is busy', async () => {
    await using bench = await Bench.open({ silenceMs: 400 });
    const states: string[] = [];
    bench.cluster.onFleetChange(fleet => states.push(...fleet.map(({ state }) => state)));
    for (let i = 0; i < 3; i++) {
      standStill(900);
      await exact(bench.layer); // lets the probes of the time before be answered
    }
    assert.ok(!states.includes('dead'), states.join(' '));
  });
});

/** What is connected through it breaks; what comes then does not. */
function breakOnce(link: Link): void {
  link.mode = { kind: 'reset' };
  link.mode = { kind: 'forward' };
}

/** Resolves when the worker's engine runs a request. */
async function untilRunning({ server }: RunningWorker): Promise<void> {
  while (server.queue.running === 0) await new Promise(resolve => setImmediate(resolve));
}
