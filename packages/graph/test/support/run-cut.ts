/** Runs a cut as a master would, every coded layer as its whole layer model. */
import assert from 'node:assert/strict';
import type { Tensor, Tensors } from '@kofn/core';
import { cutModel, findCodable, layerModel, probeModel, type Codable, type OnnxModel } from '../../src/index.js';
import { runModel } from './ort.js';

/** The model's outputs from the steps of its cut at `coded`. Fails when a step reads what no earlier step made. */
export async function runCut(model: OnnxModel, coded: readonly string[], inputs: Tensors): Promise<Tensors> {
  const crossing = cutModel(model, coded).steps.flatMap(step =>
    step.kind === 'segment' ? [...step.inputs, ...step.outputs] : [step.input, step.output],
  );
  const probed = { ...inputs, ...(await runModel(probeModel(model, crossing), inputs)) };
  const types = Object.fromEntries(
    Object.entries(probed).map(([name, { dtype, shape }]) => [name, { dtype, rank: shape.length }]),
  );
  const layers = new Map(findCodable(model).map(report => [report.node, report]));
  const known = new Map<string, Tensor>(Object.entries(inputs));
  const take = (name: string): Tensor => {
    const value = known.get(name);
    assert.ok(value, `"${name}" is read before it is made`);
    return value;
  };
  for (const step of cutModel(model, coded, types).steps) {
    if (step.kind === 'segment') {
      const made = await runModel(step.files(), Object.fromEntries(step.inputs.map(name => [name, take(name)])));
      assert.deepEqual(Object.keys(made).sort(), [...step.outputs].sort());
      for (const [name, value] of Object.entries(made)) known.set(name, value);
    } else {
      const { y } = await runModel(layerModel((layers.get(step.node) as Codable).layer()), { x: take(step.input) });
      known.set(step.output, y!);
    }
  }
  return Object.fromEntries(model.outputs.map(({ name }) => [name, take(name)]));
}
