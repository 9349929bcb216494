/**
 * Rewrites what is linear but for an extra, so that the linear part can be coded by itself: Gemm with an addend C that is no
 * value an output becomes Gemm, then the addition, which stays local.
 */
import { elementCount } from '@kofn/core';
import {
  dtypeOf,
  elementTypeOf,
  floatAttribute,
  intAttribute,
  isStandard,
  shapeOf,
  type NodeProto,
  type TensorProto,
} from './proto.js';

/** Since opset 7 Add and Mul broadcast as Gemm's C does. */
const BROADCASTS_FROM = 7;

export interface PlainForm {
  /** In topological order; the linear node keeps its place and its name. */
  readonly nodes: readonly { readonly proto: NodeProto; readonly name: string }[];
  /** Constants that the nodes read beside the model's. */
  readonly constants: readonly TensorProto[];
}

/** The node that adds what `name`, split by `plainForm`, left out. */
export function addendName(name: string): string {
  return `${name}/addend`;
}

/** `node`, called `name`, or the nodes to put in its place. `constants` are those known so far, by value name. */
export function plainForm(
  node: NodeProto,
  name: string,
  constants: ReadonlyMap<string, TensorProto>,
  opset: number,
): PlainForm {
  const asIs = { nodes: [{ proto: node, name }], constants: [] };
  const [, b = '', c = ''] = node.input ?? [];
  const weights = constants.get(b);
  if (node.opType !== 'Gemm' || !isStandard(node) || opset < BROADCASTS_FROM) return asIs;
  if (weights === undefined || dtypeOf(weights.dataType) !== 'float32' || c === '') return asIs;
  const addend = constants.get(c);
  const sizes = shapeOf(weights);
  const units = sizes[intAttribute(node, 'transB', 0) === 0 ? 1 : 0] ?? 0;
  if (addend !== undefined && isPerUnit(shapeOf(addend), units)) return asIs;

  const output = node.output![0]!;
  const [product, scale, scaled] = [`${output}/product`, `${name}/beta`, `${output}/addend`];
  const beta = floatAttribute(node, 'beta', 1);
  const plain = { ...node, input: node.input!.slice(0, 2), output: [product] };
  const add = { opType: 'Add', name: addendName(name), input: [product, beta === 1 ? c : scaled], output: [output] };
  if (beta === 1)
    return {
      nodes: [
        { proto: plain, name },
        { proto: add, name: add.name },
      ],
      constants: [],
    };
  const multiply = { opType: 'Mul', name: `${name}/scaled addend`, input: [c, scale], output: [scaled] };
  return {
    nodes: [plain, multiply, add].map((proto, i) => ({ proto, name: i === 0 ? name : proto.name! })),
    constants: [{ name: scale, dataType: elementTypeOf('float32'), dims: [], floatData: [beta] }],
  };
}

/** Whether an addend of `shape` is one value an output, or one for all: (), (1), (1,1), (N) or (1,N). */
export function isPerUnit(shape: readonly number[], units: number): boolean {
  const count = elementCount(shape);
  return shape.length <= 2 && (count === 1 || (count === units && shape[shape.length - 1] === units));
}
