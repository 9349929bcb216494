/** Whole graphs: whatever is coded of them, whoever runs the rest, and whichever workers are lost, they give what ONNX Runtime gives. */
import assert from 'node:assert/strict';
import { createEngine, type Engine } from '@kofn/engine';
import fc from 'fast-check';
import { after, before, describe, it } from 'mocha';
import { isLong, itWhenLong } from '../support/form.js';
import { lossyCluster, runLossy } from '../support/lossy-cluster.js';
import { makeModel, runWhole } from '../support/onnx-models.js';
import { randomGraph } from '../support/random-graph.js';
import { assertClose, largest } from '../support/single-node.js';

/** Of the output's largest element: a chain of a dozen layers, each within 1e-5 of its own. */
const TOLERANCE = 2e-4;

describe('random graphs with branches, shared weights, If and Loop, give the uncoded result', () => {
  let engine: Engine;
  const [seen, coded] = [new Set<string>(), new Set<string>()];
  before(async () => (engine = await createEngine('native')));
  after(() => engine[Symbol.asyncDispose]());

  for (const [losses, lost] of [
    ['one loss', [1]],
    ['two losses', [0, 3]],
  ] as const) {
    it(`with ${losses}`, async () => {
      await using lossy = await lossyCluster(lost);
      await fc.assert(
        fc.asyncProperty(randomGraph, fc.nat(5), async ({ spec, feeds }, turn) => {
          const files = makeModel(spec);
          const whole = await runWhole(engine, files, feeds);
          // Of every sixth graph: more workers open more sessions, which takes longer than all else.
          const segments = turn === 0 ? 'replicated' : 'local';
          const { outputs, layers } = await runLossy(lossy, files, feeds, { segments });
          assert.deepEqual(Object.keys(outputs).sort(), Object.keys(whole).sort());
          for (const [name, value] of Object.entries(whole)) {
            assertClose(outputs[name]!, value, TOLERANCE * (1e-3 + largest(value)), name);
          }
          for (const { name, operator, decision } of layers) {
            assert.ok(
              spec.nodes.some(node => node.name === name),
              `${name} is no node of the file`,
            );
            if (decision === 'coded') coded.add(operator);
          }
          for (const { op } of spec.nodes) seen.add(op);
        }),
        { numRuns: isLong ? 25 : 10 },
      );
    });
  }

  itWhenLong('and were of every kind', () => {
    assert.deepEqual([...coded].sort(), ['Conv', 'Gemm', 'MatMul']);
    for (const op of ['If', 'Loop', 'Add', 'Concat']) assert.ok(seen.has(op), `${op} was not tried`);
  });
});
