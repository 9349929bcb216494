/** Segments that stand on two workers each: real processes, stopped and killed, against the uncoded model in ONNX Runtime. */
import assert from 'node:assert/strict';
import { seededRng, tensor, type Tensors } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import { codedModel, connect } from 'kofn';
import type { InventoryShard } from '@kofn/wire';
import type { Cluster, CodedModel, DispatchHooks, RunReport } from 'kofn';
import { after, before, describe, it } from 'mocha';
import { untilLost } from '../support/dense-layer.js';
import { keptWorkers, type KeptWorkers } from '../support/kept-workers.js';
import { drawn, makeModel, runWhole, type ModelSpec } from '../support/onnx-models.js';
import { assertClose } from '../support/single-node.js';

const rng = seededRng(23);
const normal = (...shape: number[]) => drawn(shape, () => rng.normal());
const whole = (...values: number[]) => tensor('int64', [values.length], BigInt64Array.from(values, BigInt));

/** Branches, normalisation, values of several types and nodes of several outputs between the coded layers, and a constant output. */
const SPEC: ModelSpec = {
  nodes: [
    { op: 'Gather', inputs: ['table', 'ids'], outputs: ['rows'] },
    { op: 'Add', inputs: ['rows', 'x'], outputs: ['sum'] },
    { op: 'MatMul', name: 'left', inputs: ['sum', 'w1'], outputs: ['a'] },
    { op: 'MatMul', name: 'right', inputs: ['x', 'w2'], outputs: ['b'] },
    { op: 'Softmax', inputs: ['a'], outputs: ['s'], attributes: { axis: -1 } },
    { op: 'Mul', inputs: ['b', 'scale'], outputs: ['m'] },
    { op: 'Add', inputs: ['m', 'shift'], outputs: ['n'] },
    { op: 'Concat', inputs: ['s', 'n'], outputs: ['c'], attributes: { axis: 1 } },
    { op: 'MatMul', name: 'last', inputs: ['c', 'w3'], outputs: ['y'] },
    { op: 'TopK', inputs: ['y', 'three'], outputs: ['best', 'places'], attributes: { axis: -1 } },
    { op: 'Greater', inputs: ['y', 'zero'], outputs: ['mask'] },
    { op: 'Div', inputs: ['zero', 'y'], outputs: ['inverse'] },
    { op: 'Identity', inputs: ['shift'], outputs: ['constant'] },
  ],
  inputs: { x: { dtype: 'float32', shape: ['N', 8] }, ids: { dtype: 'int64', shape: ['N'] } },
  outputs: {
    best: { dtype: 'float32' },
    places: { dtype: 'int64' },
    mask: { dtype: 'bool' },
    inverse: { dtype: 'float32' },
    constant: { dtype: 'float32' },
  },
  initializers: {
    table: normal(40, 8),
    w1: normal(8, 12),
    w2: normal(8, 12),
    w3: normal(24, 10),
    scale: normal(12),
    shift: normal(12),
    three: whole(3),
    zero: drawn([1], () => 0),
  },
};
const files = makeModel(SPEC);
const feeds: Tensors = { x: normal(2, 8), ids: whole(3, 31) };

describe('replicated segments', () => {
  let engine: Engine;
  let expected: Tensors;
  let running: KeptWorkers;
  let cluster: Cluster;
  /** Segments whose call to a worker stops it before it is sent, and kills it when it has been. */
  const deadly = new Set<string>();
  const hooks: DispatchHooks = {
    beforeSend: ({ layer, worker }) => {
      if (deadly.has(layer)) running.pause(worker);
    },
    afterWrite: ({ layer, worker }) => {
      if (deadly.has(layer)) void running.kill(worker);
    },
  };
  before(async () => {
    engine = await createEngine('native');
    expected = await runWhole(engine, files, feeds);
  });
  after(() => engine[Symbol.asyncDispose]());

  async function withModel(work: (model: CodedModel) => Promise<void>): Promise<void> {
    await using workers = await keptWorkers(5);
    running = workers;
    await using connected = await connect({ workers: workers.addresses, hooks });
    cluster = connected;
    await using model = await codedModel(files, { cluster, parity: 2, segments: 'replicated', sampleInputs: feeds });
    try {
      await work(model);
    } finally {
      deadly.clear();
    }
  }

  async function exact(model: CodedModel): Promise<RunReport> {
    const { outputs, report } = await model.run(feeds, { deadlineMs: 30_000 });
    assert.deepEqual(Object.keys(outputs).sort(), Object.keys(expected).sort());
    for (const [name, value] of Object.entries(expected)) {
      assert.deepEqual([outputs[name]!.dtype, outputs[name]!.shape], [value.dtype, value.shape]);
      if (value.dtype === 'float32') assertClose(outputs[name]!, value, 1e-4, name);
      else assert.deepEqual(outputs[name]!.data, value.data, name);
    }
    return report;
  }

  const byWorkers = ({ segments }: RunReport) =>
    segments.filter(({ worker }) => worker !== null).map(({ name }) => name);

  it('give what the uncoded model gives, are claimed on two workers each, and leave the master nothing to run', () =>
    withModel(async model => {
      const plan = new Map(model.plan.segments.map(segment => [segment.name, segment]));
      const replicated = [...plan.values()].filter(({ decision }) => decision === 'replicated');
      assert.ok(replicated.length >= 3, JSON.stringify(model.plan.segments));
      replicated.forEach(({ workers }, s) => assert.deepEqual(workers, [(2 * s) % 5, (2 * s + 1) % 5]));
      assert.equal(plan.get('constant outputs')!.reason, 'it depends on no input');
      // A worker that another test had paused to its end may hold something of that.
      const isOurs = ({ owners }: InventoryShard) => owners.some(owner => owner.cluster === cluster.id);
      const counts = async () =>
        Promise.all(
          cluster.connections.map(
            async each => (await each.ask(client => client.inventory())).shards.filter(isOurs).length,
          ),
        );
      const steps = new Set(model.plan.layers.map(({ name }) => name)).size;
      assert.equal(
        (await counts()).reduce((a, b) => a + b, 0),
        5 * steps + 2 * replicated.length,
      );
      await exact(model);
      const report = await exact(model);
      assert.deepEqual(
        byWorkers(report),
        replicated.map(({ name }) => name),
      );
      for (const { name, worker } of report.segments) assert.ok(plan.get(name)!.workers.includes(worker!));
      const sum = (Object.values(report.spans) as number[]).reduce((a, b) => a + b, 0);
      assert.ok(sum <= report.ms + 1e-3 && sum > 0.5 * report.ms, `${sum} of ${report.ms}`);
      await model.update(files);
      await exact(model);
      await model.close();
      assert.deepEqual(await counts(), [0, 0, 0, 0, 0]);
      await computesWhatIsNotFinite();
    }));

  /** No reply is taken that is not finite though its input is: what the master computes of it is the answer. */
  async function computesWhatIsNotFinite(): Promise<void> {
    const infinite = makeModel({
      nodes: [
        { op: 'MatMul', name: 'fc', inputs: ['x', 'w'], outputs: ['y'] },
        { op: 'Div', inputs: ['one', 'y'], outputs: ['z'] },
      ],
      inputs: { x: { dtype: 'float32', shape: ['N', 8] } },
      outputs: { z: { dtype: 'float32' } },
      initializers: { w: normal(8, 6), one: drawn([1], () => 1) },
    });
    await using model = await codedModel(infinite, { cluster, segments: 'replicated' });
    const { outputs, report } = await model.run({ x: drawn([2, 8], () => 0) });
    assert.ok((outputs['z']!.data as Float32Array).every(value => value === Infinity));
    assert.deepEqual(
      report.segments.map(({ worker }) => worker),
      [null],
    );
  }

  it('are exact when one of their workers stands still or dies holding them, and when both do', () =>
    withModel(async model => {
      await exact(model);
      const [first, second] = model.plan.segments.filter(({ decision }) => decision === 'replicated');
      running.pause(first!.workers[0]!);
      const paused = await exact(model);
      assert.equal(paused.segments.find(({ name }) => name === first!.name)!.worker, first!.workers[1]);
      running.pause(first!.workers[1]!); // late, not known to be gone
      const late = await exact(model);
      assert.equal(late.segments.find(({ name }) => name === first!.name)!.worker, null);
      for (const worker of first!.workers) running.resume(worker);
      await exact(model);
      deadly.add(second!.name); // both workers, in the middle of the request
      const killed = await exact(model);
      assert.equal(killed.segments.find(({ name }) => name === second!.name)!.worker, null);
      deadly.clear();
      await untilLost(cluster, ...second!.workers);
      assert.equal((await exact(model)).segments.find(({ name }) => name === second!.name)!.worker, null);
    }));
});
