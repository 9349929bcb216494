/**
 * Gives each worker its shard of layers that share an input: encode, write the shard model, put it where it is missing.
 * Workers side by side, as far as the encoded blocks fit in MAX_ENCODED_BYTES.
 */
import { KofnError, openScope, type Clock, type Signal } from '@kofn/core';
import { createCode, encodeLayer, DecodePlans, type LayerEncoding } from '@kofn/encoder';
import { groupsOf, shardModel, type LinearLayer, type ModelFiles } from '@kofn/graph';
import { shardName, type Owner } from '@kofn/wire';
import type { Connection } from './connection.js';
import type { DeployedGroup } from './dispatch.js';
import type { ResolvedCode } from './options.js';

/** Encoded blocks that may wait to be put; one block may be larger. */
const MAX_ENCODED_BYTES = 256 * 2 ** 20;

/** A layer with its weights, and how it is coded. */
export interface EncodedLayer {
  readonly layer: LinearLayer;
  readonly encoding: LayerEncoding;
}

export function encoded(layer: LinearLayer, { code, k, r }: ResolvedCode): EncodedLayer {
  const { units, fanIn, weights, bias } = layer;
  const map = { units, fanIn, groups: groupsOf(layer), weights, bias };
  return { layer, encoding: encodeLayer(map, createCode(code, { k, r })) };
}

/** The shard model of block `block` of layers that share an input. */
export function shardFiles(layers: readonly EncodedLayer[], block: number): ModelFiles {
  return shardModel(
    layers.map(({ layer, encoding }) => {
      const { groups, blockUnits } = encoding.partition;
      return { layer, ...encoding.block(block), units: groups * blockUnits };
    }),
  );
}

export interface PlaceOptions {
  readonly clock: Clock;
  readonly signal: Signal | undefined;
  /** Who claims the shards. */
  readonly owner: Owner;
  /** Bytes that have travelled, and that travel in all, as far as is known: what a worker had already is in neither. */
  readonly onBytes: (sent: number, total: number) => void;
}

/**
 * Puts the shards of `layers`, block i to the i-th of `connections`, and returns what dispatch needs but for what recovers.
 * Throws what a worker answered (RESOURCE_EXHAUSTED, STORAGE, UNAVAILABLE, …), naming it.
 */
export async function placeLayers(
  layers: readonly EncodedLayer[],
  { n }: ResolvedCode,
  connections: readonly Connection[],
  { clock, signal, owner, onBytes }: PlaceOptions,
): Promise<Omit<DeployedGroup, 'local' | 'resends'>> {
  const names = layers.map(({ layer }) => layer.name).join(', ');
  const sent = new Array<number>(n).fill(0);
  let total = 0;
  using scope = openScope(clock, { parent: signal });
  const put = async (connection: Connection, block: number): Promise<string> => {
    const files = shardFiles(layers, block);
    const name = shardName(files.model, files.weights);
    const { shards } = connection;
    const { signal } = scope;
    const claim = () => connection.ask(client => client.claim([name], owner, { signal }), { signal });
    const isHeld = shards.has(name) && (await claim()).length === 0;
    if (isHeld) return name;
    const bytes = files.model.byteLength + files.weights.byteLength;
    total += bytes;
    const onProgress = (sentBytes: number) => {
      sent[block] = sentBytes;
      onBytes(
        sent.reduce((a, b) => a + b, 0),
        total,
      );
    };
    await connection.ask(client => client.put({ name, ...files }, { signal, owner, onProgress }), { signal, bytes });
    shards.add(name);
    return name;
  };
  const place = async (block: number): Promise<string> => {
    const connection = connections[block]!;
    try {
      return await put(connection, block);
    } catch (cause) {
      const error = KofnError.from(cause);
      const who = `worker ${connection.index} (${connection.address}) did not take its shard of layer ${names}`;
      throw new KofnError(error.code, `${who}: ${error.message}`, { cause: error });
    }
  };
  const shards = await inLanes(n, lanesFor(layers), async block => {
    try {
      return { name: await place(block), worker: connections[block]!.index };
    } catch (error) {
      scope.abort(KofnError.from(error)); // one worker refused: the other uploads would be in vain
      throw error;
    }
  });
  const { code } = layers[0]!.encoding;
  return {
    layers: layers.map(({ layer, encoding: { partition, scales } }) => {
      const { weights: _weights, bias: _bias, ...geometry } = layer;
      return { name: layer.name, layer: geometry, encoding: { code, partition, scales } };
    }),
    code,
    plans: new DecodePlans(code),
    shards,
  };
}

function lanesFor(layers: readonly EncodedLayer[]): number {
  const blockBytes = layers.reduce((sum, { layer, encoding: { partition } }) => {
    return sum + 4 * partition.groups * partition.blockUnits * (layer.fanIn + 1);
  }, 0);
  return Math.max(1, Math.floor(MAX_ENCODED_BYTES / blockBytes));
}

/** `work(0)` to `work(count - 1)`, at most `lanes` at a time; the first failure is thrown once all that began has ended. */
async function inLanes<T>(count: number, lanes: number, work: (index: number) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  let failure: KofnError | undefined;
  const lane = async () => {
    while (next < count && failure === undefined) {
      const index = next++;
      try {
        results[index] = await work(index);
      } catch (error) {
        failure ??= KofnError.from(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(lanes, count) }, lane));
  if (failure !== undefined) throw failure;
  return results;
}
