/** What a model takes and gives, sparse constants, and files that are refused with what to do. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { ErrorCode } from '@kofn/core';
import { describe, it } from 'mocha';
import { constantValue, cutModel, loadModel } from '../src/index.js';
import { onnx, type GraphProto, type NodeProto, type TypeProto } from '../src/model/proto.js';
import { externalConstant, io, node, refused } from './support/models.js';

const tensorOf = (elemType: number): TypeProto => ({ tensorType: { elemType } });
const float = tensorOf(1);
const sequence: TypeProto = { sequenceType: { elemType: float } };

function encoded(graph: GraphProto): Uint8Array {
  const all = { node: [node('Identity', 'n', ['x'], ['y'])], input: [io('x', 2)], output: [io('y', 2)], ...graph };
  const model = onnx.ModelProto.create({ irVersion: 8, opsetImport: [{ domain: '', version: 17 }], graph: all });
  return onnx.ModelProto.encode(model).finish();
}

/** [2, 3], its elements 1, 2, … at `indices`. */
function sparse(indices: number[], dims: number[], shape = [2, 3], count = dims[0]!) {
  const values = { name: 'w', dataType: 1, dims: [count], floatData: Array.from({ length: count }, (_, i) => i + 1) };
  return { values, indices: { dataType: 7, dims, int64Data: indices }, dims: shape };
}

describe('inputs and outputs', () => {
  it('that are no tensors of core are refused where they are read, and named where they are made', async () => {
    const input = (type: TypeProto) => loadModel(encoded({ input: [{ name: 'x', type }] }));
    for (const [type, words] of [
      [sequence, 'a sequence of float32 tensors'],
      [{ sequenceType: { elemType: sequence } }, 'a sequence of sequences of float32 tensors'],
      [{ mapType: { keyType: 7, valueType: float } }, 'a map'],
      [{ sequenceType: { elemType: { mapType: {} } } }, 'a sequence of maps'],
      [{ optionalType: { elemType: float } }, 'an optional value'],
      [{ sparseTensorType: { elemType: 1 } }, 'a sparse tensor'],
      [tensorOf(14), 'a complex64 tensor'],
      [tensorOf(22), 'an int4 tensor'],
      [tensorOf(21), 'a uint4 tensor'],
      [tensorOf(99), 'a tensor of element type 99'],
    ] as [TypeProto, string][]) {
      await refused(
        input(type),
        'UNSUPPORTED',
        new RegExp(`its input "x" is ${words}, which kofn cannot send; export `),
      );
      const made = await loadModel(encoded({ output: [{ name: 'y', type }, io('x', 2)] }));
      assert.deepEqual(
        [made.outputs.map(({ name }) => name), made.otherOutputs],
        [['x'], [{ name: 'y', kind: words }]],
      );
      const none = loadModel(encoded({ output: [{ name: 'y', type }] }));
      await refused(none, 'UNSUPPORTED', new RegExp(`has no output that kofn can serve: "y" is ${words}; export`));
    }
    await refused(input({}), 'UNSUPPORTED', /"x" is a value of no type/);
  });

  it('of maps come with how scikit-learn leaves them out', async () => {
    const type = { sequenceType: { elemType: { mapType: {} } } };
    await refused(loadModel(encoded({ output: [{ name: 'y', type }] })), 'UNSUPPORTED', /options=\{"zipmap": False\}/);
  });

  it('have the size 0 where the file says so, and the type that it gives elsewhere', async () => {
    const model = await loadModel(
      encoded({
        input: [io('x', 0, 3, 'N', -1)],
        output: [{ name: 'y' }, { name: 'x' }],
        valueInfo: [{ name: 'y', type: tensorOf(7) }],
      }),
    );
    assert.deepEqual(model.inputs[0]!.shape, [0, 3, 'N', '']);
    assert.deepEqual(
      model.outputs.map(({ name, dtype }) => [name, dtype]),
      [
        ['y', 'int64'],
        ['x', 'float32'],
      ],
    );
  });
});

describe('sparse constants', () => {
  it('are dense, by place and by coordinates', async () => {
    for (const given of [sparse([4, 0], [2]), sparse([1, 1, 0, 0], [2, 2])]) {
      const model = await loadModel(encoded({ sparseInitializer: [given], output: [io('y', 2), io('w', 2, 3)] }));
      const { shape, data } = constantValue(model, model.constants.get('w')!);
      assert.deepEqual(
        [shape, [...(data as Float32Array)]],
        [
          [2, 3],
          [2, 0, 0, 0, 1, 0],
        ],
      );
      assert.equal(model.isRewritten, true);
    }
    assert.equal((await loadModel(encoded({}))).isRewritten, false);
  });

  for (const [what, given, code, message] of [
    [
      'an index beyond its shape',
      sparse([6], [1]),
      'INVALID_MODEL',
      /"w" of shape \[2,3\] has the index 6 on an axis of 6/,
    ],
    ['an index below 0', sparse([0, -1], [1, 2]), 'INVALID_MODEL', /has the index -1 on an axis of 3/],
    ['a coordinate beyond its axis', sparse([0, 3], [1, 2]), 'INVALID_MODEL', /the index 3 on an axis of 3/],
    ['fewer indices than values', sparse([1], [1], [2, 3], 2), 'INVALID_MODEL', /indices of shape \[1\] for 2 values/],
    ['another rank', sparse([1], [1, 1]), 'INVALID_MODEL', /indices of shape \[1,1\] for 1 values/],
    ['no indices', { ...sparse([1], [1]), indices: null }, 'INVALID_MODEL', /no values or no indices/],
    ['a size below 0', sparse([1], [1], [-2, 3]), 'INVALID_MODEL', /a size that cannot be/],
    [
      'a dense form of 4 GB',
      sparse([1], [1], [1_000_000, 1000]),
      'RESOURCE_EXHAUSTED',
      /more than 1 GiB as a dense one/,
    ],
    [
      'elements that core has none of',
      { ...sparse([1], [1]), values: { name: 'w', dataType: 14, dims: [1], floatData: [1, 2] } },
      'UNSUPPORTED',
      /convert the model with a dense "w"/,
    ],
  ] as [string, object, ErrorCode, RegExp][]) {
    it(`are refused with ${what}`, () => refused(loadModel(encoded({ sparseInitializer: [given] })), code, message));
  }
});

describe('nodes', () => {
  it('may stand in any order, and those that wait for each other are refused', async () => {
    const ordered = await loadModel(
      encoded({
        node: [node('Add', 'c', ['b', 'a'], ['y']), node('Neg', 'b', ['a'], ['b']), node('Neg', 'a', ['x'], ['a'])],
      }),
    );
    assert.deepEqual(
      ordered.nodes.map(({ name }) => name),
      ['a', 'b', 'c'],
    );
    assert.equal(cutModel(ordered, []).steps.length, 1);
    const circular = [node('Add', 'a', ['x', 'b'], ['y']), node('Neg', 'b', ['y'], ['b'])];
    await refused(
      loadModel(encoded({ node: circular })),
      'INVALID_MODEL',
      /reads "[yb]", which nothing before it makes/,
    );
  });

  it('a long chain of them backwards is no matter of stack or patience', async () => {
    const length = 20_000;
    const chain: NodeProto[] = Array.from({ length }, (_, i) =>
      node('Neg', `n${i}`, [i === 0 ? 'x' : `v${i - 1}`], [i === length - 1 ? 'y' : `v${i}`]),
    ).reverse();
    const { nodes } = await loadModel(encoded({ node: chain }));
    assert.deepEqual([nodes.length, nodes[0]!.name, nodes.at(-1)!.name], [length, 'n0', `n${length - 1}`]);
  });

  it('have the external data of their graphs, or the file is named that lacks', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'kofn-test-inner-'));
    const inner = (location: string): GraphProto => ({
      name: 'branch',
      node: [node('Add', 'add', ['x', 'k'], ['o'])],
      output: [io('o', 2)],
      initializer: [externalConstant('k', [2], location, 0)],
    });
    const branches = ['then_branch', 'else_branch'].map(name => ({ name, type: 5, g: inner('inner.bin') }));
    const If = { ...node('If', 'if', ['c'], ['y']), attribute: branches };
    const file = path.join(folder, 'model.onnx');
    writeFileSync(file, encoded({ node: [If], input: [io('x', 2), { name: 'c', type: tensorOf(9) }] }));
    await refused(loadModel(file), 'NOT_FOUND', /external data .*inner\.bin cannot be read; copy it next to the model/);
    writeFileSync(path.join(folder, 'inner.bin'), new Uint8Array(7));
    await refused(loadModel(file), 'DATA_LOSS', /inner\.bin is cut off: 7 bytes, the model needs 8/);
    writeFileSync(path.join(folder, 'inner.bin'), new Uint8Array(8));
    assert.equal((await loadModel(file)).nodes[0]!.op, 'If');
    rmSync(folder, { recursive: true });
  });
});

describe("ONNX Runtime's own format", () => {
  it('is refused by name', () =>
    refused(
      loadModel(Buffer.from('\x08\0\0\0ORTM and more', 'latin1')),
      'UNSUPPORTED',
      /\(\.ort\); give the \.onnx file/,
    ));
});
