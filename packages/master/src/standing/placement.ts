/**
 * Gives each worker its shard of layers that share an input: encode, write the shard model, put it where it is missing. Which
 * worker that is says homes.ts.
 * Workers side by side, as far as the encoded blocks fit in MAX_ENCODED_BYTES. With a hedge each data block goes to the next worker,
 * too; a parity block does not, for only data blocks are asked of a second worker.
 */
import { atOnce, KofnError } from '@kofn/core';
import { DecodePlans } from '@kofn/encoder';
import { modelFiles, type CodedStep, type SegmentStep } from '@kofn/graph';
import { shardName, type ShardFiles } from '@kofn/wire';
import type { Connection } from '../fleet/connection.js';
import type { DeployedGroup, PlacedShard } from '../request/deployed-group.js';
import { Hedge } from '../blocks/hedge.js';
import { Homes, type PlacingContext } from '../blocks/homes.js';
import type { ResolvedCode, HedgeAfter } from '../contract/options.js';
import { fileOrder } from '../contract/plan.js';
import type { Planning } from '../planning/planner.js';
import { claimShard, putShard, type PutAbout } from '../blocks/put.js';
import type { BlockRefusal } from '../blocks/refusals.js';
import { encoded, shardFiles, type EncodedLayer } from '../blocks/shard-maker.js';
import { BlockPace } from '../fleet/speeds.js';

/** Encoded blocks that may wait to be put; one block may be larger. */
const MAX_ENCODED_BYTES = 256 * 2 ** 20;

/** The layers of a coded step in the order of the file, which is that of their blocks in a shard, and what encodes them anew. */
export function codedGroup(step: CodedStep, { plan, coded }: Planning, code: ResolvedCode) {
  const order = fileOrder(plan);
  const members = [...step.layers].sort((a, b) => order.get(a.node)! - order.get(b.node)!);
  const codables = members.map(({ node }) => coded.find(report => report.node === node)!);
  return { members, codables, encode: (): EncodedLayer[] => codables.map(each => encoded(each.layer(), code)) };
}

export interface PlaceOptions extends PutAbout {
  /** Bytes that have travelled, and that travel in all, as far as is known: what a worker had already is in neither. */
  readonly onBytes: (sent: number, total: number) => void;
}

/** What stands on workers now, and what some of them did not take. */
type Placed<T> = T & { readonly refused: readonly BlockRefusal[] };

/**
 * Puts the shards of `layers`, with a `hedge` data blocks to a second worker, too, and returns what dispatch needs but for what recovers.
 * Whether it is enough that was taken says its caller. Throws when the deployment itself ends.
 */
export async function placeLayers(
  layers: readonly EncodedLayer[],
  { n, k }: ResolvedCode,
  context: PlacingContext,
  {
    hedge,
    localMsPerMac,
    ...options
  }: PlaceOptions & { hedge: HedgeAfter | undefined; localMsPerMac?: number | undefined },
): Promise<Placed<Omit<DeployedGroup, 'local' | 'resends'>>> {
  const puts = new Puts(options);
  const homes = new Homes(context, n);
  const shards = await inLanes(n, lanesFor(layers), async (block): Promise<PlacedShard> => {
    const files = atOnce(shardFiles(layers, block));
    const shard = { name: shardName(files.model, files.weights), ...files };
    const own = homes.own(block, shard.name);
    const other = hedge === undefined || block >= k ? undefined : homes.other(block, shard.name);
    for (const home of other === undefined ? [own] : [own, other]) {
      if (homes.canTake(home)) await puts.put(home, shard, block);
    }
    return { name: shard.name, worker: own.index, other: other?.index };
  });
  const { code } = layers[0]!.encoding;
  return {
    layers: layers.map(({ layer, encoding: { partition, scales } }) => {
      return { name: layer.name, layer, encoding: { code, partition, scales } };
    }),
    code,
    plans: new DecodePlans(code),
    shards,
    refused: puts.refused,
    hedge: hedge === undefined ? undefined : new Hedge(hedge),
    pace: new BlockPace(localMsPerMac),
  };
}

/** Puts a segment to two workers; returns its shard's name and who they are. Throws as `placeLayers`. */
export async function placeSegment(
  step: SegmentStep,
  context: PlacingContext,
  options: PlaceOptions,
): Promise<Placed<{ shard: string; at: number[] }>> {
  const files = modelFiles(step.image());
  const name = shardName(files.model, files.weights);
  const puts = new Puts(options);
  const homes = new Homes(context, context.places.length);
  const workers = context.places.map((_, copy) => homes.own(copy, name));
  const put = workers.filter(homes.canTake).map(worker => puts.put(worker, { name, ...files }, 0));
  const ended = (await Promise.allSettled(put)).find(({ status }) => status === 'rejected');
  if (ended !== undefined) throw (ended as PromiseRejectedResult).reason;
  return { shard: name, at: workers.map(({ index }) => index), refused: puts.refused };
}

/** Shards on their way to workers. */
class Puts {
  readonly refused: BlockRefusal[] = [];
  readonly #options: PlaceOptions;
  /** Of each put that is or was under way. */
  readonly #sent: number[] = [];
  #totalBytes = 0;

  constructor(options: PlaceOptions) {
    this.#options = options;
  }

  /** Puts `shard` of `block` and claims it, or claims it alone where it is held; a worker that does not take it is `refused`. */
  async put(connection: Connection, shard: ShardFiles, block: number): Promise<void> {
    try {
      await this.#put(connection, shard);
    } catch (cause) {
      const error = KofnError.from(cause);
      if (error.code === 'CANCELLED' || this.#options.signal?.aborted === true) throw error;
      this.refused.push({ worker: connection.index, block, error });
    }
  }

  async #put(connection: Connection, shard: ShardFiles): Promise<void> {
    const { onBytes } = this.#options;
    const { name, model, weights } = shard;
    if (connection.shards.has(name) && (await claimShard(connection, shard, this.#options))) return;
    const bytes = model.byteLength + weights.byteLength;
    const number = this.#sent.push(0) - 1;
    this.#totalBytes += bytes;
    const onProgress = (sentBytes: number) => {
      this.#sent[number] = sentBytes;
      onBytes(
        this.#sent.reduce((a, b) => a + b, 0),
        this.#totalBytes,
      );
    };
    try {
      await putShard(connection, shard, this.#options, onProgress);
    } catch (error) {
      this.#sent[number] = 0;
      this.#totalBytes -= bytes;
      throw error;
    }
  }
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
