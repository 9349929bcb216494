import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { isKofnError, KofnError, tensor, type Tensor } from '@kofn/core';
import { after, before, describe, it } from 'mocha';
import onnxProto from 'onnx-proto';
import { Reference } from '../src/answers/reference.js';

const { onnx } = onnxProto;
const FLOAT = 1;

describe('the uncoded model to compare with', () => {
  let folder: string;
  let model: string;
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'kofn-test-reference-'));
    model = path.join(folder, 'sum.onnx');
    const value = (name: string) => ({
      name,
      type: { tensorType: { elemType: FLOAT, shape: { dim: [{ dimParam: 'n' }] } } },
    });
    const weights = Float32Array.of(1000, 2000);
    writeFileSync(path.join(folder, 'w.data'), new Uint8Array(weights.buffer));
    const proto = onnx.ModelProto.create({
      irVersion: 7,
      opsetImport: [{ domain: '', version: 13 }],
      graph: {
        name: 'sum',
        node: [{ opType: 'Add', input: ['x', 'w'], output: ['y'] }],
        input: [value('x')],
        output: [value('y')],
        initializer: [
          {
            name: 'w',
            dims: [2],
            dataType: FLOAT,
            dataLocation: 1,
            externalData: [
              { key: 'location', value: 'w.data' },
              { key: 'length', value: '8' },
            ],
          },
        ],
      },
    });
    writeFileSync(model, onnx.ModelProto.encode(proto).finish());
  });
  after(() => rmSync(folder, { recursive: true }));
  const x = (...values: number[]): Tensor => tensor('float32', [values.length], Float32Array.from(values));

  for (const engine of ['native', 'wasm'] as const) {
    it(`runs in another process, external data and all: ${engine}`, async () => {
      await using reference = await Reference.open(model, { engine });
      assert.deepEqual(await reference.run({ x: x(1, 2) }), { y: x(1001, 2002) });
      assert.deepEqual(await reference.run({ x: x(-1, 0) }), { y: x(999, 2000) });
    });
  }

  it('tells what ONNX Runtime differs from itself, and answers at the optimisation that plans begin with', async () => {
    const file = path.join(folder, 'int8.onnx');
    // y = 0.1 * w8 * x in float32; with all optimisations x is rounded to 255 steps first.
    const proto = onnx.ModelProto.create({
      irVersion: 7,
      opsetImport: [{ domain: '', version: 13 }],
      graph: {
        name: 'int8',
        node: [
          { opType: 'DequantizeLinear', input: ['w8', 'scale', 'zero'], output: ['w'] },
          { opType: 'MatMul', input: ['x', 'w'], output: ['y'] },
        ],
        input: [
          { name: 'x', type: { tensorType: { elemType: FLOAT, shape: { dim: [{ dimValue: 1 }, { dimValue: 3 }] } } } },
        ],
        output: [{ name: 'y', type: { tensorType: { elemType: FLOAT } } }],
        initializer: [
          { name: 'w8', dims: [3, 1], dataType: 3, rawData: new Uint8Array(Int8Array.of(100, 50, -120).buffer) },
          { name: 'scale', dims: [], dataType: FLOAT, rawData: new Uint8Array(Float32Array.of(0.1).buffer) },
          { name: 'zero', dims: [], dataType: 3, rawData: new Uint8Array(1) },
        ],
      },
    });
    writeFileSync(file, onnx.ModelProto.encode(proto).finish());
    const sample = { x: tensor('float32', [1, 3], Float32Array.of(1, 0.3333, -0.7777)) };
    await using reference = await Reference.open(file, { sample });
    const exact = 10 + 5 * 0.3333 + 12 * 0.7777;
    const { y } = await reference.run(sample);
    assert.ok(Math.abs(Number(y!.data[0]) - exact) < 1e-5, String(y!.data[0]));
    assert.equal(reference.settings.length, 3);
    assert.ok(
      reference.differences['y']! > 1e-5 && reference.differences['y']! < 1e-2,
      String(reference.differences['y']),
    );
    await using plain = await Reference.open(file);
    assert.deepEqual([plain.settings, plain.differences, await plain.run(sample)], [[], {}, { y }]);
  });

  it('says what ONNX Runtime says against an input, and goes on', async () => {
    await using reference = await Reference.open(model);
    await assert.rejects(reference.run({ z: x(1) }), (error: unknown) => {
      assert.ok(isKofnError(error, 'ENGINE'), String(error));
      assert.match(error.message, /--compare.*x/);
      return true;
    });
    assert.deepEqual(await reference.run({ x: x(1, 2) }), { y: x(1001, 2002) });
  });

  it('says when ONNX Runtime refuses the model', async () => {
    const bad = path.join(folder, 'bad.onnx');
    const proto = onnx.ModelProto.create({
      irVersion: 7,
      opsetImport: [{ domain: '', version: 13 }],
      graph: {
        name: 'bad',
        node: [{ opType: 'NoSuchOperator', input: ['x'], output: ['y'] }],
        input: [{ name: 'x', type: { tensorType: { elemType: FLOAT } } }],
        output: [{ name: 'y', type: { tensorType: { elemType: FLOAT } } }],
      },
    });
    writeFileSync(bad, onnx.ModelProto.encode(proto).finish());
    await assert.rejects(Reference.open(bad), (error: unknown) => isKofnError(error, 'INVALID_MODEL'));
  });

  it('ends with its signal', async () => {
    const controller = new AbortController();
    await using reference = await Reference.open(model, { signal: controller.signal });
    const asked = reference.run({ x: x(1, 2) });
    controller.abort(new KofnError('CANCELLED', 'enough'));
    await assert.rejects(asked, /enough/);
    await assert.rejects(reference.run({ x: x(1, 2) }), /enough/);
  });
});
