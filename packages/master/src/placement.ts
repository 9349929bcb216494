/**
 * Gives each worker of a layer its shard: encode, write the shard model, put it where it is missing. Workers side by
 * side, one layer's shards in memory at a time.
 */
import { KofnError, openScope, type Clock } from '@kofn/core';
import { createCode, encodeLayer, DecodePlans, type LayerEncoding } from '@kofn/encoder';
import { groupsOf, shardModel, type LinearLayer, type ModelFiles } from '@kofn/graph';
import { shardName } from '@kofn/wire';
import type { Connection } from './connection.js';
import type { DeployedLayer } from './dispatch.js';
import type { ResolvedCode } from './options.js';

/** The shard model of block `block`. */
export function shardFiles(layer: LinearLayer, encoding: LayerEncoding, block: number): ModelFiles {
  const units = encoding.partition.groups * encoding.partition.blockUnits;
  return shardModel(layer, { ...encoding.block(block), units });
}

export function encodingOf(layer: LinearLayer, { code, k, r }: ResolvedCode): LayerEncoding {
  const { units, fanIn, weights, bias } = layer;
  return encodeLayer({ units, fanIn, groups: groupsOf(layer), weights, bias }, createCode(code, { k, r }));
}

/**
 * Puts the shards of `layer` and returns what dispatch needs but for its local blocks. `onBytes(sent, total)` counts
 * only what travels. Throws what a worker answered (RESOURCE_EXHAUSTED, STORAGE, UNAVAILABLE, …), naming it.
 */
export async function placeLayer(
  layer: LinearLayer,
  resolved: ResolvedCode,
  connections: readonly Connection[],
  options: { clock: Clock; signal: AbortSignal | undefined; onBytes: (sent: number, total: number) => void },
): Promise<Omit<DeployedLayer, 'local'>> {
  const encoding = encodingOf(layer, resolved);
  const shards = Array.from({ length: resolved.n }, (_, block) => {
    const files = shardFiles(layer, encoding, block);
    return { files, name: shardName(files.model, files.weights), connection: connections[block]! };
  });
  const missing = shards.filter(({ name, connection }) => !connection.shards.has(name));
  const total = missing.reduce((sum, { files }) => sum + files.model.byteLength + files.weights.byteLength, 0);
  const sent = new Map<string, number>();
  using scope = openScope(options.clock, { parent: options.signal });
  const puts = missing.map(async ({ files, name, connection }) => {
    try {
      await connection.client.put(
        { name, ...files },
        {
          signal: scope.signal,
          onProgress: bytes => {
            sent.set(name, bytes);
            options.onBytes(
              [...sent.values()].reduce((a, b) => a + b, 0),
              total,
            );
          },
        },
      );
      connection.shards.add(name);
    } catch (cause) {
      const error = KofnError.from(cause);
      const who = `worker ${connection.index} (${connection.address}) did not take its shard of layer ${layer.name}`;
      throw new KofnError(error.code, `${who}: ${error.message}`, { cause: error });
    }
  });
  try {
    await Promise.all(puts);
  } catch (error) {
    scope.abort(KofnError.from(error)); // one worker refused: the other uploads would be in vain
    await Promise.allSettled(puts);
    throw error;
  }
  const { code, partition, scales } = encoding;
  const { weights: _weights, bias: _bias, ...geometry } = layer;
  return {
    name: layer.name,
    layer: geometry,
    encoding: { code, partition, scales },
    plans: new DecodePlans(code),
    shards: shards.map(({ name, connection }) => ({ name, worker: connection.index })),
  };
}
