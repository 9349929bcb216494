/**
 * Weights that nodes make of constants alone and that ONNX Runtime's optimisation leaves (DequantizeLinear; everything where
 * nothing was normalised): computed once, they are constants like others.
 */
import { tensorBytes, type Tensors } from '@kofn/core';
import { castConstant } from './codable.js';
import { neededNodes, type GraphNode, type ModelImage, type OnnxModel } from '../model/graph.js';
import { isLinear } from '../model/original-names.js';
import { elementTypeOf, isStandard } from '../model/proto.js';
import { subModel } from './sub-model.js';

/** Makes something else each time. */
const RANDOM = /^(Random|Multinomial|Bernoulli)/;

export interface ComputedWeights {
  readonly values: readonly string[];
  /** The nodes that make them, as a model without inputs. */
  image(): ModelImage;
}

/** The computed weights of linear nodes; undefined when there are none. */
export function computedWeights(model: OnnxModel): ComputedWeights | undefined {
  const known = new Map<string, boolean>();
  const isComputed = (value: string): boolean => {
    const producer = model.producers.get(value);
    if (producer === undefined) return false;
    let computed = known.get(value);
    if (computed === undefined) {
      const overridable = (name: string) => model.overridable.some(input => input.name === name);
      computed =
        isStandard(producer.proto) &&
        !RANDOM.test(producer.op) &&
        producer.outputs.length === 1 &&
        producer.reads.every(name => (model.constants.has(name) && !overridable(name)) || isComputed(name));
      known.set(value, computed);
    }
    return computed;
  };
  const values = model.nodes
    .filter(node => isLinear(node.proto) && !isQuantised(model, node))
    .flatMap(node => node.reads)
    .filter(
      (value, i, all) => all.indexOf(value) === i && isComputed(value) && castConstant(model, value) === undefined,
    );
  if (values.length === 0) return undefined;
  return {
    values,
    image: () => subModel(model, neededNodes(model, { values }), [], values),
  };
}

/** `model` with `values`, the computed weights, as constants in the place of the nodes that make them. */
export function withConstants(model: OnnxModel, values: Tensors): OnnxModel {
  const constants = new Map(model.constants);
  const producers = new Map(model.producers);
  const folded = new Set<GraphNode>();
  for (const [name, value] of Object.entries(values)) {
    constants.set(name, {
      name,
      dims: [...value.shape],
      dataType: elementTypeOf(value.dtype),
      rawData: tensorBytes(value),
    });
    folded.add(producers.get(name)!);
    producers.delete(name);
  }
  return { ...model, constants, producers, nodes: model.nodes.filter(node => !folded.has(node)) };
}

/** Whether the node's data is quantised too: ONNX Runtime then computes with integers, which a float layer is not equal to. */
function isQuantised(model: OnnxModel, node: GraphNode): boolean {
  return node.reads.some(value => {
    const producer = model.producers.get(value);
    return producer?.op === 'DequantizeLinear' && !model.constants.has(producer.reads[0]!);
  });
}
