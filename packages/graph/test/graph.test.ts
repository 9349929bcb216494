import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { float32, isKofnError, type ErrorCode } from '@kofn/core';
import { after, describe, it } from 'mocha';
import {
  cutModel,
  extractNode,
  findCodable,
  layerModel,
  loadModel,
  outputShape,
  probeModel,
  profile,
  shardModel,
  type Codable,
  type LinearLayer,
  type ModelFiles,
} from '../src/index.js';
import { onnx, valueInfoProto, type NodeProto, type ValueInfoProto } from '../src/proto.js';
import { writeModel } from '../src/write-model.js';

const ramp = (length: number) => Float32Array.from({ length }, (_, i) => Math.sin(i));
const node = (
  opType: string,
  name: string,
  input: string[],
  output: string[],
  attribute: NodeProto['attribute'] = [],
) => ({ opType, name, input, output, attribute: attribute! }) satisfies NodeProto;
const io = (name: string, ...shape: (number | string)[]): ValueInfoProto => valueInfoProto(name, 'float32', shape);

/** x → conv1 → relu → (conv2, conv3) → add → flatten → fc: a diamond with two coded nodes side by side. */
function diamond(): ModelFiles {
  const conv = (name: string, input: string, output: string) =>
    node(
      'Conv',
      name,
      [input, `${name}.w`, `${name}.b`],
      [output],
      [
        { name: 'kernel_shape', type: 7, ints: [3, 3] },
        { name: 'pads', type: 7, ints: [1, 1, 1, 1] },
      ],
    );
  return writeModel({
    nodes: [
      conv('conv1', 'x', 'a'),
      node('Relu', 'relu', ['a'], ['r']),
      conv('conv2', 'r', 'c2'),
      conv('conv3', 'r', 'c3'),
      node('Add', '', ['c2', 'c3'], ['sum']),
      node('Flatten', '', ['sum'], ['flat']),
      node('Gemm', 'fc', ['flat', 'fc.w'], ['y'], [{ name: 'transB', type: 2, i: 1 }]),
    ],
    inputs: [io('x', 'N', 4, 5, 5)],
    outputs: [io('y', 'N', 6), io('r', 'N', 4, 5, 5)],
    constants: [
      ...['conv1', 'conv2', 'conv3'].flatMap(name => [
        { name: `${name}.w`, value: float32([4, 4, 3, 3], ramp(144)) },
        { name: `${name}.b`, value: float32([4], ramp(4)) },
      ]),
      { name: 'fc.w', value: float32([6, 100], ramp(600)) },
    ],
  });
}

describe('loadModel', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-test-graph-'));
  after(() => rmSync(folder, { recursive: true }));
  const put = (name: string, bytes: Uint8Array | string) => {
    writeFileSync(path.join(folder, name), bytes);
    return path.join(folder, name);
  };

  it('reads inputs without initializers, outputs, and external data beside the file', async () => {
    const { model, weights } = diamond();
    put('weights.bin', weights);
    const loaded = await loadModel(put('model.onnx', model));
    assert.deepEqual(loaded.inputs, [{ name: 'x', dtype: 'float32', shape: ['N', 4, 5, 5] }]);
    assert.deepEqual(
      loaded.outputs.map(output => output.name),
      ['y', 'r'],
    );
    const fc = findCodable(loaded).find(report => report.node === 'fc') as Codable;
    assert.deepEqual(fc.layer().weights, ramp(600));
  });

  it('refuses what is no model, naming the file and what to do', async () => {
    const { model, weights } = diamond();
    await refused(loadModel(path.join(folder, 'none.onnx')), 'NOT_FOUND', /none\.onnx does not exist/);
    await refused(
      loadModel(put('text.onnx', 'this is not a model')),
      'INVALID_MODEL',
      /text\.onnx .* not an ONNX file/,
    );
    await refused(loadModel(put('empty.onnx', '')), 'INVALID_MODEL', /the file is empty/);
    await refused(loadModel(new Uint8Array(100).fill(7)), 'INVALID_MODEL', /not an ONNX file/);
    await refused(loadModel({ model, weights: weights.subarray(0, 1000) }), 'DATA_LOSS', /weights\.bin is cut off/);
    await refused(loadModel(model), 'DATA_LOSS', /weights\.bin is cut off: 0 bytes/);
    put('weights.bin', weights);
    const whole = put('model.onnx', model);
    truncateSync(path.join(folder, 'weights.bin'), 2000);
    await refused(
      loadModel(whole),
      'DATA_LOSS',
      /weights\.bin is cut off: 2000 bytes, the model needs \d+; copy it again/,
    );
    rmSync(path.join(folder, 'weights.bin'));
    await refused(loadModel(whole), 'NOT_FOUND', /weights\.bin cannot be read; copy it next to the model/);
  });

  it('refuses every truncation of a model, or reads a model that is whole', async () => {
    const { model, weights } = diamond();
    for (let length = 0; length < model.byteLength; length++) {
      await refused(loadModel({ model: model.subarray(0, length), weights }), 'INVALID_MODEL', /./);
    }
  });

  it('refuses a value that nothing makes, one made twice, and data outside the folder', async () => {
    const model = (nodes: NodeProto[]) =>
      writeModel({ nodes, inputs: [io('x', 1)], outputs: [io('y', 1)], constants: [] });
    await refused(
      loadModel(model([node('Relu', 'r', ['z'], ['y'])])),
      'INVALID_MODEL',
      /node "r" reads "z", which nothing before it makes/,
    );
    await refused(
      loadModel(model([node('Relu', 'r', ['x'], ['y']), node('Relu', 's', ['x'], ['y'])])),
      'INVALID_MODEL',
      /"y" is made twice/,
    );
    await refused(
      loadModel(model([node('Relu', 'r', ['x'], ['z'])])),
      'INVALID_MODEL',
      /output "y" is made by no node/,
    );
    const files = diamond();
    const evil = Buffer.from(files.model);
    const at = evil.indexOf('weights.bin');
    evil.write('../../a.bin', at);
    put('weights.bin', files.weights);
    await refused(
      loadModel(put('evil.onnx', evil)),
      'INVALID_MODEL',
      /"\.\.\/\.\.\/a\.bin" is outside the model's folder/,
    );
  });
});

describe('findCodable', () => {
  it('reads Gemm with its transposes and factors, and MatMul, as rows of weights', async () => {
    const w = ramp(6);
    const cases = [
      { attributes: [], shape: [2, 3], expected: [w[0], w[3], w[1], w[4], w[2], w[5]] },
      { attributes: [{ name: 'transB', type: 2, i: 1 }], shape: [3, 2], expected: [...w] },
      {
        attributes: [
          { name: 'transB', type: 2, i: 1 },
          { name: 'alpha', type: 1, f: 2 },
        ],
        shape: [3, 2],
        expected: [...w].map(v => 2 * v),
      },
    ];
    for (const { attributes, shape, expected } of cases) {
      const model = await loadModel(
        writeModel({
          nodes: [node('Gemm', 'g', ['x', 'w', 'c'], ['y'], [...attributes, { name: 'beta', type: 1, f: 3 }])],
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
    const gemm = (input: string[], attributes: NodeProto['attribute'] = []) => [
      node('Gemm', 'g', input, ['y'], attributes),
    ];
    assert.match((await reasons(gemm(['x', 'v']), []))[0]!, /"v" is computed, not constant/);
    assert.match((await reasons(gemm(['x', 'w'], [{ name: 'transA', type: 2, i: 1 }]), [['w', [2, 2]]]))[0]!, /transA/);
    assert.match(
      (
        await reasons(gemm(['x', 'w', 'c']), [
          ['w', [2, 2]],
          ['c', [1, 1, 2]],
        ])
      )[0]!,
      /addend C of shape \[1,1,2\]/,
    );
    assert.match((await reasons(gemm(['x', 'w']), [['w', [2, 2], NaN]]))[0]!, /NaN or infinity/);
    const depthwise = [node('Conv', 'c', ['x', 'w'], ['y'], [{ name: 'group', type: 2, i: 2 }])];
    assert.match((await reasons(depthwise, [['w', [2, 1, 3]]]))[0]!, /depthwise/);
    assert.match(
      (await reasons([node('MatMul', 'm', ['w', 'x'], ['y'])], [['w', [2, 2]]]))[0]!,
      /left factor is constant/,
    );
    assert.deepEqual(await reasons([node('MatMul', 'm', ['x', 'w'], ['y'])], [['w', [2, 2]]]), ['codable']);
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
      for (const value of step.kind === 'segment' ? step.outputs : [step.output]) known.add(value);
    }
    assert.deepEqual(
      steps.map(step => (step.kind === 'segment' ? step.nodes.join('+') : `(${step.node})`)),
      ['(conv1)', 'relu', '(conv2)', '(conv3)', 'Add_4+Flatten_5', '(fc)'],
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
    const part = await loadModel(relu.files());
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

describe('shard models', () => {
  const layer: LinearLayer = { name: 'l', operator: 'Gemm', units: 6, fanIn: 100, weights: ramp(600), bias: ramp(6) };

  it('are the same bytes each time, with the weights beside them', () => {
    const block = { weights: ramp(600), bias: ramp(6), units: 6 };
    const files = shardModel(layer, block);
    assert.deepEqual(shardModel(layer, block), files);
    assert.equal(files.weights.byteLength, 2400);
    assert.ok(files.model.byteLength < 400);
  });

  it('come back from the file as the layer they were made of', async () => {
    const [report] = findCodable(await loadModel(layerModel(layer, 'relu'))) as [Codable];
    assert.deepEqual(report.layer(), layer);
    const one = await loadModel(extractNode(await loadModel(diamond()), 'conv2'));
    assert.deepEqual(one.inputs, [{ name: 'r', dtype: 'float32', shape: ['N', 4, 5, 5] }]);
    const fc = await loadModel(extractNode(await loadModel(diamond()), 'fc'));
    assert.deepEqual(fc.inputs, [{ name: 'flat', dtype: 'float32', shape: ['rows', 100] }]);
    const model = await loadModel(diamond());
    assert.throws(() => extractNode(model, 'fd'), /no linear layer "fd"; it has conv1, conv2/);
  });

  it('refuse an input that does not fit, naming the shape that does', () => {
    assert.deepEqual(outputShape(layer, [3, 100]), [3, 6]);
    assert.throws(
      () => outputShape(layer, [3, 99]),
      /layer l \(Gemm\) takes an input of shape \[N,100\], got \[3,99\]/,
    );
  });
});

async function refused(work: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<void> {
  await assert.rejects(work, error => {
    assert.ok(isKofnError(error, code), `expected ${code}, got ${String(error)}`);
    assert.match(error.message, message);
    return true;
  });
}
