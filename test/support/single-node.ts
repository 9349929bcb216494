/** Models with one node to look at, coded with losses and held against ONNX Runtime. */
import assert from 'node:assert/strict';
import { fromHalf, type Tensor, type Tensors } from '@kofn/core';
import { exactTolerance } from '@kofn/encoder';
import type { Engine } from '@kofn/engine';
import { runLossy, type LossyCluster } from './lossy-cluster.js';
import { makeModel, runWhole, type AttributeSpec, type ModelSpec } from './onnx-models.js';

/** Outputs (of a group) that a code can split: coded with up to so many blocks, local with more. Or either will do. */
export type Split = number | 'either';
export const LOCAL: Split = 0;

/** A model whose node "node" makes its output `y`. */
export interface Case {
  readonly spec: ModelSpec;
  readonly feeds: Tensors;
  readonly split: Split;
}

export type Attributes = Record<string, AttributeSpec>;

/** float16 has 11 bits: outputs are rounded to 2^-11 of themselves, here and in ONNX Runtime. */
const HALF_TOLERANCE = 2e-3;

/** The node `op` on `operands`, in their order; those not in `constants` are inputs. */
export function single(
  op: string,
  attributes: Attributes,
  operands: Tensors,
  constants: readonly string[],
  split: Split,
): Case {
  const pick = (constant: boolean) =>
    Object.fromEntries(Object.entries(operands).filter(([name]) => constants.includes(name) === constant));
  return {
    spec: {
      nodes: [{ op, name: 'node', inputs: Object.keys(operands), outputs: ['y'], attributes }],
      inputs: inputsOf(pick(false)),
      outputs: { y: { dtype: Object.values(operands)[0]!.dtype } },
      initializers: pick(true),
    },
    feeds: pick(false),
    split,
  };
}

/** Graph inputs for `values`. */
export function inputsOf(values: Tensors): ModelSpec['inputs'] {
  return Object.fromEntries(Object.entries(values).map(([name, { dtype, shape }]) => [name, { dtype, shape }]));
}

/** Passes when on each cluster the plan says of `one` what it should and the output is ONNX Runtime's, exact. */
export async function check(engine: Engine, clusters: readonly LossyCluster[], one: Case, what: string): Promise<void> {
  const files = makeModel(one.spec);
  const { y: whole } = await runWhole(engine, files, one.feeds);
  const reach = await reachOf(engine, one);
  await Promise.all(
    clusters.map(async lossy => {
      const k = lossy.sound.length;
      const title = `${what}, k = ${k}`;
      const { outputs, layers } = await runLossy(lossy, files, one.feeds).catch((cause: unknown) => {
        throw new Error(`${title}: ${String(cause)}`, { cause });
      });
      const layer = layers.find(({ name }) => name === 'node');
      assert.ok(layer, `${title}: the plan does not list the node`);
      if (one.split !== 'either') {
        assert.equal(layer.decision, one.split >= k ? 'coded' : 'local', `${title}: ${layer.reason}`);
      }
      assert.notEqual(layer.reason, '', `${title}: a reason`);
      assertClose(outputs['y']!, whole!, toleranceOn(lossy, whole!) * reach, title);
    }),
  );
}

/** How far an output on `lossy` may be from `whole`, relative to ‖(w_row, bias)‖·‖(x, 1)‖. */
export function toleranceOn({ lost, sound }: LossyCluster, { dtype }: Tensor): number {
  if (dtype === 'float16') return HALF_TOLERANCE;
  return exactTolerance({ name: lost.length === 1 ? 'sum' : 'rotation', k: sound.length, r: lost.length });
}

/** Passes when type and shape are equal and no element is further off than `limit`. */
export function assertClose(given: Tensor, expected: Tensor, limit: number, title: string): void {
  assert.deepEqual([given.dtype, given.shape], [expected.dtype, expected.shape], title);
  const [got, wanted] = [valuesOf(given), valuesOf(expected)];
  const wrong = got.findIndex((value, i) => !(Math.abs(value - wanted[i]!) <= limit));
  if (wrong >= 0) assert.fail(`${title}: element ${wrong} is ${got[wrong]}, not ${wanted[wrong]} within ${limit}`);
}

/** The largest absolute value of a float32 or float16 tensor. */
export function largest(value: Tensor): number {
  return valuesOf(value).reduce((most, element) => Math.max(most, Math.abs(element)), 0);
}

/**
 * The largest Σ|w||x| + |b| of any output: what ONNX Runtime gives for absolute values throughout. By Cauchy-Schwarz no
 * more than the largest ‖(w_row, bias)‖·‖(x, 1)‖; the rows of these tests are drawn alike, so one figure does for all.
 */
async function reachOf(engine: Engine, { spec, feeds }: Case): Promise<number> {
  const nodes = spec.nodes.map(({ attributes = {}, ...node }) => ({
    ...node,
    attributes: Object.fromEntries(Object.entries(attributes).map(([name, value]) => [name, absoluteOf(value)])),
  }));
  const files = makeModel({ ...spec, nodes, initializers: absolutes(spec.initializers ?? {}) });
  const { y } = await runWhole(engine, files, absolutes(feeds));
  return largest(y!);
}

function absolutes(values: Tensors): Tensors {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, absolute(value)]));
}

function absoluteOf(value: AttributeSpec): AttributeSpec {
  if (typeof value !== 'object') return value;
  if ('float' in value) return { float: Math.abs(value.float) };
  return 'dtype' in value ? absolute(value) : value; // a graph inside has no weights of its own
}

function absolute(value: Tensor): Tensor {
  const { dtype, data } = value;
  if (dtype === 'float16') return { ...value, data: (data as Uint16Array).map(bits => bits & 0x7fff) };
  if (dtype === 'float32' || dtype === 'int8') return { ...value, data: (data as Float32Array).map(Math.abs) };
  return value;
}

function valuesOf(value: Tensor): Float32Array {
  return value.dtype === 'float16'
    ? Float32Array.from(value.data as Uint16Array, fromHalf)
    : (value.data as Float32Array);
}
