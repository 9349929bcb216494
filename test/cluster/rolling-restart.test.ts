/** Workers and masters that are told to stop, one after another, while requests go on: none fails, none is late, and nothing is left. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { connect as connectTcp } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { float32, type Tensors } from '@kofn/core';
import { codedModel, connect, startLocalWorkers, type LocalWorkers } from 'kofn';
import { compareOutputs, isWrong, loadDemoData, Reference, untilFleet, type DemoData } from 'kofn/measure';
import { after, before, describe, it } from 'mocha';
import { Load } from '../chaos/load.js';
import { leftSince, openResources } from '../chaos/resources.js';
import { fails } from '../support/engines.js';
import type { FromMaster, MasterSettings, ToMaster } from '../support/serving-master.js';

const WORKERS = 3;
const ALL = [0, 1, 2];
const PICTURES = 8;
/** Requests at a time: more would leave no core for the workers that start. */
const LANES = 2;
const ID = 'rolling';
/** Of a worker (start.ts of @kofn/worker) and of a master (cluster.ts). */
const GRACE_MS = 20_000;
const PASS_MS = 30_000;

describe('a rolling restart', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-rolling-'));
  const expected: Tensors[] = [];
  let workers: LocalWorkers;
  let data: DemoData;
  before(async () => {
    data = await loadDemoData();
    workers = await startLocalWorkers(WORKERS, { dataDir: folder });
    await using reference = await Reference.open(data.modelPath);
    for (let picture = 0; picture < PICTURES; picture++) expected.push(await reference.run(data.inputs(picture)));
  });
  after(async () => {
    await workers?.close();
    rmSync(folder, { recursive: true });
  });

  const deploy = async () => {
    const cluster = await connect({ workers: workers.addresses, id: ID, silenceMs: 800, healAfterMs: Infinity });
    // No block is computed here: what is answered, two workers of three have answered.
    const model = await codedModel(data.modelPath, { cluster, onLoss: 'fail' });
    return { cluster, model };
  };

  it('of the workers fails no request, and leaves nothing of those that were', async () => {
    await Promise.resolve(); // from now on mocha's own timer is there
    const open = openResources();
    const { cluster, model } = await deploy();
    const load = new Load({
      ...{ model, expected, inputs: data.inputs, inFlight: LANES },
      situation: () => 'restart',
      onEnded: () => undefined,
    });
    try {
      for (const worker of ALL) {
        const pid = workers.pidOf(worker)!;
        const address = workers.addresses[worker]!;
        await fails(workers.start(worker), 'INVALID_ARGUMENT', /runs; stop or kill it first/);
        const start = performance.now();
        assert.equal(await workers.stop(worker), 0);
        assert.ok(performance.now() - start < GRACE_MS);
        await assert.rejects(once(connectTcp(Number(address.split(':')[1]), '127.0.0.1'), 'connect'), /ECONNREFUSED/);
        assert.throws(() => process.kill(pid, 0), /ESRCH/);
        assert.equal(existsSync(path.join(folder, `worker-${worker}`, 'worker.pid')), false);
        await untilFleet(cluster, fleet => ['dead', 'connecting'].includes(fleet[worker]!.state));
        await load.passed(LANES, PASS_MS); // without it
        await workers.start(worker);
        assert.equal(workers.addresses[worker], address);
        await untilFleet(cluster, fleet => fleet[worker]!.state === 'ready');
      }
      await load.usesWorker(ALL.at(-1)!, () => false, PASS_MS);
    } finally {
      await load.stop();
      await cluster.close();
    }
    const { lost, wrong, late, failures } = load;
    assert.deepEqual({ lost, wrong, late, failures }, { lost: 0, wrong: 0, late: 0, failures: [] });
    // Whoever starts on a busy machine may be told to be slow.
    const told = cluster.events
      .filter(({ kind }) => kind !== 'straggler' && kind !== 'steady')
      .map(({ kind, worker }) => `${kind} ${worker}`);
    const restarts = ALL.flatMap(worker => [`lost ${worker}`, `back ${worker}`]);
    assert.deepEqual(told, restarts); // and no shard was put again
    assert.deepEqual(await leftSince(open, openResources), []);
  });

  it('of the master fails no request of a client that retries, and sends no shard again', async () => {
    const settings: MasterSettings = { workers: workers.addresses, id: ID };
    await using first = await Master.start(settings);
    let succeed!: (next: Master) => void;
    const client = new Client(first, new Promise(resolve => (succeed = resolve)), expected);
    await client.answered(2 * LANES);
    for (const worker of ALL) workers.pause(worker); // what it has begun, it cannot have ended when it is told to stop
    while ((await first.ask({ kind: 'count' })).requests < LANES);
    const before = client.answers;
    const ended = first.stop();
    await first.draining;
    const refused = await first.run(0);
    for (const worker of ALL) workers.resume(worker);
    assert.deepEqual(await ended, [0, null]);
    assert.ok(refused.kind === 'failed' && refused.code === 'UNAVAILABLE', JSON.stringify(refused));
    assert.equal(client.answers - before, LANES);
    await using second = await Master.start(settings);
    assert.equal(second.sentBytes, 0);
    succeed(second);
    await client.answered(2 * LANES);
    await client.stop();
    assert.deepEqual(client.failures, []);
    assert.deepEqual(await second.stop(), [0, null]);
  });

  it('takes no more than the grace, and nothing new in it', async () => {
    const { cluster, model } = await deploy();
    await using _closing = cluster;
    for (const worker of ALL) workers.pause(worker);
    try {
      const held = fails(model.run(data.inputs(0)), 'CANCELLED', /closed/);
      await fails(cluster.drain({ graceMs: -1 }), 'INVALID_ARGUMENT', /graceMs: -1 is outside the range/);
      const drained = cluster.drain({ graceMs: 1 });
      await fails(model.run(data.inputs(0)), 'UNAVAILABLE', /this master is shutting down/);
      await fails(codedModel(data.modelPath, { cluster }), 'UNAVAILABLE', /this master is shutting down/);
      await Promise.all([held, drained]);
      await fails(model.run(data.inputs(0)), 'UNAVAILABLE', /this master is shutting down/);
    } finally {
      for (const worker of ALL) workers.resume(worker);
    }
  });
});

type Answer = Extract<FromMaster, { kind: 'output' | 'failed' }>;

/** serving-master.ts, forked. What it has not answered when it ends has failed with GONE. */
class Master implements AsyncDisposable {
  readonly #child;
  readonly #exit: Promise<unknown[]>;
  readonly #heard = new Map<string, (message: FromMaster) => void>();
  readonly draining: Promise<unknown>;
  sentBytes = NaN;
  #requests = 0;

  static async start(settings: MasterSettings): Promise<Master> {
    const master = new Master(settings);
    const ready = await Promise.race([master.#hears('ready'), master.#exit]);
    assert.ok('sentBytes' in ready, 'it ended before it served');
    master.sentBytes = ready.sentBytes;
    return master;
  }

  private constructor(settings: MasterSettings) {
    this.#child = fork(new URL('../support/serving-master.js', import.meta.url), [JSON.stringify(settings)]);
    // All that it said has been heard when it is disconnected.
    const both: Promise<unknown[]>[] = ['exit', 'disconnect'].map(event => once(this.#child, event));
    this.#exit = Promise.all(both).then(([exit]) => exit!);
    this.draining = this.#hears('draining');
    this.#child.on('message', (message: FromMaster) => {
      const key = 'id' in message ? `${message.id}` : message.kind;
      this.#heard.get(key)?.(message);
      this.#heard.delete(key);
    });
  }

  async run(picture: number): Promise<Answer> {
    const id = this.#requests++;
    const answer = this.#hears(`${id}`) as Promise<Answer>;
    this.#send({ kind: 'run', id, picture });
    const gone = this.#exit.then((): Answer => ({ kind: 'failed', id, code: 'GONE', message: 'it has exited' }));
    return Promise.race([answer, gone]);
  }

  ask(question: ToMaster & { kind: 'count' }): Promise<Extract<FromMaster, { kind: 'count' }>> {
    const answer = this.#hears('count');
    this.#send(question);
    return answer as Promise<Extract<FromMaster, { kind: 'count' }>>;
  }

  /** SIGTERM; resolves with exit code and signal. */
  async stop(): Promise<unknown[]> {
    const start = performance.now();
    this.#child.kill('SIGTERM');
    const exit = await this.#exit;
    assert.ok(performance.now() - start < GRACE_MS);
    return exit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exit;
  }

  #send(message: ToMaster): void {
    this.#child.send(message, () => undefined); // it may be gone, which is seen by its exit
  }

  #hears(key: string): Promise<FromMaster> {
    return new Promise(resolve => this.#heard.set(key, resolve));
  }
}

/** LANES requests at a time: of one master until it refuses or is gone, then of the next. */
class Client {
  answers = 0;
  /** What is no answer and nothing to retry, and wrong answers. */
  readonly failures: string[] = [];
  readonly #expected: readonly Tensors[];
  readonly #next: Promise<Master>;
  readonly #lanes: Promise<void>[];
  #master: Master;
  #requests = 0;
  #isStopped = false;
  #wake: () => void = () => undefined;

  constructor(master: Master, next: Promise<Master>, expected: readonly Tensors[]) {
    this.#master = master;
    this.#next = next;
    this.#expected = expected;
    this.#lanes = Array.from({ length: LANES }, () => this.#lane());
  }

  /** Resolves when `count` more requests are answered. */
  async answered(count: number): Promise<void> {
    const end = this.answers + count;
    while (this.answers < end) await new Promise<void>(resolve => (this.#wake = resolve));
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#lanes);
  }

  async #lane(): Promise<void> {
    while (!this.#isStopped) await this.#one(this.#requests++ % PICTURES);
  }

  async #one(picture: number): Promise<void> {
    for (;;) {
      const answer = await this.#master.run(picture);
      if (answer.kind === 'output') return this.#took(picture, answer.output);
      if (!['UNAVAILABLE', 'GONE'].includes(answer.code)) return void this.failures.push(answer.message);
      this.#master = await this.#next;
    }
  }

  #took(picture: number, output: readonly number[]): void {
    const [[name, { shape }]] = Object.entries(this.#expected[picture]!) as [[string, Tensors[string]]];
    const actual = { [name]: float32(shape, Float32Array.from(output)) };
    if (isWrong(compareOutputs(actual, this.#expected[picture]!)))
      this.failures.push(`picture ${picture}: a wrong answer`);
    this.answers++;
    this.#wake();
  }
}
