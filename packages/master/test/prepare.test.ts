/** A model in the form that ONNX Runtime opens, and what its user is told of it. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { float32, isKofnError, KofnError } from '@kofn/core';
import { createEngine, type Engine } from '@kofn/engine';
import { layerModel, type ModelFiles } from '@kofn/graph';
import { after, before, describe, it } from 'mocha';
import { prepareModel, type ModelSource, type PreparedModel } from '../src/planning/prepare.js';

/** y = relu(x · w), two units. */
const files: ModelFiles = layerModel(
  { name: 'fc', operator: 'Gemm', units: 2, fanIn: 3, weights: Float32Array.of(1, 2, 3, -1, -2, -3), bias: undefined },
  'relu',
);
const x = float32([1, 3], Float32Array.of(1, 1, 1));

describe('prepareModel', () => {
  let native: Engine;
  before(async () => {
    native = await createEngine('native');
  });
  after(() => native[Symbol.asyncDispose]());

  /** The native engine, `spoil`ing each copy that it has normalised, as a defect of ONNX Runtime would. */
  const spoiling = (spoil: (file: string) => void): Engine => ({
    name: native.name,
    version: native.version,
    open: (location, options) => native.open(location, options),
    async normalise(modelFile, target) {
      await native.normalise!(modelFile, target);
      spoil(path.join(target, 'model.onnx'));
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
  /** "Relu" is an operator, "Rely" is none. */
  const misspelt = (model: Uint8Array) =>
    Buffer.from(Buffer.from(model).toString('latin1').replace('Relu', 'Rely'), 'latin1');

  async function run(source: ModelSource, engine: Engine, use?: (prepared: PreparedModel) => void) {
    return prepareModel(source, engine, async prepared => {
      use?.(prepared);
      const { model, notes } = prepared;
      await using session = await prepared.probe(['y'], 1);
      const { y } = await session.run({ x });
      await prepared.close();
      return { y: [...(y!.data as Float32Array)], notes, undivided: model.undivided };
    });
  }

  it('is normalised where the copy opens, with nothing to say', async () => {
    assert.deepEqual(await run(files, native), { y: [6, 0], notes: [], undivided: undefined });
  });

  for (const [what, spoil, why] of [
    ['does not open', file => writeFileSync(file, misspelt(readFileSync(file))), /Rely/],
    ['is no model', file => writeFileSync(file, 'text'), /not an ONNX file, or it is cut off/],
  ] as [string, (file: string) => void, RegExp][]) {
    it(`is taken as its file has it where the copy ${what}, and says so`, async () => {
      const { y, notes, undivided } = await run(files, spoiling(spoil));
      assert.deepEqual([y, undivided, notes.length], [[6, 0], undefined, 1]);
      assert.match(notes[0]!, /^not normalised, and run as its file has it: /);
      assert.match(notes[0]!, why);
    });
  }

  it('is taken as a whole where the file is refused in parts, and nothing of it is coded', async () => {
    const whole = await run(files, native, ({ model }) => {
      if (model.undivided === undefined) throw new KofnError('UNSUPPORTED', 'its parts are refused');
    });
    assert.match(whole.undivided!, /^ONNX Runtime opens the model as a whole only: its parts are refused$/);
    assert.deepEqual(whole, { y: [6, 0], notes: [whole.undivided], undivided: whole.undivided });
  });

  it('that does not open in any form is refused in the words on its file, and is closed each time', async () => {
    let open = 0;
    const closes = (prepared: PreparedModel) => {
      open++;
      const close = prepared.close.bind(prepared);
      Object.assign(prepared, { close: () => (open--, close()) });
    };
    const broken = { ...files, model: misspelt(files.model) };
    await assert.rejects(run(broken, native, closes), (error: unknown) => {
      assert.ok(isKofnError(error, 'INVALID_MODEL'), String(error));
      assert.match(error.message, /^ONNX Runtime cannot open the model .*Rely/s);
      return true;
    });
    assert.equal(open, 0);
  });

  it('ends at what another form would not change', async () => {
    let forms = 0;
    const failing = run(files, native, () => {
      forms++;
      throw new KofnError('ENGINE', 'it failed');
    });
    await assert.rejects(failing, { code: 'ENGINE' });
    assert.equal(forms, 1);
  });
});
