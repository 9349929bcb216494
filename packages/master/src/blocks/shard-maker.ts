/**
 * Coded blocks of layers that share an input as shards: whole, when they are first placed (placement.ts), and made once more from the model
 * while requests go on, for a worker that lacks one or for the master itself (recover.ts).
 */
import { inTurns, spread, type Clock, type Parts, type Signal } from '@kofn/core';
import { createCode, encodeLayer, type LayerEncoding } from '@kofn/encoder';
import {
  groupsOf,
  modelFilesInParts,
  shardImage,
  weightsInBands,
  type Codable,
  type LayerGeometry,
  type LinearLayer,
  type ShardPart,
} from '@kofn/graph';
import { fitsBlock, type ShardFiles, type ShardSource } from '@kofn/wire';
import type { DeployedLayer } from './group-outputs.js';
import type { ResolvedCode } from '../contract/options.js';

/** A layer with its weights, and how it is coded. */
export interface EncodedLayer {
  readonly layer: LayerGeometry;
  readonly encoding: LayerEncoding;
}

export function encoded(layer: LinearLayer, { code, k, r }: ResolvedCode): EncodedLayer {
  const { weights, bias, ...geometry } = layer;
  const { units, fanIn } = geometry;
  const map = { units, fanIn, groups: groupsOf(geometry), weights, bias };
  return { layer: geometry, encoding: encodeLayer(map, createCode(code, { k, r })) };
}

/** A shard without its name. */
type BlockFiles = Omit<ShardFiles, 'name'>;

/** The shard model of block `block` of layers that share an input, and what it is to them. */
export function* shardFiles(layers: readonly EncodedLayer[], block: number): Parts<BlockFiles> {
  const parts: ShardPart[] = [];
  for (const { layer, encoding } of layers) {
    parts.push({ layer, ...(yield* encoding.blockInParts(block)), units: unitsOf(encoding) });
  }
  return { ...(yield* modelFilesInParts(shardImage(parts))), ...meaningOf(layers, block) };
}

/** The same, its weights made as they are sent. */
function* shardStream(clock: Clock, layers: readonly EncodedLayer[], block: number): Parts<Omit<ShardSource, 'name'>> {
  const parts: ShardPart[] = [];
  for (const { layer, encoding } of layers) {
    const bias = yield* encoding.biasInParts(block);
    parts.push({ layer, weights: () => encoding.bands(block), bias, units: unitsOf(encoding) });
  }
  const image = shardImage(parts);
  const weights = { byteLength: image.weightsBytes, chunks: () => spread(clock, weightsInBands(image)) };
  return { model: image.model, weights, ...meaningOf(layers, block) };
}

function unitsOf({ partition: { groups, blockUnits } }: LayerEncoding): number {
  return groups * blockUnits;
}

/** What block `block` is to `layers`, as far as it can be said. */
function meaningOf(layers: readonly EncodedLayer[], block: number): Pick<ShardFiles, 'block'> {
  const { name: code, k, r } = layers[0]!.encoding.code;
  const names = layers.map(({ layer }) => layer.name);
  return fitsBlock(names) ? { block: { layers: names, code, k, r, block } } : {};
}

/**
 * Makes shards of `layers` once more from the model, in turns with whatever else the master has to do, and reads no more of it than a
 * block needs. `deployed` is what stands on workers.
 */
export class ShardMaker {
  readonly #clock: Clock;
  readonly #layers: readonly Codable[];
  readonly #deployed: readonly DeployedLayer[];

  constructor(clock: Clock, layers: readonly Codable[], deployed: readonly DeployedLayer[]) {
    this.#clock = clock;
    this.#layers = layers;
    this.#deployed = deployed;
  }

  files(block: number): Promise<BlockFiles> {
    return inTurns(this.#clock, shardFiles(this.#encoded(), block));
  }

  /** To be put: a part of it is in memory at a time. */
  stream(block: number, signal: Signal): Promise<Omit<ShardSource, 'name'>> {
    return inTurns(this.#clock, shardStream(this.#clock, this.#encoded(), block), signal);
  }

  #encoded(): EncodedLayer[] {
    return this.#layers.map((layer, index) => {
      const { units, fanIn, groups, geometry } = layer;
      const { code, scales } = this.#deployed[index]!.encoding;
      const map = { units, fanIn, groups, weights: layer.rows(), bias: layer.bias() };
      return { layer: geometry, encoding: encodeLayer(map, code, { scales }) };
    });
  }
}
