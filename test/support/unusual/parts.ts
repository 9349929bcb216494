/** What the models in this folder are made of: those that exporters seldom write and ONNX Runtime opens all the same. */
import { seededRng, tensor, type Tensor, type Tensors } from '@kofn/core';
import { drawn, type GraphSpec, type ModelSpec, type NodeSpec } from '../onnx-models.js';

export const rng = seededRng(15);
export const draw = (...shape: number[]) => drawn(shape, () => rng.normal());
export const thin = (...shape: number[]) => drawn(shape, () => (rng.uniform() < 0.3 ? rng.normal() : 0));
export const scalar = (value: number) => tensor('float32', [], Float32Array.of(value));
export const truth = (value: boolean) => tensor('bool', [], Uint8Array.of(Number(value)));
export const int64 = (...values: number[]) => tensor('int64', [values.length], BigInt64Array.from(values, BigInt));
export const float = { dtype: 'float32' } as const;

export const constant = (output: string, value: Tensor): NodeSpec => {
  return { op: 'Constant', inputs: [], outputs: [output], attributes: { value } };
};
export const op = (
  op: string,
  inputs: string[],
  outputs: string[],
  attributes: NodeSpec['attributes'] = {},
): NodeSpec => {
  return { op, inputs, outputs, attributes };
};
export const If = (condition: string, output: string, branches: readonly [GraphSpec, GraphSpec]): NodeSpec => {
  const [then_branch, else_branch] = branches;
  return op('If', [condition], [output], { then_branch: { graph: then_branch }, else_branch: { graph: else_branch } });
};

export const X = draw(2, 16);
/** h = x · w, the node "fc", then `nodes`. */
export const following = (nodes: NodeSpec[], more: Partial<ModelSpec> = {}): ModelSpec => ({
  nodes: [{ op: 'MatMul', name: 'fc', inputs: ['x', 'w'], outputs: ['h'] }, ...nodes],
  outputs: { y: float },
  ...more,
  inputs: { x: { dtype: 'float32', shape: ['N', 16] }, ...more.inputs },
  initializers: { w: W, ...more.initializers },
});
export const W = draw(16, 8);
export const given = { c: { dtype: 'bool', shape: [] } } as const;

/** h + a constant, in a graph of its own; both branches of an If call theirs alike. */
export const branch = (value: Tensor, by: 'Constant' | 'initializer' = 'Constant'): GraphSpec => ({
  nodes: [...(by === 'Constant' ? [constant('k', value)] : []), op('Add', ['h', 'k'], ['o'])],
  outputs: { o: float },
  ...(by === 'initializer' ? { initializers: { k: value } } : {}),
});
/** Ifs so many deep, with a constant at each depth. */
export const nested = (depth: number, by: 'Constant' | 'initializer'): GraphSpec => {
  if (depth === 0) return branch(draw(8), by);
  const scale = draw(depth === 1 ? 8 : 1);
  const [inner, name, output] = [`inner${depth}`, `scale${depth}`, `o${depth}`];
  return {
    nodes: [
      ...(by === 'Constant' ? [constant(name, scale)] : []),
      If('c', inner, [nested(depth - 1, by), nested(depth - 1, by)]),
      op('Mul', [inner, name], [output]),
    ],
    outputs: { [output]: float },
    ...(by === 'initializer' ? { initializers: { [name]: scale } } : {}),
  };
};
export const counting = (nodes: NodeSpec[]): GraphSpec => ({
  nodes: [...nodes, op('Identity', ['going'], ['goes'])],
  inputs: { i: { dtype: 'int64', shape: [] }, going: { dtype: 'bool', shape: [] }, before: float },
  outputs: { goes: { dtype: 'bool' }, behind: float },
});
export const looped = (body: GraphSpec) => [
  constant('n', tensor('int64', [], BigInt64Array.of(3n))),
  constant('go', truth(true)),
  op('Loop', ['n', 'go', 'h'], ['y'], { body: { graph: body } }),
];

/** `more`: what is fed beside `x`; the layers that are coded, "fc" unless said otherwise; what the plan says of the model, if anything. */
export type Row = readonly [
  what: string,
  spec: ModelSpec,
  more?: { readonly feeds?: Tensors; readonly coded?: readonly string[]; readonly note?: RegExp },
];
export const FED = { c: truth(true) };

export const linear = (more: Partial<ModelSpec>, nodes: NodeSpec[] = []): ModelSpec => ({
  nodes: [...nodes, { op: 'MatMul', name: 'fc', inputs: ['x', 'w'], outputs: ['y'] }],
  inputs: { x: { dtype: 'float32', shape: ['N', 16] } },
  outputs: { y: float },
  ...more,
});
