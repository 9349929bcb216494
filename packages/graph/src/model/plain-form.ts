/**
 * Rewrites what is linear but for an extra, so that the linear part can be coded by itself: Gemm with an addend C that is no
 * value an output becomes Gemm, then the addition, which stays local. With beta = 0 C is not read, and the Gemm is plain as it is.
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
/** Since opset 11 a Gemm may have no C. */
const OPTIONAL_FROM = 11;

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

/** What is known of the model that the node is in. */
export interface PlainContext {
  /** By value name. */
  readonly constants: ReadonlyMap<string, TensorProto>;
  readonly opset: number;
  /** Names of values and nodes; those that are made here are added. */
  readonly taken: Set<string>;
}

/** `node`, called `name`, or the nodes to put in its place. */
export function plainForm(node: NodeProto, name: string, { constants, opset, taken }: PlainContext): PlainForm {
  const asIs = { nodes: [{ proto: node, name }], constants: [] };
  const [a = '', b = '', c = ''] = node.input ?? [];
  const weights = constants.get(b);
  if (node.opType !== 'Gemm' || !isStandard(node) || opset < BROADCASTS_FROM) return asIs;
  if (weights === undefined || dtypeOf(weights.dataType) !== 'float32' || c === '') return asIs;
  const beta = floatAttribute(node, 'beta', 1);
  if (beta === 0) return asIs;
  const addend = constants.get(c);
  const sizes = shapeOf(weights);
  const units = sizes[intAttribute(node, 'transB', 0) === 0 ? 1 : 0] ?? 0;
  if (addend !== undefined && isPerUnit(shapeOf(addend), units)) return asIs;

  const fresh = (wanted: string) => {
    let free = wanted;
    while (taken.has(free)) free += '_';
    taken.add(free);
    return free;
  };
  const output = node.output![0]!;
  const product = fresh(`${output}/product`);
  const scalar = (name: string, value: number) => {
    return { name: fresh(name), dataType: elementTypeOf('float32'), dims: [], floatData: [value] };
  };
  const nothing = opset < OPTIONAL_FROM ? [scalar(`${name}/nothing`, 0)] : [];
  const plain = { ...node, input: [a, b, ...nothing.map(constant => constant.name)], output: [product] };
  const adding = (value: string) => {
    const proto = { opType: 'Add', name: fresh(addendName(name)), input: [product, value], output: [output] };
    return { proto, name: proto.name };
  };
  if (beta === 1) return { nodes: [{ proto: plain, name }, adding(c)], constants: nothing };
  const scale = scalar(`${name}/beta`, beta);
  const scaled = fresh(`${output}/addend`);
  const multiply = { opType: 'Mul', name: fresh(`${name}/scaled addend`), input: [c, scale.name], output: [scaled] };
  return {
    nodes: [{ proto: plain, name }, { proto: multiply, name: multiply.name }, adding(scaled)],
    constants: [...nothing, scale],
  };
}

/** Whether an addend of `shape` is one value an output, or one for all: (), (1), (1,1), (N) or (1,N). */
export function isPerUnit(shape: readonly number[], units: number): boolean {
  const count = elementCount(shape);
  return shape.length <= 2 && (count === 1 || (count === units && shape[shape.length - 1] === units));
}
