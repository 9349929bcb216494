/** The steps of a cut, run one after the other, give what the whole model gives. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { float32, tensor } from '@kofn/core';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { cutModel, findCodable, loadModel, type ModelFiles } from '../src/index.js';
import { onnx, valueInfoProto, type GraphProto } from '../src/model/proto.js';
import { writeModel } from '../src/model/write-model.js';
import { assertClose, io, node, values } from './support/models.js';
import { runModel } from './support/ort.js';
import { randomModel } from './support/random-model.js';
import { runCut } from './support/run-cut.js';

const codableNames = async (files: ModelFiles) =>
  findCodable(await loadModel(files)).flatMap(report => (report.codable ? [report.node] : []));

describe('a cut model, run step by step', () => {
  for (const chain of [true, false]) {
    it(`gives what the whole model gives: random ${chain ? 'chains' : 'graphs'}, any choice of coded nodes`, async () => {
      let codedCount = 0;
      await fc.assert(
        fc.asyncProperty(randomModel({ chain }), async ({ files, input, chosen, description }) => {
          const x = values(input);
          const names = (await codableNames(files)).filter((_, i) => ((chosen >> (i % 31)) & 1) === 1);
          codedCount += names.length;
          const actual = await runCut(await loadModel(files), names, { x });
          const expected = await runModel(files, { x });
          assert.deepEqual(Object.keys(actual).sort(), Object.keys(expected).sort());
          for (const [name, value] of Object.entries(expected))
            assertClose(actual[name]!, value, `${name}: ${description}`);
        }),
        { numRuns: 60 },
      );
      assert.ok(codedCount > 10, `only ${codedCount} coded nodes were tried`);
    });
  }

  it('carries what an If captures from outside into the segment', async () => {
    const branch = (name: string, op: string): GraphProto => ({
      name,
      node: [node(op, `${name}.op`, ['a', 'offset'], [`${name}.y`])],
      output: [valueInfoProto(`${name}.y`, 'float32')],
    });
    const choose = node('If', 'choose', ['flag'], ['chosen']);
    choose.attribute = [
      { name: 'then_branch', type: 5, g: branch('then', 'Add') },
      { name: 'else_branch', type: 5, g: branch('else', 'Mul') },
    ];
    const files = writeModel({
      nodes: [
        node('MatMul', 'first', ['x', 'w1'], ['a']),
        choose,
        node('Relu', '', ['chosen'], ['r']),
        node('MatMul', 'second', ['r', 'w2'], ['y']),
      ],
      inputs: [io('x', 'N', 4), valueInfoProto('flag', 'bool', [])],
      outputs: [io('y', 'N', 3)],
      constants: [
        { name: 'w1', value: values([4, 5], 1) },
        { name: 'w2', value: values([5, 3], 2) },
        { name: 'offset', value: values([5], 3) },
      ],
    });
    const model = await loadModel(files);
    const [, middle] = cutModel(model, ['first', 'second']).steps;
    assert.ok(middle?.kind === 'segment');
    assert.deepEqual([...middle.inputs].sort(), ['a', 'flag']);
    for (const flag of [0, 1]) {
      const inputs = { x: values([2, 4]), flag: tensor('bool', [], Uint8Array.of(flag)) };
      const actual = await runCut(model, ['first', 'second'], inputs);
      assertClose(actual['y']!, (await runModel(files, inputs))['y']!, `flag ${flag}`);
    }
  });

  it('has an output for whatever a model may call one: a constant, an input, a value that a coded node also reads', async () => {
    const files = writeModel({
      nodes: [node('Relu', 'relu', ['x'], ['r']), node('MatMul', 'fc', ['r', 'w'], ['y'])],
      inputs: [io('x', 2, 3)],
      outputs: [io('y', 2, 4), io('r', 2, 3), io('x', 2, 3), io('w', 3, 4)],
      constants: [{ name: 'w', value: values([3, 4]) }],
    });
    const expected = await runModel(files, { x: values([2, 3], 2) });
    for (const coded of [[], ['fc']]) {
      const actual = await runCut(await loadModel(files), coded, { x: values([2, 3], 2) });
      for (const [name, value] of Object.entries(expected)) assertClose(actual[name]!, value, name);
    }
  });

  it('leaves out what no output needs, coded or not', async () => {
    const files = writeModel({
      nodes: [
        node('MatMul', 'dead', ['x', 'w'], ['d']),
        node('Relu', 'dead relu', ['d'], ['dr']),
        node('Relu', 'live', ['x'], ['y']),
      ],
      inputs: [io('x', 2, 3)],
      outputs: [io('y', 2, 3)],
      constants: [{ name: 'w', value: values([3, 4]) }],
    });
    const model = await loadModel(files);
    assert.throws(() => cutModel(model, ['dead']), /"dead" cannot be coded: no output needs it/);
    const { steps } = cutModel(model, []);
    assert.deepEqual(
      steps.map(step => (step.kind === 'segment' ? step.nodes : step.layers)),
      [['live']],
    );
  });

  it('keeps types that are not float32 and open sizes across a cut', async () => {
    // int64 and a scalar cross the coded node's level; N stays open.
    const files = writeModel({
      nodes: [
        node('Identity', 'id', ['to'], ['to2']),
        node('Shape', 'shape', ['x'], ['s']),
        node('ReduceProd', 'count', ['s'], ['n'], { keepdims: 1 }),
        node('Expand', 'expand', ['bias', 'n'], ['e']),
        node('ReduceSum', 'sum', ['e'], ['t'], { keepdims: 0 }),
        node('MatMul', 'fc', ['x', 'w'], ['h']),
        node('Add', 'add', ['h', 't'], ['y']),
        node('Reshape', 'back', ['y', 'to2'], ['z']),
      ],
      inputs: [io('x', 'N', 3), valueInfoProto('to', 'int64', [2])],
      outputs: [io('z', 'M', 'K')],
      constants: [
        { name: 'w', value: values([3, 3]) },
        { name: 'bias', value: float32([1], Float32Array.of(0.25)) },
      ],
    });
    const model = await loadModel(files);
    for (const rows of [1, 4]) {
      const inputs = { x: values([rows, 3]), to: tensor('int64', [2], BigInt64Array.of(3n, BigInt(rows))) };
      const actual = await runCut(model, ['fc'], inputs);
      assertClose(actual['z']!, (await runModel(files, inputs))['z']!, `${rows} rows`);
    }
  });

  it('keeps a model of an older IR and opset, its constants listed among the inputs, as it was', async () => {
    const { model, weights } = writeModel({
      nodes: [node('MatMul', 'a', ['x', 'w'], ['h']), node('Softmax', 's', ['h'], ['y'])],
      inputs: [io('x', 2, 2, 3), io('w', 3, 4)],
      outputs: [io('y', 2, 2, 4)],
      constants: [{ name: 'w', value: values([3, 4]) }],
    });
    const proto = onnx.ModelProto.decode(model);
    proto.irVersion = 3;
    proto.opsetImport = [onnx.OperatorSetIdProto.create({ domain: '', version: 11 })];
    // Before opset 13 Softmax runs over all axes from axis 1 on, so a wrong opset shows in the values.
    const old = { model: onnx.ModelProto.encode(proto).finish(), weights };
    const loaded = await loadModel(old);
    assert.deepEqual(
      loaded.inputs.map(input => input.name),
      ['x'],
    );
    const x = values([2, 2, 3]);
    assertClose((await runCut(loaded, ['a'], { x }))['y']!, (await runModel(old, { x }))['y']!, 'opset 11');
  });

  it('gives what the trained model gives, every layer coded', async () => {
    const file = fileURLToPath(new URL('../../../../models/fashion-cnn.onnx', import.meta.url));
    assert.ok(existsSync(file), `${file} is missing: models/train-fashion-cnn.py makes it`);
    const model = await loadModel(file);
    const coded = findCodable(model).flatMap(report => (report.codable ? [report.node] : []));
    assert.ok(coded.length >= 3, `linear layers: ${coded.join()}`);
    const [input] = model.inputs;
    const x = values(input!.shape.map(size => (typeof size === 'number' ? size : 2)));
    const actual = await runCut(model, coded, { [input!.name]: x });
    const expected = await runModel({ model: readFileSync(file), weights: new Uint8Array() }, { [input!.name]: x });
    for (const [name, value] of Object.entries(expected)) assertClose(actual[name]!, value, name);
  });
});
