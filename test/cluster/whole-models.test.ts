/** What a whole model may be, and what is said of one that cannot: through `codedModel`, on worker processes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { float32, seededRng, tensor, type Tensor } from '@kofn/core';
import { codedModel, connect, planModel, type Cluster, type Spans } from 'kofn';
import { after, before, describe, it } from 'mocha';
import { MODEL } from '../e2e/command.js';
import { fails } from '../support/engines.js';
import { keptWorkers, type KeptWorkers } from '../support/kept-workers.js';
import { drawn, makeModel, type ModelSpec } from '../support/onnx-models.js';

const rng = seededRng(17);
const normal = (...shape: number[]) => drawn(shape, () => rng.normal());
const output = { dtype: 'float32' } as const;

/** y = relu(x · w), with w an input that has a value of its own (as in IR 3). */
const overridable: ModelSpec = {
  nodes: [
    { op: 'MatMul', name: 'fc', inputs: ['x', 'w'], outputs: ['p'] },
    { op: 'Relu', inputs: ['p'], outputs: ['y'] },
  ],
  inputs: { x: { dtype: 'float32', shape: ['N', 4] }, w: { dtype: 'float32', shape: [4, 8] } },
  outputs: { y: output },
  initializers: { w: normal(4, 8) },
};

describe('a whole model', () => {
  let workers: KeptWorkers;
  let cluster: Cluster;
  before(async () => {
    workers = await keptWorkers(5);
    cluster = await connect({ workers: workers.addresses });
  });
  after(async () => {
    await cluster.close();
    await workers[Symbol.asyncDispose]();
  });

  it('takes any batch where its file leaves it open, on the sessions that it has', async () => {
    await using model = await codedModel(MODEL, { cluster });
    const images = readFileSync(MODEL.replace('fashion-cnn.onnx', 'fashion-test-images.npy')).subarray(128);
    const pixels = (batch: number) => Float32Array.from(images.subarray(0, batch * 784), byte => byte / 255);
    const one = await model.run({ image: float32([1, 1, 28, 28], pixels(1)) });
    for (const batch of [3, 1, 8]) {
      const { outputs } = await model.run({ image: float32([batch, 1, 28, 28], pixels(batch)) });
      assert.deepEqual(outputs['logits']!.shape, [batch, 10]);
      one.outputs['logits']!.data.forEach((value, i) => {
        assert.ok(Math.abs(Number(value) - Number(outputs['logits']!.data[i])) < 1e-3);
      });
    }
    const wrong = model.run({ image: float32([1, 1, 28, 27], new Float32Array(28 * 27)) });
    await fails(wrong, 'SHAPE_MISMATCH', /"image" has shape \[N,1,28,28\] in the model, got \[1,1,28,27\]/);
  });

  it('says where the time of a request went: spans add up to it', async () => {
    await using model = await codedModel(MODEL, { cluster, layers: 'all' });
    const image = float32([1, 1, 28, 28], new Float32Array(784).fill(0.5));
    const shares: number[] = [];
    for (let request = 0; request < 15; request++) {
      const { report } = await model.run({ image });
      const sum = (spans: Spans) => (Object.values(spans) as number[]).reduce((total, ms) => total + ms, 0);
      for (const layer of report.layers) assert.ok(Math.abs(sum(layer.spans) - layer.ms) < 1e-6);
      assert.ok(Object.values(report.spans).every(ms => ms >= 0));
      assert.ok(report.spans.engine > 0 && report.spans.local > 0 && report.spans.decode > 0);
      shares.push(sum(report.spans) / report.ms);
    }
    // Of most requests: between two steps this process may be held up.
    const median = shares.sort((a, b) => a - b)[7]!;
    assert.ok(median > 0.95 && median <= 1.0001, `${median}`);
  });

  it('refuses another batch where its file fixes it, and says so', async () => {
    const fixed = makeModel({ ...overridable, inputs: { x: { dtype: 'float32', shape: [2, 4] } } });
    await using model = await codedModel(fixed, { cluster });
    await fails(model.run({ x: normal(3, 4) }), 'SHAPE_MISMATCH', /"x" has shape \[2,4\] in the model, got \[3,4\]/);
    assert.deepEqual((await model.run({ x: normal(2, 4) })).outputs['y']!.shape, [2, 8]);
  });

  it('is coded with weights that a caller may override, and runs here when one does', async () => {
    await using model = await codedModel(makeModel(overridable), { cluster });
    assert.deepEqual(
      model.plan.layers.map(({ decision }) => decision),
      ['coded'],
    );
    assert.deepEqual(
      model.inputs.map(({ name }) => name),
      ['x'],
    );
    const x = normal(2, 4);
    const own = overridable.initializers!['w']!;
    const coded = await model.run({ x });
    assertProduct(coded.outputs['y']!, x, own);
    assert.equal(coded.report.layers.length, 1);
    for (const w of [normal(4, 8), own]) {
      const here = await model.run({ x, w });
      assertProduct(here.outputs['y']!, x, w);
      assert.deepEqual(here.report.layers, []);
    }
    const caller = new AbortController();
    const cancelled = model.run({ x, w: own }, { signal: caller.signal });
    caller.abort();
    await fails(cancelled, 'CANCELLED', /the caller cancelled the request/);
    await fails(model.run({ x, w: normal(4, 7) }), 'SHAPE_MISMATCH', /"w" has shape \[4,8\] in the model, got \[4,7\]/);
    await fails(model.run({ x, v: x }), 'INVALID_ARGUMENT', /no input "v"/);
  });

  it('without a codable node runs here, and its plan is empty', async () => {
    const relu = makeModel({
      nodes: [{ op: 'Relu', inputs: ['x'], outputs: ['y'] }],
      inputs: { x: { dtype: 'float32', shape: ['N', 2] } },
      outputs: { y: output },
    });
    await using model = await codedModel(relu, { cluster });
    assert.deepEqual(model.plan.layers, []);
    const { outputs, report } = await model.run({ x: float32([1, 2], Float32Array.of(-1, 2)) });
    assert.deepEqual([[...outputs['y']!.data], report.layers], [[0, 2], []]);
  });

  it('runs branches side by side: the second is sent before the first has answered', async () => {
    const sent = new Map<string, () => void>();
    const both = Promise.all(['left', 'right'].map(layer => new Promise<void>(resolve => sent.set(layer, resolve))));
    const beforeSend = ({ layer }: { layer: string }) => sent.get(layer)!();
    await using watched = await connect({ workers: workers.addresses, hooks: { beforeSend } });
    const branches = makeModel({
      nodes: [
        { op: 'Relu', inputs: ['x'], outputs: ['r'] },
        { op: 'Neg', inputs: ['x'], outputs: ['n'] },
        { op: 'MatMul', name: 'left', inputs: ['r', 'w'], outputs: ['a'] },
        { op: 'MatMul', name: 'right', inputs: ['n', 'w'], outputs: ['b'] },
        { op: 'Add', inputs: ['a', 'b'], outputs: ['y'] },
      ],
      inputs: { x: { dtype: 'float32', shape: ['N', 4] } },
      outputs: { y: output },
      initializers: { w: normal(4, 8) },
    });
    await using model = await codedModel(branches, { cluster: watched });
    for (const worker of [0, 1, 2, 3, 4]) workers.pause(worker);
    const running = model.run({ x: normal(1, 4) });
    await both;
    for (const worker of [0, 1, 2, 3, 4]) workers.resume(worker);
    assert.equal((await running).report.layers.length, 2);
  });

  it('speaks of the nodes of its file, whatever ONNX Runtime makes of them', async () => {
    const plan = await planModel(
      makeModel({
        nodes: [
          { op: 'Conv', name: 'conv', inputs: ['x', 'k'], outputs: ['c'] },
          { op: 'BatchNormalization', inputs: ['c', 's', 's', 's', 's'], outputs: ['n'] },
          { op: 'Flatten', inputs: ['n'], outputs: ['f'] },
          { op: 'MatMul', name: 'projection', inputs: ['f', 'w'], outputs: ['p'] },
          { op: 'Add', inputs: ['p', 'b'], outputs: ['q'] },
          { op: 'Gemm', inputs: ['q', 'v'], outputs: ['y'] },
        ],
        inputs: { x: { dtype: 'float32', shape: ['N', 2, 3, 3] } },
        outputs: { y: output },
        initializers: {
          k: normal(8, 2, 3, 3),
          s: drawn([8], () => 1 + rng.uniform()),
          w: normal(8, 12),
          b: normal(12),
          v: normal(12, 9),
        },
      }),
      { layers: 'all', workerCount: 5 },
    );
    assert.deepEqual(
      plan.layers.map(({ name, operator, decision }) => `${name} ${operator} ${decision}`),
      ['conv Conv coded', 'projection Gemm coded', 'Gemm_5 Gemm coded'],
    );
  });

  const refused: [
    string,
    ModelSpec,
    Parameters<typeof codedModel>[1]['layers'],
    Parameters<typeof fails>[1],
    RegExp,
  ][] = [
    [
      'an operator of an unknown domain',
      { ...overridable, nodes: [{ ...overridable.nodes[0]!, op: 'com.example::Magic' }, overridable.nodes[1]!] },
      'all',
      'INVALID_MODEL',
      /ONNX Runtime cannot open the model .*Magic/,
    ],
    [
      'shapes that ONNX Runtime refuses',
      { ...overridable, initializers: { w: normal(5, 8) } },
      'all',
      'INVALID_MODEL',
      /ONNX Runtime cannot open the model/,
    ],
    ['a name that is not a linear layer', overridable, ['Relu_1'], 'NOT_FOUND', /no linear layer "Relu_1"; it has fc/],
    [
      'a name that cannot be coded',
      { ...overridable, initializers: { w: normal(4, 3) }, inputs: { x: { dtype: 'float32', shape: ['N', 4] } } },
      ['fc'],
      'UNSUPPORTED',
      /"fc" cannot be coded: 3 output rows cannot be cut into 4 blocks/,
    ],
    [
      'open sizes without an example',
      { ...overridable, inputs: { x: { dtype: 'float32', shape: ['N', 'T', 4] } } },
      'all',
      'INVALID_ARGUMENT',
      /the open shape \[N,T,4\]; give an example of it \(sampleInputs\)/,
    ],
  ];
  for (const [what, spec, layers, code, message] of refused) {
    it(`is refused with ${what}`, () =>
      fails(codedModel(makeModel(spec), { cluster, layers: layers! }), code, message));
  }

  it('with open sizes is planned by an example', async () => {
    const spec: ModelSpec = { ...overridable, inputs: { x: { dtype: 'float32', shape: ['N', 'T', 4] } } };
    await using model = await codedModel(makeModel(spec), { cluster, sampleInputs: { x: normal(1, 2, 4) } });
    for (const shape of [
      [1, 2, 4],
      [2, 5, 4],
    ]) {
      const { outputs } = await model.run({ x: normal(...shape) });
      assert.deepEqual(outputs['y']!.shape, [...shape.slice(0, -1), 8]);
    }
    await fails(
      model.run({ x: tensor('float64', [1, 1, 4], new Float64Array(4)) }),
      'DTYPE_MISMATCH',
      /"x" is float32/,
    );
  });
});

function assertProduct(y: Tensor, x: Tensor, w: Tensor): void {
  const [rows = 0, inner = 0] = x.shape;
  const units = w.shape[1]!;
  assert.deepEqual(y.shape, [rows, units]);
  for (let i = 0; i < rows * units; i++) {
    let sum = 0;
    for (let j = 0; j < inner; j++) {
      sum += Number(x.data[Math.floor(i / units) * inner + j]) * Number(w.data[j * units + (i % units)]);
    }
    assert.ok(Math.abs(Number(y.data[i]) - Math.max(0, sum)) < 1e-5, `element ${i}`);
  }
}
