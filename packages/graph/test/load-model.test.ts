/** What is a model and what is not, and what a loaded one says. */
import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { atOnce, float32, isKofnError, PART_VALUES } from '@kofn/core';
import fc from 'fast-check';
import { after, describe, it } from 'mocha';
import { constantValue, findCodable, loadModel, type Codable, type OnnxModel } from '../src/index.js';
import { onnx, type NodeProto, type TensorProto } from '../src/model/proto.js';
import { writeModel } from '../src/model/write-model.js';
import { diamond } from './support/diamond.js';
import { externalConstant, io, node, ramp, refused } from './support/models.js';

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

  it('reads and turns the weights of a layer in parts', async () => {
    const [rows, columns] = [1024, (4 * PART_VALUES) / 1024];
    const values = ramp(rows * columns);
    const files = writeModel({
      nodes: [node('MatMul', 'm', ['x', 'w'], ['y'])],
      inputs: [io('x', 'N', rows)],
      outputs: [io('y', 'N', columns)],
      constants: [{ name: 'w', value: float32([rows, columns], values) }],
    });
    const [report] = findCodable(await loadModel(files)) as [Codable];
    const work = report.rows().read(0, columns);
    let parts = 0;
    let step = work.next();
    for (; step.done !== true; step = work.next()) parts++;
    assert.equal(parts, 4 + 4);
    const weights = step.value;
    const at = (unit: number, input: number) => [weights[unit * rows + input], values[input * columns + unit]];
    for (const [unit, input] of [
      [0, 0],
      [columns - 1, 0],
      [0, rows - 1],
      [columns - 1, rows - 1],
      [200, 700],
    ] as const) {
      // prettier-ignore
      const [actual, expected] = at(unit, input);
      assert.equal(actual, expected);
    }
  });

  it('reads no more of a layer than is asked for', async () => {
    const [units, fanIn] = [64, 128];
    const values = ramp(units * fanIn);
    const transB = [{ name: 'transB', type: 2, i: 1 }];
    const files = writeModel({
      nodes: [{ ...node('Gemm', 'fc', ['x', 'w'], ['y']), attribute: [...transB, { name: 'alpha', type: 1, f: 0.5 }] }],
      inputs: [io('x', 'N', fanIn)],
      outputs: [io('y', 'N', units)],
      constants: [{ name: 'w', value: float32([units, fanIn], values) }],
    });
    const reads: (number | undefined)[] = [];
    const readExternal: OnnxModel['readExternal'] = (_location, offset, byteLength) => {
      reads.push(byteLength);
      return files.weights.subarray(offset, offset + byteLength!);
    };
    const [report] = findCodable(await loadModel(put('rows.onnx', files.model), { readExternal })) as [Codable];
    reads.length = 0; // looking for NaN reads all
    const rows = atOnce(report.rows().read(5, 9));
    assert.deepEqual(
      rows,
      values.slice(5 * fanIn, 9 * fanIn).map(value => 0.5 * value),
    );
    assert.deepEqual(reads, [4 * 4 * fanIn]);
  });

  it('reads a model of more than 2 GB piece by piece', async () => {
    const [rows, columns] = [24_000, 24_000];
    const hugeBytes = 4 * rows * columns;
    const proto = onnx.ModelProto.create({
      irVersion: 7,
      opsetImport: [{ domain: '', version: 13 }],
      graph: {
        node: [node('MatMul', 'huge', ['x', 'w'], ['h']), node('MatMul', 'small', ['h', 'v'], ['y'])],
        input: [io('x', 'N', rows)],
        output: [io('y', 'N', 2)],
        initializer: [
          externalConstant('w', [rows, columns], 'huge.bin', 0),
          externalConstant('v', [columns, 2], 'huge.bin', hugeBytes),
        ],
      },
    });
    const file = put('huge.bin', '');
    truncateSync(file, hugeBytes + 8 * columns); // zeros that take no room on the disk
    const handle = openSync(file, 'r+');
    writeSync(handle, Buffer.from(Float32Array.of(5, 7).buffer), 0, 8, hugeBytes);
    closeSync(handle);
    let peak = 0;
    const before = process.memoryUsage().arrayBuffers;
    const loaded = await loadModel(put('huge.onnx', onnx.ModelProto.encode(proto).finish()));
    const reading: OnnxModel = {
      ...loaded,
      readExternal: (...range) => {
        const bytes = loaded.readExternal(...range);
        peak = Math.max(peak, bytes.byteLength);
        return bytes;
      },
    };
    const [huge, small] = findCodable(reading) as [Codable, Codable];
    assert.deepEqual([huge.units, huge.weightBytes], [columns, hugeBytes]);
    assert.deepEqual([...small.layer().weights.slice(0, 1), small.layer().weights[columns]], [5, 7]);
    assert.ok(peak <= 2 ** 24, `read ${peak} bytes at once`);
    assert.ok(process.memoryUsage().arrayBuffers - before < 2 ** 30);
    rmSync(file);
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

  it('refuses random bytes, and fails only typed on a model with bytes changed', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), bytes => refused(loadModel(bytes), 'INVALID_MODEL', /./)),
    );
    const { model, weights } = diamond();
    const change = fc.tuple(fc.nat(model.byteLength - 1), fc.integer({ min: 0, max: 255 }));
    let refusals = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async changes => {
        const changed = Uint8Array.from(model);
        for (const [at, byte] of changes) changed[at] = byte;
        try {
          for (const report of findCodable(await loadModel({ model: changed, weights }))) {
            if (report.codable) report.layer();
          }
        } catch (error) {
          assert.ok(isKofnError(error) && error.code !== 'INTERNAL', String(error));
          refusals++;
        }
      }),
      { numRuns: 500 },
    );
    assert.ok(refusals > 50, `only ${refusals} of 500 changed models were refused`);
  });

  it('refuses constants with other elements than their shape says, inside and beside the model', async () => {
    const model = (constant: TensorProto) => {
      const proto = onnx.ModelProto.decode(
        writeModel({
          nodes: [node('Add', '', ['x', 'w'], ['y'])],
          inputs: [io('x', 1), io('w', 1)],
          outputs: [io('y', 1)],
          constants: [],
        }).model,
      );
      proto.graph!.initializer = [onnx.TensorProto.create({ name: 'w', ...constant })];
      return { model: onnx.ModelProto.encode(proto).finish(), weights: new Uint8Array(100) };
    };
    const external = (entries: Record<string, string>): TensorProto => ({
      dims: [4],
      dataType: 1,
      dataLocation: 1,
      externalData: Object.entries({ location: 'weights.bin', ...entries }).map(([key, value]) => ({ key, value })),
    });
    for (const [constant, message] of [
      [
        { dims: [3], dataType: 1, rawData: new Uint8Array(8) },
        /constant "w" of shape \[3\] holds 3 elements, the model has 2/,
      ],
      [{ dims: [3], dataType: 1, rawData: new Uint8Array(13) }, /the model has 3\.25/],
      [{ dims: [2], dataType: 7, int64Data: [1] }, /holds 2 elements, the model has 1/],
      [{ dims: [-1], dataType: 1, floatData: [1] }, /a size that cannot be/],
      [external({ length: '15' }), /takes 16 bytes, its external data has 15/],
      [external({ offset: '-8' }), /offset "-8", which is no number of bytes/],
      [external({ offset: 'start' }), /offset "start"/],
      [{ ...external({}), dataType: 8 }, /strings in external data/],
    ] as [TensorProto, RegExp][]) {
      await refused(loadModel(model(constant)), 'INVALID_MODEL', message);
    }
    await refused(loadModel(model(external({ offset: '96' }))), 'DATA_LOSS', /100 bytes, the model needs 112/);
    await refused(
      loadModel(model(external({ location: 'other.bin' }))),
      'NOT_FOUND',
      /"other\.bin".*load it by its path/,
    );
    const whole = await loadModel(model(external({ offset: '84' })));
    assert.equal(constantValue(whole, whole.constants.get('w')!).data.length, 4);
  });

  it('reads the elements of every type, wherever the model keeps them', async () => {
    const elements: Record<string, [TensorProto, unknown[]]> = {
      float: [{ dataType: 1, floatData: [0.5, -2] }, [0.5, -2]],
      double: [{ dataType: 11, doubleData: [0.1, 2] }, [0.1, 2]],
      int64: [{ dataType: 7, int64Data: [-1, 7] }, [-1n, 7n]],
      uint64: [{ dataType: 13, uint64Data: [1, 7] }, [1n, 7n]],
      uint32: [{ dataType: 12, uint64Data: [1, 4294967295] }, [1, 4294967295]],
      int8: [{ dataType: 3, int32Data: [-1, 7] }, [-1, 7]],
      bool: [{ dataType: 9, int32Data: [1, 0] }, [1, 0]],
      half: [{ dataType: 10, int32Data: [0x3c00, 0xc000] }, [0x3c00, 0xc000]],
      raw: [{ dataType: 5, rawData: Uint8Array.of(0xff, 0xff, 2, 1) }, [-1, 258]],
      text: [{ dataType: 8, stringData: [Buffer.from('a'), Buffer.from('é')] }, ['a', 'é']],
    };
    const proto = onnx.ModelProto.decode(
      writeModel({
        nodes: [node('Relu', '', ['x'], ['y'])],
        inputs: [io('x', 1)],
        outputs: [io('y', 1)],
        constants: [],
      }).model,
    );
    proto.graph!.initializer = Object.entries(elements).map(([name, [constant]]) =>
      onnx.TensorProto.create({ name, dims: [2], ...constant }),
    );
    const model = await loadModel(onnx.ModelProto.encode(proto).finish());
    for (const [name, [, expected]] of Object.entries(elements)) {
      assert.deepEqual([...(constantValue(model, model.constants.get(name)!).data as unknown[])], expected, name);
    }
  });

  it('gives every node a name of its own, and keeps those that the model gives', async () => {
    const model = await loadModel(
      writeModel({
        nodes: [
          node('Relu', '', ['x'], ['a']),
          node('Relu', 'Relu_0', ['a'], ['b']),
          node('Relu', 'twice', ['b'], ['c']),
          node('Relu', 'twice', ['c'], ['y']),
        ],
        inputs: [io('x', 1)],
        outputs: [io('y', 1)],
        constants: [],
      }),
    );
    assert.deepEqual(
      model.nodes.map(({ name }) => name),
      ['Relu_0_', 'Relu_0', 'twice', 'twice_3'],
    );
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
