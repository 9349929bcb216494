/** Faults as a client meets them, over the real stream. */
import assert from 'node:assert/strict';
import { status as grpcStatus } from '@grpc/grpc-js';
import { describe, it } from 'mocha';
import { KofnError, seededRng } from '@kofn/core';
import {
  codecs,
  EXTENSIONS,
  FaultControlClient,
  METHODS,
  WorkerClient,
  type FaultAction,
  type FaultSettings,
  type InferReply,
} from '@kofn/wire';
import { scaleShard } from './support/scale-engine.js';
import { startRunning, valuesOf, x } from './support/running.js';

const double = scaleShard(2);

async function startFaulty() {
  const t = await startRunning({ allowFaults: true });
  await t.client.put(double);
  await t.infer(double.name);
  const control = new FaultControlClient(t.channel);
  return { ...t, control, [Symbol.asyncDispose]: () => t[Symbol.asyncDispose]() };
}

type Faulty = Awaited<ReturnType<typeof startFaulty>>;

/** What becomes of `count` inferences that are sent at once, after `settings`: each reply, code, or 'nothing'. */
async function outcomes({ client, control }: Faulty, settings: FaultSettings, count: number) {
  await control.set(settings);
  const controllers = Array.from({ length: count }, () => new AbortController());
  const found: (InferReply | string)[] = new Array<string>(count).fill('nothing');
  let settled = 0;
  const calls = controllers.map(async ({ signal }, i) => {
    try {
      found[i] = await client.infer({ model: double.name, inputs: { x } }, { signal });
    } catch (error) {
      if (!signal.aborted) found[i] = KofnError.from(error).code;
    }
    settled++;
  });
  let status = await control.status();
  while (settled + status.dropped < count) status = await control.status();
  for (const controller of controllers) controller.abort();
  await Promise.all(calls);
  return { found, status };
}

/** The draws of inference i, by the generator alone. */
function drawsOf(seed: number, count: number): number[][] {
  const rng = seededRng(seed);
  return Array.from({ length: count }, () => Array.from({ length: 5 }, () => rng.uniform()));
}

describe('faults of a worker', () => {
  it('are refused unless it was started with --allow-faults', async () => {
    await using t = await startRunning();
    const control = new FaultControlClient(t.channel);
    assert.ok(!t.client.metadata.extensions.includes(EXTENSIONS.faults));
    for (const call of [control.set({}), control.act({ kind: 'kill' }), control.status()]) {
      await assert.rejects(call, (error: KofnError) => {
        assert.deepEqual(
          [error.code, (error.cause as { code: number }).code],
          ['PERMISSION_DENIED', grpcStatus.PERMISSION_DENIED],
        );
        assert.match(error.message, /start the worker with --allow-faults/);
        return true;
      });
    }
    await t.client.put(double);
    assert.deepEqual(await t.infer(double.name), [2, 4]);
  });

  it('are listed as an extension, and at first there are none', async () => {
    await using t = await startFaulty();
    assert.ok(t.client.metadata.extensions.includes(EXTENSIONS.faults));
    const { received, run, settings, armed, busyMs, cpuMs, rssBytes, ...rest } = await t.control.status();
    assert.deepEqual([received, run], [1, 1]);
    assert.deepEqual(rest, { stalled: 0, dropped: 0, corrupted: 0, stalledMs: 0 });
    assert.ok(busyMs > 0 && cpuMs > 0 && rssBytes > 1e6);
    assert.equal(armed, undefined);
    const none = { device: undefined, stall: undefined, slowFactor: 1, dropRate: 0, corruptRate: 0, wrongRate: 0 };
    assert.deepEqual(settings, { seed: 0, ...none });
    const all: FaultSettings = {
      seed: 2 ** 53 - 1,
      device: { gflops: 0.5, overheadMs: 3, replay: true },
      slowFactor: 2,
      stall: { rate: 0.25, minMs: 1, maxMs: 2 },
      dropRate: 0.5,
      corruptRate: 1,
      wrongRate: 0.25,
    };
    await t.control.set(all);
    await t.control.act({ kind: 'pauseOnNext', ms: 5 });
    const after = await t.control.status();
    assert.deepEqual(
      [after.settings, after.armed, after.received, after.busyMs],
      [all, { kind: 'pauseOnNext', ms: 5 }, 0, 0],
    );
    await t.control.set({});
    assert.equal((await t.control.status()).armed, undefined);
  });

  it('meet the same inferences with the same seed: what is lost and what is damaged', async () => {
    await using t = await startFaulty();
    const count = 60;
    const settings = { seed: 7, dropRate: 0.2, corruptRate: 0.3 };
    const expected = drawsOf(7, count).map(([, , drop, corrupt]) =>
      drop! < 0.2 ? 'nothing' : corrupt! < 0.3 ? 'DATA_LOSS' : 'answered',
    );
    const kinds = ({ found }: { found: (InferReply | string)[] }) =>
      found.map(outcome => (typeof outcome === 'string' ? outcome : 'answered'));
    const first = await outcomes(t, settings, count);
    assert.deepEqual(kinds(first), expected);
    assert.deepEqual(new Set(expected).size, 3);
    for (const outcome of first.found) {
      if (typeof outcome !== 'string') assert.deepEqual(valuesOf(outcome.outputs), [2, 4]);
    }
    const { received, run, dropped, corrupted } = first.status;
    const countOf = (kind: string) => expected.filter(one => one === kind).length;
    assert.deepEqual([received, run, dropped, corrupted], [count, count, countOf('nothing'), countOf('DATA_LOSS')]);
    assert.deepEqual(kinds(await outcomes(t, settings, count)), expected);
    assert.notDeepEqual(kinds(await outcomes(t, { ...settings, seed: 8 }, count)), expected);
    // Another rate leaves the draws of the others where they are.
    const withoutLoss = kinds(await outcomes(t, { ...settings, dropRate: 0 }, count));
    const damaged = drawsOf(7, count).map(([, , , corrupt]) => (corrupt! < 0.3 ? 'DATA_LOSS' : 'answered'));
    assert.deepEqual(withoutLoss, damaged);
    assert.ok((await outcomes(t, {}, count)).found.every(outcome => typeof outcome !== 'string'));
  });

  it('leave nothing behind where a reply was lost', async () => {
    await using t = await startFaulty();
    const client = await WorkerClient.open(t.channel, { maxInFlight: 8 });
    const { found } = await outcomes({ ...t, client }, { dropRate: 1 }, 8);
    assert.deepEqual(found, new Array(8).fill('nothing'));
    assert.deepEqual([client.isFull, client.abandonedBytes], [false, 0]);
    await assert.rejects(
      t.control.set({}).then(() => t.infer('f'.repeat(64))),
      { code: 'NOT_FOUND' },
    );
    await client.close();
    await t.worker.server.drain(); // which waits for every answer that is under way
  });

  it('damage one bit of the last output, and nothing else', async () => {
    await using t = await startFaulty();
    const input = { name: 'x', datatype: 'FP32', shape: [1000, 2] };
    const values = Float32Array.from({ length: 2000 }, (_, i) => i);
    const frame = codecs.inferRequest.encode({
      model_name: double.name,
      id: '5',
      inputs: [input],
      raw_input_contents: [new Uint8Array(values.buffer)],
    });
    const reply = () =>
      new Promise<Uint8Array>((resolve, reject) => {
        const call = t.channel.duplex(METHODS.modelStreamInfer, { onMessage: resolve, onEnd: reject });
        call.send(frame).then(() => call.end(), reject);
      });
    const sound = await reply();
    const bits: number[] = [];
    for (const seed of [1, 2, 3]) {
      await t.control.set({ seed, corruptRate: 1 });
      const damaged = await reply();
      assert.equal(damaged.byteLength, sound.byteLength);
      const different = [...damaged.keys()].filter(i => damaged[i] !== sound[i]);
      assert.equal(different.length, 1);
      const [at] = different as [number];
      assert.ok(at >= sound.byteLength - values.byteLength, `byte ${at} is none of the payload`);
      const flipped = damaged[at]! ^ sound[at]!;
      assert.equal(flipped & (flipped - 1), 0);
      bits.push(at);
    }
    assert.equal(new Set(bits).size, 3);
  });

  it('compute one value wrong, under a checksum that fits', async () => {
    await using t = await startFaulty();
    const settings = { seed: 5, wrongRate: 0.3 };
    const { found } = await outcomes(t, settings, 40);
    const drawn = drawsOf(5, 40).map(([, , , corrupt, where]) =>
      corrupt! < 0.7 ? [2, 4] : where! < 0.5 ? [3, 4] : [2, 6],
    );
    assert.deepEqual(
      found.map(outcome => typeof outcome !== 'string' && valuesOf(outcome.outputs)),
      drawn,
    );
    assert.equal(new Set(drawn.map(values => values.join())).size, 3);
  });

  it('stall the inferences that were drawn, for as long as was drawn', async () => {
    await using t = await startFaulty();
    const count = 20;
    const stall = { rate: 0.3, minMs: 8, maxMs: 16 };
    const { found, status } = await outcomes(t, { seed: 3, stall }, count);
    const drawn = drawsOf(3, count).map(([whether, length]) => (whether! < 0.3 ? 8 + length! * 8 : 0));
    for (const [i, outcome] of found.entries()) {
      assert.ok(typeof outcome !== 'string');
      assert.ok(outcome.times!.engineMs >= drawn[i]! - 1e-3, `${i}: ${outcome.times!.engineMs} ms of ${drawn[i]}`);
    }
    const stalled = drawn.filter(ms => ms > 0);
    assert.ok(stalled.length > 2);
    assert.equal(status.stalled, stalled.length);
    assert.ok(status.stalledMs >= stalled.reduce((a, b) => a + b));
  });

  it('multiply the time of a run where no device is given', async () => {
    await using t = await startFaulty();
    await t.control.set({ slowFactor: 4 });
    t.engine.hold();
    const running = t.client.infer({ model: double.name, inputs: { x } });
    await t.engine.started(2);
    const from = performance.now();
    await t.client.live();
    const heldMs = performance.now() - from; // at least so long
    t.engine.release();
    assert.ok((await running).times!.engineMs >= 4 * heldMs);
    assert.ok((await t.control.status()).busyMs >= 4 * heldMs);
  });

  it('that are not valid change nothing, and the message names the field', async () => {
    await using t = await startFaulty();
    const settings = {
      seed: 1,
      slowFactor: 2,
      stall: { rate: 0, minMs: 0, maxMs: 0 },
      dropRate: 0,
      corruptRate: 0,
      wrongRate: 0,
    };
    await t.control.set(settings);
    const before = (await t.control.status()).settings;
    const device = { gflops: 1, overhead_ms: 0, replay: false };
    const stall = { rate: 0, min_ms: 0, max_ms: 0 };
    const bad: [Parameters<typeof codecs.faultSettings.encode>[0], RegExp][] = [
      [{ seed: '9007199254740992' }, /^seed 9007199254740992: must be a whole number from 0 to 2\^53 - 1/],
      [{ device: { ...device, gflops: 0 } }, /^device\.gflops 0: must be more than 0/],
      [{ device: { ...device, gflops: NaN } }, /^device\.gflops NaN/],
      [{ device: { ...device, gflops: Infinity } }, /^device\.gflops Infinity/],
      [{ device: { ...device, overhead_ms: -1 } }, /^device\.overhead_ms -1: must be from 0 to 3600000/],
      [{ device: { ...device, overhead_ms: 3_600_001 } }, /^device\.overhead_ms 3600001/],
      [{ slow_factor: 0.5 }, /^slow_factor 0\.5: must be from 1/],
      [{ slow_factor: NaN }, /^slow_factor NaN/],
      [{ stall: { ...stall, rate: 1.1 } }, /^stall\.rate 1\.1: must be from 0 to 1/],
      [{ stall: { ...stall, min_ms: NaN } }, /^stall\.min_ms NaN/],
      [{ stall: { ...stall, min_ms: 3, max_ms: 2 } }, /^stall\.max_ms 2: must be from 3 to 3600000/],
      [{ stall: { ...stall, max_ms: 1e9 } }, /^stall\.max_ms 1000000000/],
      [{ drop_rate: -0.1 }, /^drop_rate -0\.1/],
      [{ corrupt_rate: NaN }, /^corrupt_rate NaN/],
      [{ wrong_rate: 2 }, /^wrong_rate 2/],
    ];
    for (const [message, expected] of bad) {
      const call = t.channel.unary(METHODS.setFaults, codecs.faultSettings.encode(message));
      await assert.rejects(call, { code: 'INVALID_ARGUMENT', message: expected });
    }
    const actions: [Parameters<typeof codecs.faultAction.encode>[0], RegExp][] = [
      [{}, /^action: must be one of kill, pause/],
      [{ pause: { ms: 0 } }, /^pause\.ms 0: must be from 1 to 3600000/],
      [{ pause_on_next: { ms: NaN } }, /^pause_on_next\.ms NaN/],
    ];
    for (const [message, expected] of actions) {
      const call = t.channel.unary(METHODS.act, codecs.faultAction.encode(message));
      await assert.rejects(call, { code: 'INVALID_ARGUMENT', message: expected });
    }
    await assert.rejects(t.channel.unary(METHODS.setFaults, Uint8Array.of(0xff)), { code: 'PROTOCOL' });
    // The client says so before it sends anything.
    await assert.rejects(t.control.set({ dropRate: 2 }), { code: 'INVALID_ARGUMENT', message: /^drop_rate 2/ });
    const long: FaultAction = { kind: 'pause', ms: 4e6 };
    await assert.rejects(t.control.act(long), { code: 'INVALID_ARGUMENT', message: /^pause\.ms 4000000/ });
    const { settings: after, armed } = await t.control.status();
    assert.deepEqual([after, armed], [before, undefined]);
    assert.deepEqual(await t.infer(double.name), [2, 4]);
  });
});
