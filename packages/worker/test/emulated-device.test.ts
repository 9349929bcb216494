/** The time and the memory of an emulated device, in a whole worker with ONNX Runtime under it. */
import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { float32, systemClock, type Clock, type Tensors } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import { shardModel } from '@kofn/graph';
import { connectChannel, FaultControlClient, shardName, WorkerClient, type FaultSettings } from '@kofn/wire';
import { ENTRY_BYTES, ReplayMemory, replayKey } from '../src/faults/replay-memory.js';
import { startWorker } from '../src/start.js';
import { denseShard } from './support/child.js';
import { temporaryFolder } from './support/temporary.js';
import { TestClock } from './support/test-clock.js';

/** ONNX Runtime, and how often it ran. */
async function countingEngine(): Promise<{ engine: Engine; runs: () => number }> {
  const inner = await createEngine('native');
  let runs = 0;
  const engine: Engine = {
    name: inner.name,
    version: inner.version,
    async open(location, options) {
      const session = await inner.open(location, options);
      return {
        inputs: session.inputs,
        outputs: session.outputs,
        run(feeds, runOptions) {
          runs++;
          return session.run(feeds, runOptions);
        },
        [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
      };
    },
    [Symbol.asyncDispose]: () => inner[Symbol.asyncDispose](),
  };
  return { engine, runs: () => runs };
}

const { shard, input } = denseShard(64, 8, 5);
/** Of a run with 4 rows. */
const MACS = 4 * 64 * 8;

async function start(clock: Clock = systemClock) {
  const folder = await temporaryFolder();
  const { engine, runs } = await countingEngine();
  const options = { listen: '127.0.0.1:0', dataDir: folder.path, threads: 1, allowFaults: true };
  const worker = await startWorker(options, { engine, clock });
  const channel = connectChannel(worker.address);
  const client = await WorkerClient.open(channel);
  const control = new FaultControlClient(channel);
  await client.put(shard);
  return {
    worker,
    client,
    control,
    runs,
    /** Waits, while the worker answers other questions, until that holds. */
    async until(holds: () => boolean) {
      while (!holds()) await client.live();
    },
    infer: async (x: Tensors[string], signal?: AbortSignal) => {
      const { outputs } = await client.infer({ model: shard.name, inputs: { x } }, { signal });
      return outputs['y']!;
    },
    async [Symbol.asyncDispose]() {
      await client.close();
      await channel[Symbol.asyncDispose]();
      await worker.server.drain();
      const closed = worker.close();
      // The transport may wait for its grace, which on this clock passes only here.
      if (clock instanceof TestClock) {
        const turn = setInterval(() => clock.advance(20_000), 1);
        await closed.finally(() => clearInterval(turn));
      }
      await closed;
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** `settings` with a device on which a run with 4 rows takes 8 ms and 2 ms of overhead. */
function device(settings: FaultSettings = {}): FaultSettings {
  return { ...settings, device: { gflops: (2 * MACS) / 8e6, overheadMs: 2 } };
}

describe('an emulated device', () => {
  it('takes its time for each run, one after the other, also for one that is cancelled', async () => {
    const clock = new TestClock();
    await using t = await start(clock);
    const faults = t.worker.server.faults!;
    const { counters } = t.worker.server.queue;
    await t.control.set(device());
    const x = input(4);
    const controller = new AbortController();
    let answered = 0;
    const count = () => void answered++;
    const first = t.infer(x);
    const cancelled = assert.rejects(t.infer(x, controller.signal), { code: 'CANCELLED' });
    const third = t.infer(x);
    first.then(count, count);
    third.then(count, count);
    /** The time of one run, which is under way, up to the moment before its end and then to its end. */
    const pass = async (ended: number) => {
      await t.until(() => faults.isWaitingForDevice);
      clock.advance(9.999);
      await t.client.live();
      assert.deepEqual([counters.started, counters.finished], [ended, ended - 1]);
      clock.advance(0.002);
      await t.until(() => counters.finished === ended);
    };
    await pass(1);
    await first;
    await t.until(() => faults.isWaitingForDevice);
    controller.abort();
    await cancelled;
    await pass(2);
    assert.equal(answered, 1);
    await pass(3);
    await third;
    const { busyMs, run, received } = await t.control.status();
    assert.deepEqual([run, received, t.runs()], [3, 3, 3]);
    assert.ok(Math.abs(busyMs - 3 * 10.001) < 1e-6, `${busyMs} ms`);
  });

  it('counts all outputs of a shard, and the rows of each request', async () => {
    const clock = new TestClock();
    await using t = await start(clock);
    const layer = { operator: 'Conv' as const, fanIn: 2 * 3 * 3, conv: conv3x3 };
    const part = (units: number) => ({ layer, weights: new Float32Array(units * layer.fanIn).fill(1), units });
    const { model, weights } = shardModel([part(4), part(6)]);
    const name = shardName(model, weights);
    await t.client.put({ name, model, weights });
    await t.control.set({ device: { gflops: 1e-3 } });
    const { faults, queue } = t.worker.server;
    for (const [ended, batch, size] of [
      [1, 1, 5],
      [2, 3, 7],
    ] as const) {
      const x = float32([batch, 2, size, size], new Float32Array(batch * 2 * size * size));
      const running = t.client.infer({ model: name, inputs: { x } });
      await t.until(() => faults!.isWaitingForDevice);
      const macs = batch * (4 + 6) * size * size * layer.fanIn;
      clock.advance((2 * macs) / 1e3 - 0.001);
      await t.client.live();
      assert.equal(queue.counters.finished, ended - 1);
      clock.advance(0.002);
      await running;
    }
  });

  it('is not called stuck, however slow; an engine that stalls is', async () => {
    const clock = new TestClock();
    await using t = await start(clock);
    const { server } = t.worker;
    await t.control.set({ device: { gflops: 1, overheadMs: 60_000 } });
    const slow = t.infer(input(4));
    await t.until(() => server.faults!.isWaitingForDevice);
    clock.advance(59_000);
    assert.deepEqual(await t.client.health(), { ready: true, live: true });
    clock.advance(1_001);
    await slow;

    const { shard: other, input: otherInput } = denseShard(8, 2, 6); // the watch knows no run of it
    await t.client.put(other);
    await t.control.set({ stall: { rate: 1, minMs: 5_000, maxMs: 5_000 } });
    const stalled = t.client.infer({ model: other.name, inputs: { x: otherInput(1) } });
    let { stalled: count } = await t.control.status();
    while (count === 0) count = (await t.control.status()).stalled;
    clock.advance(4_999);
    assert.deepEqual(await t.client.health(), { ready: false, live: true });
    clock.advance(1);
    await stalled;
    assert.deepEqual(await t.client.health(), { ready: true, live: true });
    assert.equal((await t.control.status()).stalledMs, 5_000);
  });

  it('replays what was computed, bit for bit, without computing it again', async () => {
    await using t = await start();
    const [a, b] = [input(4), input(4)];
    const sameBytes = { ...a, shape: [2, 128] };
    const [ya, yb] = [await t.infer(a), await t.infer(b)];
    assert.equal(t.runs(), 2);
    const replay = { device: { gflops: 1000, replay: true } };
    await t.control.set(replay);
    for (let round = 0; round < 3; round++) {
      assert.deepEqual([await t.infer(a), await t.infer(b)], [ya, yb]);
      assert.equal(t.runs(), 4);
    }
    await assert.rejects(t.infer(sameBytes), { code: 'SHAPE_MISMATCH' });
    assert.equal((await t.control.status()).run, 7);
    // Damage on the way is not in the memory.
    await t.control.set({ ...replay, corruptRate: 1 });
    await assert.rejects(t.infer(a), { code: 'DATA_LOSS' });
    await t.control.set(replay);
    const runs = t.runs();
    assert.deepEqual(await t.infer(a), ya);
    assert.equal(t.runs(), runs);
    // A run that is not to be replayed is computed, and the memory is given back.
    await t.control.set({});
    await t.infer(a);
    await t.control.set(replay);
    assert.deepEqual(await t.infer(a), ya);
    assert.equal(t.runs(), runs + 2);
  });

  it('leaves no timer when the worker ends under it', async () => {
    const clock = new TestClock();
    await using t = await start(clock);
    await t.control.set({ device: { gflops: 1, overheadMs: 1e6 } });
    const { server } = t.worker;
    const running = t.infer(input(4));
    await t.until(() => server.faults!.isWaitingForDevice);
    server.faults![Symbol.dispose]();
    await assert.rejects(running, { code: 'CANCELLED', message: /this worker is closed/ });
  });
});

const conv3x3 = {
  groups: 1,
  kernel: [3, 3],
  strides: [1, 1],
  dilations: [1, 1],
  pads: [1, 1, 1, 1],
  autoPad: 'NOTSET' as const,
};

describe('ReplayMemory', () => {
  const outputs = (floats: number, value = 0): Tensors => ({
    y: float32([floats], new Float32Array(floats).fill(value)),
  });

  it('keeps what was used last, within its bytes', () => {
    const memory = new ReplayMemory(3 * (400 + ENTRY_BYTES));
    for (const key of ['a', 'b', 'c']) memory.keep(key, outputs(100));
    assert.ok(memory.get('a')); // b is now the one unused for longest
    memory.keep('d', outputs(100));
    assert.deepEqual(
      ['a', 'b', 'c', 'd'].map(key => memory.get(key) !== undefined),
      [true, false, true, true],
    );
    memory.keep('large', outputs(700)); // in place of all three
    assert.ok(memory.get('large') && !memory.get('a') && !memory.get('d'));
    assert.equal(memory.bytes, 2800 + ENTRY_BYTES);
    memory.keep('too large', outputs(1000));
    assert.ok(memory.get('large') && !memory.get('too large'));
    memory.clear();
    assert.deepEqual([memory.get('large'), memory.bytes], [undefined, 0]);
  });

  it('never holds more than its bytes, whatever is kept', () => {
    const memory = new ReplayMemory(10_000);
    for (let i = 0; i < 200; i++) {
      memory.keep(`${i % 37}`, outputs((i * 31) % 900));
      assert.ok(memory.bytes <= 10_000);
    }
  });

  it('tells inputs apart by shard, name, type, shape and every byte, and knows no texts', () => {
    const x = float32([2, 2], Float32Array.of(1, 2, 3, 4));
    const bits = new Int32Array(x.data.buffer);
    const keys = [
      replayKey('s', { x }),
      replayKey('t', { x }),
      replayKey('s', { z: x }),
      replayKey('s', { x: { ...x, shape: [4] } }),
      replayKey('s', { x: { dtype: 'int32', shape: [2, 2], data: bits } }),
      replayKey('s', { x: float32([2, 2], Float32Array.of(1, 2, 3, 5)) }),
      replayKey('s', { x, z: x }),
    ];
    assert.equal(new Set(keys).size, keys.length);
    assert.equal(replayKey('s', { x: float32([2, 2], x.data.slice()) }), keys[0]);
    assert.equal(replayKey('s', { x: { dtype: 'string', shape: [1], data: ['a'] } }), undefined);
  });
});
