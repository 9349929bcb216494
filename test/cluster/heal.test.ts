/** A layer that is made whole again while it serves: workers that are processes of their own, lost for good, or back without their disk. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startWorker, type RunningWorker } from '@kofn/worker';
import { codedLayer, connect, type Cluster, type ClusterEvent, type CodedLayer, type CodeOptions } from 'kofn';
import { describe, it } from 'mocha';
import { exact, weights, withLayer } from '../support/dense-layer.js';
import { fails } from '../support/engines.js';
import { untilEvent } from '../support/until-event.js';

const FIVE = [0, 1, 2, 3, 4];

type Options = CodeOptions & { healAfterMs?: number };

class Bench implements AsyncDisposable {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'kofn-heal-'));
  readonly workers: RunningWorker[] = [];
  cluster!: Cluster;
  layer!: CodedLayer;
  sentBytes = 0;

  static async open(count: number, options: Options = {}): Promise<Bench> {
    const bench = new Bench();
    try {
      for (let index = 0; index < count; index++) await bench.start(index);
      await bench.connect(options);
      return bench;
    } catch (error) {
      await bench[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Starts worker `index`, at the address that it had. */
  async start(index: number, disk = `first ${index}`): Promise<void> {
    const listen = `127.0.0.1:${this.workers[index]?.port ?? 0}`;
    this.workers[index] = await startWorker({ listen, dataDir: path.join(this.folder, disk) });
  }

  /** Anew: the master before, if there was one, is closed. */
  async connect({ healAfterMs = 0, ...options }: Options = {}): Promise<void> {
    await this.cluster?.close();
    this.sentBytes = 0;
    const workers = this.workers.map(({ port }) => `127.0.0.1:${port}`);
    this.cluster = await connect({ workers, id: 'heal', silenceMs: 800, healAfterMs });
    const onProgress: CodeOptions['onProgress'] = ({ sentBytes }) => (this.sentBytes = sentBytes);
    this.layer = await codedLayer(
      { type: 'dense', weights },
      { cluster: this.cluster, workers: FIVE, onLoss: 'fail', systematicGraceMs: 20_000, onProgress, ...options },
    );
  }

  stop(index: number): Promise<void> {
    return this.workers[index]!.close();
  }

  /** Resolves with the first event of `kind`, one that was told already included. */
  until(kind: ClusterEvent['kind']): Promise<ClusterEvent> {
    return untilEvent(this.cluster, event => event.kind === kind);
  }

  /** Who holds each block. */
  get places(): number[] {
    return this.layer.health.workers.map(([worker]) => worker!);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster?.close();
    for (const worker of this.workers) await worker.close();
    rmSync(this.folder, { recursive: true });
  }
}

describe('healing', () => {
  it('puts what a killed worker held to a spare while requests go on', async () => {
    const setup = { workers: 6, holders: FIVE, healAfterMs: 0, onLoss: 'fail', systematicGraceMs: 20_000 } as const;
    await withLayer(setup, async (layer, workers, cluster) => {
      assert.deepEqual([layer.health.ready, layer.health.margin], [5, 1]);
      let moved: ClusterEvent | undefined;
      void untilEvent(cluster, ({ kind }) => kind === 'moved').then(event => (moved = event));
      await workers.kill(2);
      while (moved === undefined) await exact(layer);
      assert.deepEqual([moved.worker, moved.layer], [5, 'layer']);
      const { erasures, arrivals } = await exact(layer);
      assert.deepEqual([erasures, arrivals.find(({ block }) => block === 2)?.worker], [[], 5]);
      assert.deepEqual([layer.health.margin, layer.health.workers], [1, [[0], [1], [5], [3], [4]]]);
      await workers.kill(0); // the spare counts: one more may be lost
      assert.deepEqual((await exact(layer)).recovered, { lost: [0], late: [] });
    });
  });

  it('leaves what was moved where it is, and has the worker that comes back give up its part', async () => {
    await using bench = await Bench.open(6);
    await bench.stop(2);
    await bench.until('moved');
    await bench.start(2);
    assert.equal((await bench.until('released')).worker, 2);
    assert.deepEqual(bench.places, [0, 1, 5, 3, 4]);
    assert.equal(bench.cluster.connections[2]!.shards.size, 0);
    await bench.stop(4); // now it is the spare
    while (bench.places[4] !== 2) await exact(bench.layer);
    assert.deepEqual([(await exact(bench.layer)).erasures, bench.layer.health.margin], [[], 1]);
  });

  it('says that nobody is there to take it, and goes on with less margin', async () => {
    await using bench = await Bench.open(5);
    await bench.stop(3);
    const { worker, message } = await bench.until('reduced');
    assert.deepEqual([worker, bench.layer.health.ready, bench.layer.health.margin], [3, 4, 0]);
    assert.match(message, /no worker is left that could take what worker 3 held of layer layer: margin 0/);
    assert.deepEqual((await exact(bench.layer)).recovered, { lost: [3], late: [] });
    await bench.connect(); // a master that starts again meanwhile finds the others' shards, and has the fifth wait for its worker
    assert.deepEqual([bench.sentBytes, bench.places, bench.layer.health.margin], [0, FIVE, 0]);
    assert.deepEqual((await exact(bench.layer)).recovered, { lost: [3], late: [] });
    await bench.start(3); // with its disk: nothing is to be sent
    await bench.until('back');
    assert.deepEqual([(await exact(bench.layer)).erasures, bench.layer.health.margin], [[], 1]);
    assert.ok(!bench.cluster.events.some(({ kind }) => kind === 'restored'));
  });

  it('puts again what a worker lost with its disk', async () => {
    await using bench = await Bench.open(5, { healAfterMs: 60_000 });
    await bench.stop(1);
    await bench.until('lost');
    await bench.start(1, 'empty');
    assert.equal((await bench.until('restored')).worker, 1);
    assert.deepEqual([(await exact(bench.layer)).erasures, bench.places], [[], FIVE]);
  });

  it('says what is wrong with its option', () =>
    fails(connect({ workers: ['nobody:1'], healAfterMs: -1 }), 'INVALID_ARGUMENT', /healAfterMs: -1 is outside/));

  it('is found by the next master, which sends nothing', async () => {
    await using bench = await Bench.open(7);
    for (const index of [2, 4]) {
      await bench.stop(index);
      while (bench.places.includes(index)) await exact(bench.layer);
    }
    const moved = bench.places;
    assert.deepEqual(moved, [0, 1, 5, 3, 6]);
    // One is back before the master is, with its shard: then it has its place again, and the spare gives up.
    await bench.cluster.close();
    await bench.start(2, 'empty');
    await bench.start(4);
    await bench.connect();
    assert.equal(bench.sentBytes, 0);
    assert.deepEqual(bench.places, [0, 1, 5, 3, 4]);
    assert.deepEqual((await exact(bench.layer)).erasures, []);
    assert.equal((await bench.until('released')).worker, 6);
  });

  it('keeps two holders of each data block with a hedge', async () => {
    await using bench = await Bench.open(6, { hedge: 60_000 });
    await bench.stop(1);
    await bench.until('moved');
    assert.deepEqual(bench.layer.health.workers, [[0, 5], [5, 2], [2, 3], [3, 4], [4]]);
    assert.deepEqual((await exact(bench.layer)).erasures, []);
  });
});
