/** The simulator's own parts keep the contracts of what they stand for. */
import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { KofnError, seededRng } from '@kofn/core';
import { createEngine } from '@kofn/engine';
import type { MethodPath, ServiceHandlers } from '@kofn/wire';
import { fails } from '../support/engines.js';
import { runWhole } from '../support/onnx-models.js';
import { evaluate } from './evaluate.js';
import { Link } from './link.js';
import { MachineClock } from './machine-clock.js';
import { MemoryDisk } from './memory-blobs.js';
import { drawModel } from './models.js';
import type { Peer } from './sim-call.js';
import { SimChannel } from './sim-channel.js';
import { valueOf } from './sim-engine.js';
import { VirtualClock } from './virtual-clock.js';

const METHOD: MethodPath = '/test/Method';
const bytes = (text: string) => Buffer.from(text);

/** A channel to a process that can be taken away, on a world of its own. */
function world(handlers: Partial<ServiceHandlers> = {}) {
  const clock = new VirtualClock();
  const link = new Link({ name: 'link', clock, rng: seededRng(1) });
  const start = (): Peer => ({
    clock: new MachineClock(clock),
    handlers: { unary: new Map(), clientStream: new Map(), duplex: new Map(), ...handlers },
  });
  const host: { link: Link; peer: Peer | undefined; accept(): Peer | undefined } = {
    link,
    peer: start(),
    accept: () => host.peer,
  };
  const observer = { onFrame: () => undefined, onStreamEnd: () => undefined };
  const channel = new SimChannel({ address: 'there:1', host, clock, maxMessageBytes: 100, observer });
  const until = async <T>(goal: Promise<T>): Promise<T> => {
    const ended = await clock.runUntil(goal, 60_000);
    assert.ok(ended, 'it hangs');
    return ended.value;
  };
  return { clock, link, host, channel, until, start };
}

describe('virtual time', () => {
  it('fires in the order of times, then of setting, and never what was cancelled', async () => {
    const clock = new VirtualClock();
    const fired: string[] = [];
    const set = (name: string, ms: number) => clock.setTimer(() => fired.push(`${name} ${clock.now()}`), ms);
    set('late', 5);
    set('first', 2);
    set('second', 2);
    set('cancelled', 1).cancel();
    await clock.runUntil(new Promise<void>(resolve => clock.setTimer(resolve, 9)), 100);
    assert.deepEqual(fired, ['first 2', 'second 2', 'late 5']);
    assert.equal(await clock.runUntil(new Promise(() => undefined), 100), undefined);
  });

  it('of a machine stops while it is paused and ends when it dies', async () => {
    const clock = new VirtualClock();
    const machine = new MachineClock(clock);
    const fired: number[] = [];
    for (const ms of [1, 3, 20]) machine.setTimer(() => fired.push(clock.now()), ms);
    machine.pause(10);
    await clock.runUntil(new Promise<void>(resolve => clock.setTimer(resolve, 15)), 100);
    assert.deepEqual([fired, machine.armed], [[10, 10], 1]);
    machine.die();
    await clock.runUntil(new Promise<void>(resolve => clock.setTimer(resolve, 15)), 100);
    assert.deepEqual([fired.length, machine.armed], [2, 0]);
  });
});

describe('simulated channel', () => {
  const echo: Partial<ServiceHandlers> = {
    unary: new Map([[METHOD, request => Promise.resolve(request)]]),
    clientStream: new Map([
      [
        '/test/Join',
        async messages => {
          const parts: Uint8Array[] = [];
          for await (const message of messages) parts.push(message);
          return Buffer.concat(parts);
        },
      ],
    ]),
    duplex: new Map([
      [
        '/test/Echo',
        async stream => {
          await stream.receive(message => stream.send(message));
        },
      ],
    ]),
  };

  it('answers calls of every kind, in order', async () => {
    const { channel, until } = world(echo);
    await until(channel.ready({ deadlineMs: 1000 }));
    assert.equal(String(await until(channel.unary(METHOD, bytes('one')))), 'one');
    async function* parts() {
      for (const part of ['a', 'b', 'c']) yield await Promise.resolve(bytes(part));
    }
    assert.equal(String(await until(channel.clientStream('/test/Join', parts()))), 'abc');
    const got: string[] = [];
    const ended = new Promise<KofnError | undefined>(resolve => {
      const call = channel.duplex('/test/Echo', { onMessage: message => got.push(String(message)), onEnd: resolve });
      for (const text of ['1', '2', '3']) void call.send(bytes(text));
      call.end();
    });
    assert.deepEqual([await until(ended), got, channel.openCalls], [undefined, ['1', '2', '3'], 0]);
  });

  it('fails as the contract says: no link, too long, too large, cancelled, closed, and what a handler throws', async () => {
    const { channel, until } = world({
      unary: new Map([
        [METHOD, () => Promise.reject(new KofnError('DATA_LOSS', 'gone'))],
        ['/test/Never', () => new Promise<never>(() => undefined)],
      ]),
    });
    await until(fails(channel.unary(METHOD, bytes('')), 'DATA_LOSS', /gone/));
    await until(fails(channel.unary('/test/Nothing', bytes('')), 'PROTOCOL', /no method/));
    await until(fails(channel.unary(METHOD, new Uint8Array(101)), 'RESOURCE_EXHAUSTED', /101 bytes/));
    await until(fails(channel.unary('/test/Never', bytes(''), { deadlineMs: 50 }), 'DEADLINE_EXCEEDED', /50 ms/));
    const signal = AbortSignal.abort();
    await until(fails(channel.unary('/test/Never', bytes(''), { signal }), 'CANCELLED', /cancelled/));
    const pending = fails(channel.unary('/test/Never', bytes('')), 'CANCELLED', /closed/);
    await channel[Symbol.asyncDispose]();
    await until(pending);
    assert.equal(channel.openCalls, 0);
    await until(fails(channel.unary(METHOD, bytes('')), 'CANCELLED', /closed/));
  });

  it('breaks with its connection, says so each time, and connects again when somebody is there', async () => {
    const { channel, until, host, start } = world(echo);
    const broken: string[] = [];
    channel.onBroken(({ code }) => broken.push(code));
    await until(channel.ready({ deadlineMs: 1000 }));
    const pending = fails(channel.unary('/test/Nothing', bytes('')), 'UNAVAILABLE', /broke/);
    host.peer = undefined;
    channel.break('reset');
    await until(pending);
    await until(fails(channel.ready({ deadlineMs: 1000 }), 'UNAVAILABLE', /nobody answers/));
    host.peer = start();
    await until(channel.ready({ deadlineMs: 1000 }));
    assert.equal(String(await until(channel.unary(METHOD, bytes('again')))), 'again');
    channel.break('reset');
    assert.deepEqual(broken, ['UNAVAILABLE', 'UNAVAILABLE']);
  });

  it('holds messages back while the link is cut, and brings them when it heals', async () => {
    const { channel, until, link, clock } = world(echo);
    await until(channel.ready({ deadlineMs: 1000 }));
    link.block('back');
    const answer = channel.unary(METHOD, bytes('late'));
    const from = clock.now();
    clock.setTimer(() => link.heal(), 500);
    assert.equal(String(await until(answer)), 'late');
    assert.ok(clock.now() - from >= 500);
  });
});

describe('simulated disk', () => {
  it('shows whole blobs only, fails when it is full, and is dead to a process that died', async () => {
    const disk = new MemoryDisk();
    let isDead = false;
    const blobs = disk.view(() => isDead);
    const draft = await blobs.create();
    await draft.write('model.onnx', bytes('model'));
    assert.deepEqual(await blobs.list(), []);
    await draft.commit('name', '[]');
    assert.deepEqual(await blobs.list(), [{ name: 'name', modelBytes: 5, weightsBytes: 0 }]);
    disk.limitBytes = disk.usedBytes;
    const full = await blobs.create();
    await fails(full.write('weights.bin', bytes('x')), 'RESOURCE_EXHAUSTED', /no space left/);
    await full.discard();
    isDead = true;
    void blobs.remove('name');
    await new Promise(setImmediate);
    assert.deepEqual(await disk.view(() => false).readOwners('name'), '[]');
  });
});

describe('simulated arithmetic', () => {
  it('gives what ONNX Runtime gives', async () => {
    await using engine = await createEngine('native');
    for (let seed = 0; seed < 25; seed++) {
      const rng = seededRng(seed);
      const model = drawModel(rng, 3);
      const { files, program } = model.versions[0];
      const x = model.input(rng);
      const wanted = (await runWhole(engine, files, { x }))['y']!;
      const { shape, data } = evaluate(program, new Map([['x', valueOf(x)]])).outputs[0]!;
      assert.deepEqual(shape, wanted.shape, `seed ${seed}: ${model.what}`);
      (wanted.data as Float32Array).forEach((value, i) =>
        assert.ok(Math.abs(value - data[i]!) <= 1e-4 * Math.max(1, Math.abs(value)), `seed ${seed}: ${model.what}`),
      );
    }
  });
});
