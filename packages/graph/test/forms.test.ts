/** What a model is brought to before it is cut: plain linear nodes, constant weights, the names of its file. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { float32, tensor, toHalf } from '@kofn/core';
import { describe, it } from 'mocha';
import {
  computedWeights,
  cutModel,
  findCodable,
  imageOfFiles,
  loadModel,
  modelFiles,
  saveModel,
  withConstants,
  type Codable,
  type ModelFiles,
} from '../src/index.js';
import { onnx, type GraphProto, type NodeProto } from '../src/model/proto.js';
import { writeModel, type Constant } from '../src/model/write-model.js';
import { assertClose, externalConstant, io, node, ramp, values } from './support/models.js';
import { runModel } from './support/ort.js';
import { runCut } from './support/run-cut.js';

const constant = (name: string, ...shape: number[]): Constant => ({ name, value: values(shape, name.length) });

function model(nodes: NodeProto[], constants: Constant[], inputs = [io('x', 'N', 6)]): ModelFiles {
  return writeModel({ nodes, inputs, outputs: [io('y', 'N', 'M')], constants });
}

describe('plain forms', () => {
  it('take an addend that is no value an output out of a Gemm, beta with it', async () => {
    for (const [beta, shape] of [
      [1, [3, 4]],
      [-2, [3, 1]],
    ] as const) {
      const files = model(
        [node('Gemm', 'gemm', ['x', 'w', 'c'], ['y'], { beta: { float: beta } })],
        [constant('w', 6, 4), constant('c', ...shape)],
      );
      const loaded = await loadModel(files);
      const [report] = findCodable(loaded) as [Codable];
      assert.deepEqual([report.node, report.hasBias, report.output], ['gemm', false, 'y/product']);
      const feeds = { x: values([3, 6]) };
      const cut = await runCut(loaded, ['gemm'], feeds);
      assertClose(cut['y']!, (await runModel(files, feeds))['y']!, `beta ${beta}, C [${shape.join()}]`);
    }
  });

  it('leave alone what is plain already, or cannot be coded anyway', async () => {
    const plain = model([node('Gemm', 'g', ['x', 'w', 'c'], ['y'])], [constant('w', 6, 4), constant('c', 1, 4)]);
    assert.deepEqual(
      (await loadModel(plain)).nodes.map(({ name }) => name),
      ['g'],
    );
    const computed = model([node('Gemm', 'g', ['x', 'x', 'c'], ['y'], { transB: 1 })], [constant('c', 3, 3)]);
    assert.deepEqual(
      (await loadModel(computed)).nodes.map(({ name }) => name),
      ['g'],
    );
  });
});

describe('weights that constants make', () => {
  it('are constants once they are computed, and what made them goes', async () => {
    const files = model(
      [
        node('Transpose', 'turn', ['v'], ['t']),
        node('Mul', 'scale', ['t', 's'], ['w']),
        node('MatMul', 'fc', ['x', 'w'], ['p']),
        node('Identity', 'kept', ['s'], ['s2']),
        node('Add', 'residual', ['p', 's2'], ['y']),
      ],
      [constant('v', 4, 6), { name: 's', value: float32([1], Float32Array.of(0.5)) }],
    );
    const loaded = await loadModel(files);
    assert.equal((findCodable(loaded)[0] as { reason?: string }).reason, '"w" is computed, not constant');
    const computed = computedWeights(loaded)!;
    assert.deepEqual(computed.values, ['w']);
    const folded = withConstants(loaded, await runModel(modelFiles(computed.image()), {}));
    const [report] = findCodable(folded) as [Codable];
    assert.ok(report.codable);
    const nodes = cutModel(folded, ['fc']).steps.flatMap(step => (step.kind === 'segment' ? step.nodes : []));
    assert.deepEqual(nodes.sort(), ['kept', 'residual']);
    const feeds = { x: values([2, 6]) };
    assertClose((await runCut(folded, ['fc'], feeds))['y']!, (await runModel(files, feeds))['y']!, 'folded');
  });

  it('do not depend on chance, an input or a quantised operand', async () => {
    const int8 = tensor(
      'int8',
      [6, 4],
      Int8Array.from({ length: 24 }, (_, i) => i - 12),
    );
    const scale = { name: 'scale', value: float32([], Float32Array.of(0.1)) };
    const cases: [NodeProto[], Constant[]][] = [
      [[node('RandomNormal', 'r', [], ['w'], { shape: [6, 4] }), node('MatMul', 'fc', ['x', 'w'], ['y'])], []],
      [[node('Relu', 'r', ['x'], ['w']), node('MatMul', 'fc', ['x', 'w'], ['y'])], []],
      [
        [
          node('QuantizeLinear', 'q', ['x', 'scale'], ['xq']),
          node('DequantizeLinear', 'dx', ['xq', 'scale'], ['xd']),
          node('DequantizeLinear', 'dw', ['w8', 'scale'], ['w']),
          node('MatMul', 'fc', ['xd', 'w'], ['y']),
        ],
        [scale, { name: 'w8', value: int8 }],
      ],
    ];
    for (const [nodes, constants] of cases)
      assert.equal(computedWeights(await loadModel(model(nodes, constants))), undefined);
  });

  it('of float16 are read through their Cast', async () => {
    const half = tensor('float16', [6, 4], Uint16Array.from(ramp(24), toHalf));
    const files = model(
      [node('Cast', 'cast', ['h'], ['w'], { to: 1 }), node('MatMul', 'fc', ['x', 'w'], ['y'])],
      [{ name: 'h', value: half }],
    );
    const loaded = await loadModel(files);
    assert.equal(computedWeights(loaded), undefined, 'they stay in the file');
    const feeds = { x: values([2, 6]) };
    assertClose((await runCut(loaded, ['fc'], feeds))['y']!, (await runModel(files, feeds))['y']!, 'float16');
    const nodes = cutModel(loaded, ['fc']).steps.flatMap(step => (step.kind === 'segment' ? step.nodes : []));
    assert.deepEqual(nodes, [], 'the Cast runs nowhere');
  });
});

describe('names after optimisation', () => {
  it('are those of the nodes that a fused one came from', async () => {
    const original = await loadModel(
      model(
        [
          node('MatMul', 'first', ['x', 'w'], ['a']),
          node('Add', 'bias', ['a', 'b'], ['c']),
          node('MatMul', '', ['c', 'v'], ['d']),
          node('Add', '', ['d', 'c2'], ['y']),
        ],
        [constant('w', 6, 4), constant('b', 4), constant('v', 4, 4), constant('c2', 4)],
      ),
    );
    const optimised = model(
      [node('Gemm', 'first/MatMulAddFusion', ['x', 'w', 'b'], ['c']), node('Gemm', '', ['c', 'v', 'c2'], ['y'])],
      [constant('w', 6, 4), constant('b', 4), constant('v', 4, 4), constant('c2', 4)],
    );
    const folder = mkdtempSync(path.join(tmpdir(), 'kofn-test-names-'));
    try {
      await saveModel(imageOfFiles(optimised), folder);
      const loaded = await loadModel(path.join(folder, 'model.onnx'), { original });
      assert.deepEqual(
        loaded.nodes.map(({ name }) => name),
        ['first', 'MatMul_2'],
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('parts of a model', () => {
  it('bring external data of the graphs inside their nodes along', async () => {
    const big = values([40, 10], 5);
    const inner: GraphProto = {
      name: 'then',
      node: [node('MatMul', 'inner', ['r', 'inside'], ['then.y'])],
      output: [io('then.y', 'N', 10)],
      initializer: [externalConstant('inside', [40, 10], 'weights.bin', 4 * 240)],
    };
    const otherwise: GraphProto = { ...inner, name: 'else', output: [io('else.y', 'N', 10)] };
    otherwise.node = [node('MatMul', 'inner', ['r', 'inside'], ['else.y'])];
    const choose = node('If', 'choose', ['flag'], ['y']);
    choose.attribute = [
      { name: 'then_branch', type: 5, g: inner },
      { name: 'else_branch', type: 5, g: otherwise },
    ];
    const outer = values([6, 40], 9);
    const weights = new Uint8Array(4 * 640);
    weights.set(new Uint8Array(outer.data.buffer), 0);
    weights.set(new Uint8Array(big.data.buffer), 4 * 240);
    const proto = onnx.ModelProto.create({
      irVersion: 7,
      opsetImport: [{ domain: '', version: 13 }],
      graph: {
        name: 'g',
        node: [node('MatMul', 'fc', ['x', 'w'], ['p']), node('Relu', 'relu', ['p'], ['r']), choose],
        input: [io('x', 'N', 6), { name: 'flag', type: { tensorType: { elemType: 9, shape: { dim: [] } } } }],
        output: [io('y', 'N', 10)],
        initializer: [externalConstant('w', [6, 40], 'weights.bin', 0)],
      },
    });
    const files = { model: onnx.ModelProto.encode(proto).finish(), weights };
    const feeds = { x: values([2, 6]), flag: tensor('bool', [], Uint8Array.of(1)) };
    const cut = await runCut(await loadModel(files), ['fc'], feeds);
    const expected = float32([2, 10], new Float32Array(20));
    for (let i = 0; i < 2; i++) {
      const row = Array.from({ length: 40 }, (_, j) => {
        let sum = 0;
        for (let l = 0; l < 6; l++) sum += feeds.x.data[i * 6 + l]! * outer.data[l * 40 + j]!;
        return Math.max(0, sum);
      });
      for (let j = 0; j < 10; j++)
        expected.data[i * 10 + j] = row.reduce((sum, v, l) => sum + v * big.data[l * 10 + j]!, 0);
    }
    assertClose(cut['y']!, expected, 'the weights inside the branches');
  });
});
