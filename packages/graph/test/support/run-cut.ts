/** Runs a cut as a master would, every coded layer as its whole layer model. */
import assert from 'node:assert/strict';
import type { Tensor, Tensors } from '@kofn/core';
import {
  cutModel,
  findCodable,
  layerModel,
  layerOutput,
  modelFiles,
  outputShape,
  probeModel,
  shardInput,
  type Codable,
  type OnnxModel,
} from '../../src/index.js';
import { runModel } from './ort.js';

/** The model's outputs from the steps of its cut at `coded`. Fails when a step reads what no earlier step made. */
export async function runCut(model: OnnxModel, coded: readonly string[], inputs: Tensors): Promise<Tensors> {
  const crossing = cutModel(model, coded).steps.flatMap(step =>
    step.kind === 'segment'
      ? [...step.inputs, ...step.outputs]
      : [step.input, ...step.layers.map(layer => layer.output)],
  );
  const probed = { ...inputs, ...(await runModel(modelFiles(probeModel(model, crossing)), inputs)) };
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
      const made = await runModel(
        modelFiles(step.image()),
        Object.fromEntries(step.inputs.map(name => [name, take(name)])),
      );
      assert.deepEqual(Object.keys(made).sort(), [...step.outputs].sort());
      for (const [name, value] of Object.entries(made)) known.set(name, value);
    } else {
      for (const { node, output } of step.layers) {
        const layer = (layers.get(node) as Codable).layer();
        const input = take(step.input);
        const { y } = await runModel(layerModel(layer), { x: shardInput(layer, input) });
        known.set(output, layerOutput(layer, outputShape(layer, input.shape), y!.data as Float32Array));
      }
    }
  }
  return Object.fromEntries(model.outputs.map(({ name }) => [name, take(name)]));
}
