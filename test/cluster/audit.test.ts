/** Replies checked against each other behind the answer (`verify: 'audit'`): late ones, liars, and what bounds it. */
import assert from 'node:assert/strict';
import { float32, seededRng, systemClock, type Clock, type Float32Tensor } from '@kofn/core';
import { codedLayer, connect, type Cluster, type ClusterEvent, type ConvLayer, type DenseLayer } from 'kofn';
import { after, afterEach, before, describe, it } from 'mocha';
import { fails } from '../support/engines.js';
import { faultyWorkers, type FaultyWorkers, type Spoil } from '../support/lossy-cluster.js';

const rng = seededRng(2);
const normal = (length: number) => Float32Array.from({ length }, () => rng.normal());
const DENSE: DenseLayer = {
  type: 'dense',
  name: 'fc',
  weights: { data: normal(61 * 40), shape: [61, 40] },
  bias: normal(61),
};
const CONV: ConvLayer = {
  type: 'conv',
  name: 'conv',
  weights: { data: normal(24 * 3 * 9), shape: [24, 3, 3, 3] },
  groups: 2,
  strides: [2, 1],
  pads: [1, 0, 1, 1],
};
const dense = () => float32([3, 40], normal(120));
const conv = () => float32([2, 6, 9, 7], normal(756));

/** An element of every reply of worker `liar` is wrong. */
const lies =
  (liar: number): Spoil =>
  (outputs, { worker }) => {
    if (worker !== liar) return outputs;
    const { shape, data } = outputs['y'] as Float32Tensor;
    return { y: float32(shape, data.with(7, data[7]! + 0.01)) };
  };

/** The system's, but for how long audits wait: that is over when `end` says so. */
class AuditClock implements Clock {
  readonly #waits = new Set<() => void>();

  now(): number {
    return systemClock.now();
  }

  setTimer(...[fire, delayMs, options]: Parameters<Clock['setTimer']>): ReturnType<Clock['setTimer']> {
    if (delayMs <= 4_000 || delayMs > 5_000) return systemClock.setTimer(fire, delayMs, options);
    this.#waits.add(fire);
    return { cancel: () => void this.#waits.delete(fire) };
  }

  get waits(): number {
    return this.#waits.size;
  }

  end(): void {
    for (const fire of this.#waits) fire();
  }
}

describe('audit', () => {
  const clock = new AuditClock();
  const sound: Spoil = outputs => outputs;
  let spoil = sound;
  let open: () => void = () => undefined;
  let faulty: FaultyWorkers;
  let cluster: Cluster;

  before(async () => {
    faulty = await faultyWorkers([0, 1, 2, 3, 4], (outputs, about) => spoil(outputs, about));
    cluster = await connect({ workers: faulty.addresses, clock });
  });
  afterEach(() => {
    spoil = sound;
    open();
  });
  after(async () => {
    await cluster.close();
    await faulty[Symbol.asyncDispose]();
  });

  /** Worker `late` does not answer before `open`. */
  const hold = (late: number): void => {
    const opened = new Promise<void>(resolve => (open = resolve));
    spoil = async (outputs, { worker }) => {
      if (worker === late) await opened;
      return outputs;
    };
  };
  const auditFailed = (): Promise<ClusterEvent> =>
    new Promise(resolve => {
      const stop = cluster.onEvent(event => {
        if (event.kind !== 'audit-failed') return;
        stop();
        resolve(event);
      });
    });
  const until = (holds: () => boolean): Promise<void> =>
    new Promise(resolve => {
      if (holds()) return resolve();
      const stop = cluster.onFleetChange(() => {
        if (!holds()) return;
        stop();
        resolve();
      });
    });

  it('holds up no answer, and takes replies that come after it', async () => {
    await using layer = await codedLayer(DENSE, { cluster, verify: 'audit' });
    const input = dense();
    const oracle = (await layer.run(input)).output;
    hold(1);
    const { output, report, audit } = await layer.run(input);
    assert.deepEqual(report.layers[0]!.decodeSet, [0, 2, 3, 4]);
    output.data.forEach((value, i) => assert.ok(Math.abs(value - oracle.data[i]!) < 1e-4));
    input.data.fill(0); // the caller's own again
    assert.equal(await Promise.race([audit!, Promise.resolve('under way')]), 'under way');
    open();
    assert.equal(await audit, 'passed');
    assert.deepEqual(layer.audits, { passed: 2, failed: 0, skipped: 0 });
  });

  it('notices a wrong reply with parity 1, and marks nobody', async () => {
    await using layer = await codedLayer(DENSE, { cluster, verify: 'audit' });
    for (const liar of [2, 4]) {
      spoil = lies(liar);
      const told = auditFailed();
      const { audit, report } = await layer.run(dense());
      assert.equal(await audit, 'failed');
      const { layer: name, request, workers, worker, message } = await told;
      assert.deepEqual({ name, request, workers, worker }, { name: 'fc', request: report.request, workers: [0, 1, 2, 3, 4], worker: undefined }); // prettier-ignore
      assert.match(message, /replies of workers 0, 1, 2, 3, 4 to layer fc, request \d, do not fit .* cannot be told/);
    }
    assert.deepEqual(layer.audits, { passed: 0, failed: 2, skipped: 0 });
    assert.ok(cluster.workers.every(({ state, wrongAnswers }) => state === 'ready' && wrongAnswers === 0));
  });

  for (const { spec, input } of [
    { spec: DENSE, input: dense },
    { spec: CONV, input: conv },
  ]) {
    it(`names the liar with parity 2, and sets it aside when it is right twice: ${spec.type}`, async () => {
      await using layer = await codedLayer(spec, { cluster, parity: 2, verify: 'audit', hedge: 60_000 });
      assert.equal(await (await layer.run(input())).audit, 'passed');
      for (const liar of [1, 4]) {
        spoil = lies(liar);
        const before = cluster.workers[liar]!.wrongAnswers;
        for (const wrong of [1, 2]) {
          const told = auditFailed();
          assert.equal(await (await layer.run(input())).audit, 'failed');
          const { worker, message } = await told;
          assert.equal(worker, liar);
          assert.match(message, new RegExp(`without that of worker ${liar} the others do`));
          await until(() => cluster.workers[liar]!.wrongAnswers === before + wrong);
        }
        await until(() => cluster.workers[liar]!.state === 'quarantined');
        const { audit, report } = await layer.run(input());
        assert.equal(report.layers[0]!.erasures[0]!.worker, liar);
        assert.equal(await audit, 'passed'); // the others
        cluster.release(liar);
      }
      const others = cluster.workers.filter(({ index }) => ![1, 4].includes(index));
      assert.ok(others.every(({ wrongAnswers }) => wrongAnswers === 0));
      assert.ok(cluster.workers.every(({ falseAlarms }) => falseAlarms === 0));
    });
  }

  it('waits 5 s at most and not beyond the deadline, and looks at what has come', async () => {
    await using one = await codedLayer(DENSE, { cluster, verify: 'audit' });
    await using two = await codedLayer(DENSE, { cluster, parity: 2, verify: 'audit' });
    await using others = await codedLayer(DENSE, { cluster, parity: 0, workers: [0, 2, 3, 4] });
    for (const layer of [one, two, others]) await (await layer.run(dense())).audit; // every shard is open
    hold(1);
    const [skipped, passed] = await Promise.all([one.run(dense()), two.run(dense(), { deadlineMs: 4_900 })]);
    assert.equal(clock.waits, 2);
    await others.run(dense()); // what they were asked before has come
    clock.end();
    assert.equal(await skipped.audit, 'skipped'); // k replies fit together whatever they are
    assert.equal(await passed.audit, 'passed');
    assert.equal(clock.waits, 0);
  });

  it('holds no more than it may, of bytes and of requests', async () => {
    await using none = await codedLayer(DENSE, { cluster, verify: 'audit', maxAuditBytes: 1000 });
    assert.equal(await (await none.run(dense())).audit, 'skipped');
    assert.deepEqual(none.audits, { passed: 0, failed: 0, skipped: 1 });
    await using layer = await codedLayer(DENSE, { cluster, verify: 'audit' });
    assert.equal(await (await layer.run(dense())).audit, 'passed'); // every shard is open
    hold(0);
    const results = await Promise.all(Array.from({ length: 9 }, () => layer.run(dense())));
    const audits = results.map(({ audit }) => audit!);
    assert.equal(await Promise.race(audits), 'skipped');
    assert.deepEqual(layer.audits, { passed: 1, failed: 0, skipped: 1 });
    open();
    assert.deepEqual((await Promise.all(audits)).sort(), [...new Array<string>(8).fill('passed'), 'skipped']);
  });

  it('gives way to a request that waits for room', async () => {
    await using narrow = await connect({ workers: faulty.addresses, clock, maxInFlight: 1 });
    await using layer = await codedLayer(DENSE, { cluster: narrow, verify: 'audit' });
    assert.equal(await (await layer.run(dense())).audit, 'passed');
    hold(0);
    const { audit } = await layer.run(dense()); // its call is all that worker 0 may have
    for (const why of ['once', 'twice']) narrow.connections[4]!.judged(why); // set aside
    const next = layer.run(dense()); // without worker 4 it needs worker 0
    assert.equal(await audit, 'skipped');
    assert.equal(narrow.workers[0]!.state, 'ready'); // it was not lost meanwhile
    open();
    assert.deepEqual((await next).report.layers[0]!.decodeSet, [0, 1, 2, 3]);
    narrow.release(4);
  });

  it('ends with its model', async () => {
    const layer = await codedLayer(DENSE, { cluster, verify: 'audit' });
    hold(3);
    const { audit } = await layer.run(dense());
    const closing = layer.close();
    assert.equal(await audit, 'skipped');
    open();
    await closing;
  });

  it('needs parity', () =>
    fails(codedLayer(DENSE, { cluster, parity: 0, verify: 'audit' }), 'INVALID_ARGUMENT', /audit checks .* parity 1/));
});
