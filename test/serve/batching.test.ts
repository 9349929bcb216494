/** Requests that are joined get what they would have got alone. */
import assert from 'node:assert/strict';
import { openController, seededRng, KofnError, type Tensor } from '@kofn/core';
import type { InferCall } from '@kofn/master/serve';
import { after, before, describe, it } from 'mocha';
import { drawn, type ModelSpec } from '../support/onnx-models.js';
import { answerOf, mlp, ModelFolder, rows } from '../support/served-models.js';
import { serving, type Serving } from '../support/serving.js';

/** Gives the mean of all rows: not a model to join requests of. */
const mean: ModelSpec = {
  nodes: [
    { op: 'MatMul', name: 'first', inputs: ['x', 'a'], outputs: ['p'] },
    { op: 'ReduceMean', inputs: ['p'], outputs: ['y'], attributes: { axes: [0], keepdims: 1 } },
  ],
  inputs: { x: { dtype: 'float32', shape: ['N', 16] } },
  outputs: { y: { dtype: 'float32', shape: ['M', 4] } },
  initializers: {
    a: drawn(
      [16, 4],
      (
        rng => () =>
          rng.normal()
      )(seededRng(9)),
    ),
  },
  opset: 13,
};

describe('joined requests', () => {
  const folder = new ModelFolder();
  const model = mlp(1);
  let t: Serving;

  before(async () => {
    const models = [
      { name: 'mlp', version: '1', file: folder.write('mlp.onnx', model) },
      { name: 'mean', version: '1', file: folder.write('mean.onnx', mean) },
    ];
    // Eight rows start a run, and nothing else does here.
    t = await serving({ models, grpc: undefined, maxBatch: 8, maxDelayMs: 60_000 });
  });
  after(async () => {
    await t[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  const infer = (
    x: Tensor,
    { name = 'mlp', signal = openController().signal, outputs = [] as InferCall['outputs'] } = {},
  ) => t.running.server.infer({ model: name, version: '', id: '', inputs: { x }, outputs, signal });

  async function assertAnswer(spec: ModelSpec, x: Tensor, y: Tensor): Promise<void> {
    const expected = (await answerOf(spec, { x }))['y']!;
    assert.deepEqual(y.shape, expected.shape);
    [...y.data].forEach((value, i) => {
      const wanted = Number(expected.data[i]);
      assert.ok(Math.abs(Number(value) - wanted) <= 1e-4 * Math.max(1, Math.abs(wanted)), `value ${i}`);
    });
  }

  it('are answered in one run, each with its own rows, as without joining', async () => {
    const all = [1, 3, 2, 2].map((count, seed) => rows(count, seed)['x']!);
    const answers = await Promise.all(all.map(x => infer(x)));
    assert.deepEqual(
      answers.map(({ parameters }) => parameters['kofn_batch']),
      [8, 8, 8, 8].map(int64_param => ({ int64_param })),
    );
    for (const [at, { outputs }] of answers.entries()) await assertAnswer(model, all[at]!, outputs['y']!);
    const alone = await infer(rows(9, 5)['x']!); // more than a run takes: by itself, at once
    assert.equal(alone.parameters['kofn_batch'], undefined);
    await assertAnswer(model, rows(9, 5)['x']!, alone.outputs['y']!);
  });

  it('may ask for classes, or for values: each has what it asked for', async () => {
    const [x, other] = [rows(3, 1)['x']!, rows(5, 2)['x']!];
    const outputs = [{ name: 'y', classCount: 1 }];
    const [{ outputs: classes, parameters }, values] = await Promise.all([infer(x, { outputs }), infer(other)]);
    assert.deepEqual([parameters['kofn_batch'], classes['y']!.shape], [{ int64_param: 8 }, [3, 1]]);
    const expected = [...((await answerOf(model, { x }))['y']!.data as Float32Array)];
    const best = [0, 16, 32].map(at => {
      const row = expected.slice(at, at + 16);
      return row.indexOf(Math.max(...row));
    });
    assert.deepEqual((classes['y']!.data as string[]).map(text => Number(text.split(':')[1])), best); // prettier-ignore
    await assertAnswer(model, other, values.outputs['y']!);
  });

  it('leave one by one, and the others are answered', async () => {
    const leave = async () => {
      const controller = openController();
      const gone = infer(rows(2, 1)['x']!, { signal: controller.signal });
      const refused = assert.rejects(gone, { code: 'CANCELLED' });
      controller.abort(new KofnError('CANCELLED', 'the client is gone'));
      await refused;
    };
    const [first, second] = [rows(2, 2)['x']!, rows(4, 3)['x']!];
    const stays = infer(first);
    await leave();
    const answers = await Promise.all([stays, infer(second)]);
    await assertAnswer(model, first, answers[0].outputs['y']!);
    await assertAnswer(model, second, answers[1].outputs['y']!);

    await leave(); // the only one: nobody is joined with it any more
    const both = await Promise.all([infer(rows(4, 2)['x']!), infer(second)]);
    assert.deepEqual(both[0].parameters['kofn_batch'], { int64_param: 8 });
    await assertAnswer(model, second, both[1].outputs['y']!);
  });

  it('run by themselves where what comes out has not the rows that went in', async () => {
    const [a, b] = [rows(4, 1)['x']!, rows(4, 2)['x']!];
    const [first, second] = await Promise.all([infer(a, { name: 'mean' }), infer(b, { name: 'mean' })]);
    await assertAnswer(mean, a, first.outputs['y']!);
    await assertAnswer(mean, b, second.outputs['y']!);
  });
});
