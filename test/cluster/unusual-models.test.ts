/**
 * What ONNX Runtime opens opens here, is coded where it can be, with a block lost, and gives what ONNX Runtime gives for the file: normalised,
 * and as the file has it (the WebAssembly engine does not normalise).
 */
import assert from 'node:assert/strict';
import { createEngine, type Engine } from '@kofn/engine';
import { after, before, describe, it } from 'mocha';
import { lossyCluster, runLossy, type LossyCluster } from '../support/lossy-cluster.js';
import { makeModel, runWhole } from '../support/onnx-models.js';
import { assertClose, largest } from '../support/single-node.js';
import { GEMM } from '../support/unusual/gemm.js';
import { INNER, SPARSE } from '../support/unusual/graphs.js';
import { X, type Row } from '../support/unusual/parts.js';
import { CARRYING, OTHER } from '../support/unusual/values.js';

describe('a model that ONNX Runtime opens', () => {
  let engine: Engine;
  let wasm: LossyCluster;
  let native: LossyCluster;
  before(async () => {
    engine = await createEngine('native');
    native = await lossyCluster([1]);
    wasm = await lossyCluster([1], 'wasm');
  });
  after(async () => {
    await native[Symbol.asyncDispose]();
    await wasm[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  async function check([, spec, { feeds = {}, coded = ['fc'], note = /^$/ } = {}]: Row): Promise<void> {
    const files = makeModel(spec);
    const all = { x: X, ...feeds };
    const tensors = Object.entries(spec.outputs).filter(([, type]) => !('elementType' in type));
    const expected = await runWhole(engine, makeModel({ ...spec, outputs: Object.fromEntries(tensors) }), all);
    await Promise.all(
      Object.entries({ normalised: native, 'as its file has it': wasm }).map(async ([form, lossy]) => {
        const { outputs, layers, notes } = await runLossy(lossy, files, all);
        const names = layers.filter(({ decision }) => decision === 'coded').map(({ name }) => name);
        assert.deepEqual(names, coded, form);
        const said = lossy === native ? note : /^not normalised, .*: the WebAssembly engine does not|as a whole only/;
        assert.match(notes.join('\n'), said);
        const told = lossy.cluster.events.filter(({ kind }) => kind === 'noted').map(({ message }) => message);
        for (const text of notes) assert.ok(told.includes(`model: ${text}`), text);
        for (const [name, value] of Object.entries(expected)) {
          const limit = value.dtype === 'float32' ? 1e-5 * largest(value) : Infinity;
          if (limit === Infinity) assert.deepEqual(outputs[name], value, `${form}: ${name}`);
          else assertClose(outputs[name]!, value, limit, `${form}: ${name}`);
        }
      }),
    );
  }

  for (const [what, cases] of [
    ['with graphs inside its nodes', INNER],
    ['with sparse constants', SPARSE],
    ['with what no request carries', CARRYING],
    ['with a Gemm', GEMM],
    ['with', OTHER],
  ] as const) {
    describe(what, () => {
      for (const row of cases) it(row[0], () => check(row));
    });
  }
});
