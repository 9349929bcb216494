/**
 * The outputs of one coded step while its blocks come: of each layer that shares the input a decoder. Called by dispatch.ts.
 *
 * Invariants
 * 1. Blocks are taken and completed alike in every layer, for they have the same code.
 * 2. A reply is taken whole or not at all.
 */
import { elementCount, KofnError, type Float32Tensor, type Tensor, type Tensors } from '@kofn/core';
import { ProgressiveDecoder, verifyBlock, type Decoded, type DecodePlans, type LayerEncoding } from '@kofn/encoder';
import { layerOutput, macsOf, outputShape, shardInput, shardOutput, type LayerGeometry } from '@kofn/graph';

/** A coded layer as deployed: what a request needs of it, without its weights. */
export interface DeployedLayer {
  readonly name: string;
  readonly layer: LayerGeometry;
  readonly encoding: Pick<LayerEncoding, 'code' | 'partition' | 'scales'>;
}

/** Of one layer: what a reply's check looks at. */
export interface ReplyPart {
  readonly name: string;
  readonly layer: LayerGeometry;
  readonly outputShape: readonly number[];
  /** Elements of a unit of one sample: 1 of a dense layer. */
  readonly positions: number;
}

/** One layer's part. */
interface Part extends ReplyPart {
  /** Of each worker's block. */
  readonly replyShape: readonly number[];
  readonly decoder: ProgressiveDecoder;
}

export interface LayerOutput extends Omit<Decoded, 'output'> {
  readonly name: string;
  readonly output: Float32Tensor;
}

export class GroupOutputs {
  /** Names of the layers. */
  readonly name: string;
  /** As a shard takes it. */
  readonly input: Tensor;
  /** Of the input and a reply. */
  readonly bytes: number;
  /** Multiply-accumulates of a block of each layer. */
  readonly macs: number;
  readonly #parts: readonly Part[];

  /** Throws DTYPE_MISMATCH, SHAPE_MISMATCH. */
  constructor(layers: readonly DeployedLayer[], plans: DecodePlans, input: Tensor) {
    const { name, layer } = layers[0]!;
    if (input.dtype !== 'float32') {
      throw new KofnError('DTYPE_MISMATCH', `layer ${name} takes float32, got ${input.dtype}`);
    }
    this.#parts = layers.map(deployed => partOf(deployed, plans, input));
    this.input = shardInput(layer, input);
    this.name = layers.map(each => each.name).join(', ');
    const replyFloats = this.#parts.reduce((sum, { replyShape }) => sum + elementCount(replyShape), 0);
    this.bytes = 4 * (elementCount(this.input.shape) + replyFloats);
    this.macs = this.#parts.reduce((sum, { layer: each, replyShape }) => sum + macsOf(each, replyShape), 0);
  }

  get parts(): readonly ReplyPart[] {
    return this.#parts;
  }

  get complete(): boolean {
    return this.#parts[0]!.decoder.complete;
  }

  /** As `ProgressiveDecoder.missing`. */
  missing(coming: Iterable<number>): number[] {
    return this.#parts[0]!.decoder.missing(coming);
  }

  /** The block of each layer in a worker's reply. Throws PROTOCOL (one is missing) or what `verifyBlock` says. */
  verified(reply: Tensors): Float32Array[] {
    return this.#parts.map(({ replyShape }, index) => {
      const name = shardOutput(index);
      const y = reply[name];
      if (y === undefined) throw new KofnError('PROTOCOL', `the reply has no output ${name}`);
      const fault = verifyBlock(y, { dtype: 'float32', shape: replyShape });
      if (fault !== undefined) throw fault;
      return y.data as Float32Array;
    });
  }

  /** The block of each layer that the master computed, of whatever values. */
  own(outputs: Tensors): Float32Array[] {
    return this.#parts.map((_, index) => outputs[shardOutput(index)]!.data as Float32Array);
  }

  /** Takes a block of each layer; false when it was there before, or nothing more is needed. */
  accept(block: number, values: readonly Float32Array[]): boolean {
    return this.#parts.map(({ decoder }, index) => decoder.accept(block, values[index]!)).every(Boolean);
  }

  /** Of each layer. Throws UNDECODABLE when not `complete`. */
  finish(): LayerOutput[] {
    return this.#parts.map(({ name, layer, decoder, outputShape: shape }) => {
      const decoded = decoder.finish();
      return { ...decoded, name, output: layerOutput(layer, shape, decoded.output) };
    });
  }
}

function partOf(deployed: DeployedLayer, plans: DecodePlans, input: Tensor): Part {
  const { name, layer, encoding } = deployed;
  const shape = outputShape(layer, input.shape);
  const replyUnits = encoding.partition.groups * encoding.partition.blockUnits;
  const [batch, spatial] =
    layer.conv === undefined ? [elementCount(shape) / layer.units, []] : [shape[0]!, shape.slice(2)];
  const positions = elementCount(spatial);
  return {
    name,
    layer,
    positions,
    outputShape: shape,
    replyShape: [batch, replyUnits, ...spatial],
    decoder: new ProgressiveDecoder({ encoding, plans, batch, inner: positions }),
  };
}
