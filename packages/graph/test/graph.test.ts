import assert from 'node:assert/strict';
import { float32 } from '@kofn/core';
import { describe, it } from 'mocha';
import { cutModel, findCodable, loadModel, modelFiles, probeModel, profile, type Codable } from '../src/index.js';
import { onnx, type NodeProto } from '../src/model/proto.js';
import { writeModel } from '../src/model/write-model.js';
import { diamond } from './support/diamond.js';
import { io, node, ramp } from './support/models.js';

describe('findCodable', () => {
  it('reads Gemm with its transposes and factors, and MatMul, as rows of weights', async () => {
    const w = ramp(6);
    const cases = [
      { attributes: {}, shape: [2, 3], expected: [w[0], w[3], w[1], w[4], w[2], w[5]] },
      { attributes: { transB: 1 }, shape: [3, 2], expected: [...w] },
      {
        attributes: { transB: 1, alpha: { float: 2 } },
        shape: [3, 2],
        expected: [...w].map(v => 2 * v),
      },
    ];
    for (const { attributes, shape, expected } of cases) {
      const model = await loadModel(
        writeModel({
          nodes: [node('Gemm', 'g', ['x', 'w', 'c'], ['y'], { ...attributes, beta: { float: 3 } })],
          inputs: [io('x', 1, 2)],
          outputs: [io('y', 1, 3)],
          constants: [
            { name: 'w', value: float32(shape, w) },
            { name: 'c', value: float32([1], Float32Array.of(5)) },
          ],
        }),
      );
      const [report] = findCodable(model) as [Codable];
      assert.deepEqual([report.units, report.fanIn], [3, 2]);
      assert.deepEqual([...report.layer().weights], expected);
      assert.deepEqual([...report.layer().bias!], [15, 15, 15]);
    }
  });

  it('says why a layer stays local', async () => {
    const reasons = async (nodes: NodeProto[], constants: [string, number[], number?][]) => {
      const files = writeModel({
        nodes,
        inputs: [io('x', 1, 2), io('v', 2, 2)],
        outputs: [io('y', 1, 2)],
        constants: constants.map(([name, shape, fill]) => {
          const length = shape.reduce((a, b) => a * b, 1);
          return {
            name,
            value: float32(shape, fill === undefined ? ramp(length) : new Float32Array(length).fill(fill)),
          };
        }),
      });
      return findCodable(await loadModel(files)).map(report => (report.codable ? 'codable' : report.reason));
    };
    const gemm = (input: string[], attributes = {}) => [node('Gemm', 'g', input, ['y'], attributes)];
    assert.match((await reasons(gemm(['x', 'v']), []))[0]!, /"v" is computed, not constant/);
    assert.match((await reasons(gemm(['x', 'w']), [['w', [2, 2], NaN]]))[0]!, /NaN or infinity/);
    const depthwise = [node('Conv', 'c', ['x', 'w'], ['y'], { group: 2 })];
    assert.match((await reasons(depthwise, [['w', [2, 1, 3]]]))[0]!, /depthwise/);
    assert.match(
      (await reasons([node('MatMul', 'm', ['w', 'w'], ['y'])], [['w', [2, 2]]]))[0]!,
      /both its factors are constant/,
    );
    const constantInput = [node('Conv', 'c', ['v2', 'w'], ['y'])];
    const twoConstants: [string, number[]][] = [
      ['v2', [1, 2, 3]],
      ['w', [2, 2, 3]],
    ];
    assert.match((await reasons(constantInput, twoConstants))[0]!, /its input is constant/);
    assert.match(
      (await reasons([node('MatMul', 'm', ['x', 'w'], ['y'])], [['w', [3, 2, 2]]]))[0]!,
      /weights of shape \[3,2,2\] are not a matrix/,
    );
    assert.deepEqual(await reasons([node('MatMul', 'm', ['x', 'w'], ['y'])], [['w', [2, 2]]]), ['codable']);
    assert.deepEqual(await reasons([{ ...node('MatMul', 'm', ['x', 'w'], ['y']), domain: 'my' }], [['w', [2, 2]]]), []);
  });
});

describe('cutModel', () => {
  it('cuts a diamond so that each step reads only what earlier steps make', async () => {
    const model = await loadModel(diamond());
    const { steps } = cutModel(model, ['conv1', 'conv2', 'conv3', 'fc']);
    const known = new Set(['x']);
    for (const step of steps) {
      const reads = step.kind === 'segment' ? step.inputs : [step.input];
      for (const value of reads) assert.ok(known.has(value), `${value} is known`);
      for (const value of step.kind === 'segment' ? step.outputs : step.layers.map(layer => layer.output))
        known.add(value);
    }
    assert.deepEqual(
      steps.map(step =>
        step.kind === 'segment' ? step.nodes.join('+') : `(${step.layers.map(layer => layer.node).join()})`,
      ),
      ['(conv1)', 'relu', '(conv2,conv3)', 'Add_4+Flatten_5', '(fc)'],
    );
    assert.ok(known.has('y') && known.has('r'));
  });

  it('is one segment when nothing is coded, and takes no constants that a segment does not read', async () => {
    const model = await loadModel(diamond());
    const [whole, ...more] = cutModel(model, []).steps;
    assert.deepEqual(more, []);
    assert.ok(whole?.kind === 'segment');
    assert.deepEqual([whole.inputs, [...whole.outputs].sort()], [['x'], ['r', 'y']]);
    const relu = cutModel(model, ['conv1', 'conv2'], { c3: { dtype: 'float32', rank: 4 } }).steps.find(
      step => step.kind === 'segment' && step.nodes.includes('relu'),
    );
    assert.ok(relu?.kind === 'segment');
    const part = await loadModel(modelFiles(relu.image()));
    assert.ok([...part.constants.keys()].every(name => name.startsWith('conv3')));
    assert.throws(() => cutModel(model, ['nope']), /no node "nope"/);
  });

  it('probes values and profiles layers by real shapes', async () => {
    const model = await loadModel(diamond());
    const probe = onnx.ModelProto.decode(probeModel(model, ['x', 'a', 'flat']).model);
    assert.deepEqual(
      probe.graph!.output!.map(output => output.name),
      ['a', 'flat'],
    );
    const [conv1] = profile(model, { x: [2, 4, 5, 5], a: [2, 4, 5, 5] });
    assert.deepEqual(conv1, {
      node: 'conv1',
      macs: 200 * 36,
      weightBytes: 4 * 4 * 37,
      inputBytes: 800,
      outputBytes: 800,
    });
  });
});
