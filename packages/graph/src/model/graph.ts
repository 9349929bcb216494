/**
 * A parsed ONNX model as a graph: values by name, who makes them, who reads them. Parsing and its checks are in onnx.ts.
 */
import type { Bands, DType } from '@kofn/core';
import type { TensorProto, ModelProto, NodeProto } from './proto.js';

export interface ValueInfo {
  readonly name: string;
  readonly dtype: DType;
  /** Sizes, or a name ('' when unnamed) where the model leaves one open. Empty for a scalar or an unknown rank. */
  readonly shape: readonly (number | string)[];
}

/** An output that is no tensor, or one of a type that kofn does not carry. */
export interface OtherValue {
  readonly name: string;
  /** In words: "a sequence of maps". */
  readonly kind: string;
}

/** A model as two files: model.onnx and its external data, always named `weights.bin`; empty when there is none. */
export interface ModelFiles {
  readonly model: Uint8Array;
  readonly weights: Uint8Array;
}

/**
 * A model about to be written: its bytes, and the weights beside it, of which each part is read when its turn comes and let
 * go again, so that a model need not fit in memory.
 */
export interface ModelImage {
  readonly model: Uint8Array;
  /** Bytes of weights.bin; 0 when there is none. */
  readonly weightsBytes: number;
  /** In ascending order of `offset`; what is between them is zeros. */
  readonly parts: readonly ImagePart[];
}

export interface ImagePart {
  readonly offset: number;
  readonly read: () => Uint8Array;
  /** The same a part at a time, where it need not be in memory as a whole. */
  readonly bands?: (() => Bands) | undefined;
}

export interface GraphNode {
  /** The model's own name, or one made from operator and position where it has none or repeats one. */
  readonly name: string;
  readonly op: string;
  /** Values it reads, those that its subgraphs capture included; no empty names. */
  readonly reads: readonly string[];
  readonly outputs: readonly string[];
  readonly proto: NodeProto;
}

/**
 * The nodes that `values` (the model's outputs, unless told otherwise) depend on, in the model's order. `reads` are the
 * values that a node needs: all that it reads, unless told otherwise.
 */
export function neededNodes(
  model: OnnxModel,
  {
    values,
    reads = node => node.reads,
  }: { values?: readonly string[]; reads?: (node: GraphNode) => readonly string[] } = {},
): GraphNode[] {
  const needed = new Set<GraphNode>();
  const open = [...(values ?? model.outputs.map(output => output.name))];
  for (let value = open.pop(); value !== undefined; value = open.pop()) {
    const producer = model.producers.get(value);
    if (producer === undefined || needed.has(producer)) continue;
    needed.add(producer);
    open.push(...reads(producer));
  }
  return model.nodes.filter(node => needed.has(node));
}

export interface OnnxModel {
  /** For messages: the file's path, or "the model". */
  readonly origin: string;
  /** Without initializers, which may be overridden but need not be given. */
  readonly inputs: readonly ValueInfo[];
  /** Initializers that are inputs too (as all are in IR 3): a caller may give another value. */
  readonly overridable: readonly ValueInfo[];
  /** Those that are tensors. One whose type the file leaves out is float32 here, until a run shows what it is. */
  readonly outputs: readonly ValueInfo[];
  /** The other outputs, which nobody gets. */
  readonly otherOutputs: readonly OtherValue[];
  /** In topological order; Constant nodes left out, see `constants`. */
  readonly nodes: readonly GraphNode[];
  readonly producers: ReadonlyMap<string, GraphNode>;
  readonly consumers: ReadonlyMap<string, readonly GraphNode[]>;
  /** Values that cannot cross from one part of the model to another (uncarried.ts). */
  readonly uncarried: ReadonlySet<string>;
  /** Initializers and the tensors of Constant nodes, by value name. */
  readonly constants: ReadonlyMap<string, TensorProto>;
  readonly proto: ModelProto;
  /** Whether `proto` says another thing than the file: sparse constants were made dense. */
  readonly isRewritten: boolean;
  /** Why the model runs as a whole only; undefined where it can be cut. */
  readonly undivided?: string | undefined;
  /**
   * Reads `byteLength` bytes of external data, into `scratch` of that size where there is one and they are not in memory already. Throws
   * NOT_FOUND, DATA_LOSS or INVALID_MODEL (outside the folder).
   */
  readonly readExternal: (
    location: string,
    offset: number,
    byteLength: number | undefined,
    scratch?: Uint8Array,
  ) => Uint8Array;
}
