/**
 * `codedLayer`: one dense or convolution layer on a cluster. The layer becomes a one-layer ONNX model and takes the path
 * of every model (coded-model.ts).
 */
import { elementCount, float32, KofnError, type Float32Tensor, type Shape, type Tensor } from '@kofn/core';
import {
  ACTIVATIONS,
  extractNode,
  findCodable,
  layerModel,
  loadModel,
  type ActivationName,
  type ConvAttributes,
  type LinearLayer,
  type ModelFiles,
} from '@kofn/graph';
import type { Cluster } from './fleet/cluster.js';
import { codedModel, type CodedModel, type RunResult } from './coded-model.js';
import type { CodeOptions, RunOptions, ReplanOptions } from './contract/options.js';
import type { Plan, Replanned } from './contract/plan.js';
import { prepareModel, type ModelSource } from './planning/prepare.js';
import type { AuditCounts } from './contract/report.js';
import type { LayerHealth } from './contract/health.js';

/** Anything with rows and columns, ml-matrix's Matrix among them. */
export interface MatrixLike {
  readonly rows: number;
  readonly columns: number;
  get(row: number, column: number): number;
}

/** Row-major values with their shape. */
export interface ShapedArray {
  readonly data: ArrayLike<number>;
  readonly shape: Shape;
}

export interface DenseLayer {
  readonly type: 'dense';
  /** [outputs, inputs]: output = weights · input + bias. */
  readonly weights: MatrixLike | readonly (readonly number[])[] | ShapedArray;
  /** One value an output. */
  readonly bias?: ArrayLike<number>;
  readonly activation?: ActivationName;
  readonly name?: string;
}

/** ONNX's Conv: 1-D, 2-D or 3-D; array options have one entry a spatial dimension, `pads` two (begins, then ends). */
export interface ConvLayer {
  readonly type: 'conv';
  /** [output channels, input channels / groups, ...kernel]. */
  readonly weights: ShapedArray;
  /** One value an output channel. */
  readonly bias?: ArrayLike<number>;
  readonly strides?: readonly number[];
  readonly pads?: readonly number[];
  readonly dilations?: readonly number[];
  readonly groups?: number;
  readonly activation?: ActivationName;
  readonly name?: string;
}

/** A Gemm, MatMul or Conv node of an ONNX model, by name. */
export interface OnnxLayer {
  readonly onnx: ModelSource;
  readonly node: string;
}

export type LayerSpec = DenseLayer | ConvLayer | OnnxLayer;

export interface LayerResult extends Omit<RunResult, 'outputs'> {
  readonly output: Float32Tensor;
}

export class CodedLayer implements AsyncDisposable {
  readonly #model: CodedModel;

  /** @internal Use {@link codedLayer}. */
  constructor(model: CodedModel) {
    this.#model = model;
  }

  get plan(): Plan {
    return this.#model.plan;
  }

  /** How it stands now: which of its blocks are on ready workers, and how many may still be lost. */
  get health(): LayerHealth {
    return this.#model.health.layers[0]!;
  }

  /** All 0 without `verify: 'audit'`. */
  get audits(): AuditCounts {
    return this.#model.audits;
  }

  /**
   * Runs the layer on `input`: dense [rows, inputs] (or rows as number arrays), conv [N, channels, ...spatial].
   * Throws as `CodedModel.run` does.
   */
  async run(input: Tensor | readonly (readonly number[])[], options: RunOptions = {}): Promise<LayerResult> {
    const value = Array.isArray(input) ? fromRows('input', input as readonly (readonly number[])[]) : (input as Tensor);
    const { outputs, ...about } = await this.#model.run({ [this.#model.inputs[0]!.name]: value }, options);
    return { output: outputs[this.#model.outputs[0]!.name] as Float32Tensor, ...about };
  }

  /** As `CodedModel.replan`. */
  replan(options: Omit<ReplanOptions, 'layers' | 'segments'> = {}): Promise<Replanned> {
    return this.#model.replan(options);
  }

  close(): Promise<void> {
    return this.#model.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Encodes a layer and puts its blocks to the workers of `options.cluster`. Throws INVALID_ARGUMENT or SHAPE_MISMATCH
 * (the layer's parts do not fit), NON_FINITE (a weight), UNSUPPORTED (it cannot be coded), else as `codedModel`.
 */
export async function codedLayer(spec: LayerSpec, options: CodeOptions & { cluster: Cluster }): Promise<CodedLayer> {
  options.cluster.assertOpen();
  const files =
    'onnx' in spec
      ? await nodeModel(spec, options.cluster)
      : layerModel(linearLayer(spec), spec.activation && knownActivation(spec.activation));
  const model = await loadModel(files);
  const [report] = findCodable(model);
  if (report?.codable !== true) {
    const why = report?.reason ?? 'it is not a Gemm, MatMul or Conv';
    throw new KofnError('UNSUPPORTED', `node "${(spec as OnnxLayer).node}" cannot be coded: ${why}`);
  }
  const declared = model.inputs.find(({ name }) => name === report.dataInput)?.shape ?? [];
  const sampleInputs = { [report.dataInput]: smallestInput(report.layer(), declared) };
  return new CodedLayer(await codedModel(files, { ...options, layers: [report.node], sampleInputs }));
}

async function nodeModel({ onnx, node }: OnnxLayer, cluster: Cluster): Promise<ModelFiles> {
  return prepareModel(onnx, await cluster.planningEngine(), async prepared => {
    const files = extractNode(prepared.model, node);
    await prepared.close();
    return files;
  });
}

function linearLayer(spec: DenseLayer | ConvLayer): LinearLayer {
  const { data, shape } = spec.type === 'dense' ? denseWeights(spec.weights) : convWeights(spec);
  const [units = 0, ...rest] = shape;
  const fanIn = elementCount(rest);
  if (units < 1 || fanIn < 1)
    throw new KofnError('INVALID_ARGUMENT', `weights: shape [${shape.join(',')}] has no elements`);
  const bias = spec.bias === undefined ? undefined : Float32Array.from(spec.bias);
  if (bias !== undefined && bias.length !== units) {
    throw new KofnError('SHAPE_MISMATCH', `bias: has ${bias.length} values, the layer has ${units} outputs`);
  }
  for (const [what, values] of [
    ['weights', data],
    ['bias', bias ?? []],
  ] as const) {
    const at = values.findIndex(value => !Number.isFinite(value));
    if (at >= 0) throw new KofnError('NON_FINITE', `${what}: value ${at} is ${values[at]}, which no code can decode`);
  }
  const shared = { name: spec.name ?? 'layer', units, fanIn, weights: data, bias };
  if (spec.type === 'dense') return { ...shared, operator: 'Gemm' };
  return { ...shared, operator: 'Conv', conv: convAttributes(spec, shape) };
}

function convAttributes(spec: ConvLayer, shape: Shape): ConvAttributes {
  const [units = 0, , ...kernel] = shape;
  const dims = kernel.length;
  const groups = spec.groups ?? 1;
  if (!Number.isInteger(groups) || groups < 1 || units % groups !== 0) {
    throw new KofnError('INVALID_ARGUMENT', `groups: ${groups} does not divide the ${units} output channels`);
  }
  const list = (name: string, given: readonly number[] | undefined, length: number, fallback: number, min: number) => {
    const values = given ?? new Array<number>(length).fill(fallback);
    if (values.length !== length || !values.every(value => Number.isInteger(value) && value >= min)) {
      throw new KofnError(
        'INVALID_ARGUMENT',
        `${name}: [${values.join(',')}] must be ${length} whole numbers ≥ ${min}`,
      );
    }
    return values;
  };
  return {
    groups,
    kernel,
    strides: list('strides', spec.strides, dims, 1, 1),
    dilations: list('dilations', spec.dilations, dims, 1, 1),
    pads: list('pads', spec.pads, 2 * dims, 0, 0),
    autoPad: 'NOTSET',
  };
}

function denseWeights(weights: DenseLayer['weights']): { data: Float32Array; shape: Shape } {
  if (Array.isArray(weights)) return fromRows('weights', weights as readonly (readonly number[])[]);
  if ('get' in weights) {
    const { rows, columns } = weights;
    const data = new Float32Array(rows * columns);
    for (let row = 0, at = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) data[at++] = weights.get(row, column);
    }
    return { data, shape: [rows, columns] };
  }
  return shaped(weights as ShapedArray, 'dense weights are [outputs, inputs]', rank => rank === 2);
}

function convWeights({ weights }: ConvLayer): { data: Float32Array; shape: Shape } {
  const rule =
    'conv weights are {data, shape: [channels out, channels in / groups, ...kernel]} with 1 to 3 kernel sizes';
  if (!('shape' in weights)) throw new KofnError('INVALID_ARGUMENT', `weights: ${rule}`);
  return shaped(weights, rule, rank => rank >= 3 && rank <= 5);
}

function shaped(
  { data, shape }: ShapedArray,
  rule: string,
  fits: (rank: number) => boolean,
): { data: Float32Array; shape: Shape } {
  if (!fits(shape.length)) throw new KofnError('SHAPE_MISMATCH', `weights: ${rule}, got shape [${shape.join(',')}]`);
  return float32(shape, data instanceof Float32Array ? data : Float32Array.from(data));
}

function fromRows(what: string, rows: readonly (readonly number[])[]): Float32Tensor {
  const columns = rows[0]?.length ?? 0;
  const uneven = rows.findIndex(row => row.length !== columns);
  if (uneven >= 0) {
    throw new KofnError(
      'SHAPE_MISMATCH',
      `${what}: row ${uneven} has ${rows[uneven]!.length} values, row 0 has ${columns}`,
    );
  }
  return float32([rows.length, columns], Float32Array.from(rows.flat()));
}

/** The smallest input that the layer takes, of the sizes that are `declared`: to profile it with before the first request. */
function smallestInput(layer: LinearLayer, declared: readonly (number | string)[]): Tensor {
  const smallest = smallestShape(layer);
  const isDeclared = declared.length === smallest.length;
  const shape = smallest.map((size, i) => (isDeclared && typeof declared[i] === 'number' ? declared[i] : size));
  return float32(shape, new Float32Array(elementCount(shape)));
}

function smallestShape({ conv, fanIn, columnsIn }: LinearLayer): number[] {
  if (conv === undefined) return columnsIn === true ? [fanIn, 1] : [1, fanIn];
  const channels = (fanIn / elementCount(conv.kernel)) * conv.groups;
  return [1, channels, ...conv.kernel.map((size, i) => conv.dilations[i]! * (size - 1) + 1)];
}

function knownActivation(name: string): ActivationName {
  const known = ACTIVATIONS.find(activation => activation === name);
  if (known !== undefined) return known;
  throw new KofnError('INVALID_ARGUMENT', `activation: "${name}" is not one of ${ACTIVATIONS.join(', ')}`);
}
