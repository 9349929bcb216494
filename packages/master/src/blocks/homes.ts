/**
 * Which worker gets which block at a deployment: who holds it already, else its place in the order of the workers, else, where that
 * worker is lost, one that can take it. Used by placement.ts and deployment.ts, one of them for each group of layers or segment.
 *
 * What workers hold is read from their inventories and not remembered by the master: so a block that was moved while an
 * earlier master served is found where it is.
 *
 * Invariants
 * 1. No worker gets two blocks as their own.
 * 2. A worker outside those that the model was given gets a block only when it holds it for this model already, or when the block's
 *    place is lost.
 * 3. Where a place is lost and nobody else can take its block, the block's home is there all the same: healing puts it.
 */
import { KofnError } from '@kofn/core';
import type { Owner } from '@kofn/wire';
import type { Connection } from '../fleet/connection.js';
import { isGone } from '../fleet/worker-state.js';

/** The workers that hold a shard for a model, by its name. */
export type KnownHomes = ReadonlyMap<string, readonly number[]>;

/** Those that claims of `owner`'s model, of any version, tell of. */
export function knownHomes(connections: readonly Connection[], { cluster, model }: Owner): KnownHomes {
  const homes = new Map<string, number[]>();
  for (const { index, inventory } of connections) {
    for (const { name, owners } of inventory.shards) {
      if (!owners.some(owner => owner.cluster === cluster && owner.model === model)) continue;
      homes.set(name, [...(homes.get(name) ?? []), index]);
    }
  }
  return homes;
}

export interface PlacingContext {
  /** All workers of the cluster. */
  readonly connections: readonly Connection[];
  /** Those that the model was given, in the order of their blocks: block i has its place at the i-th. */
  readonly places: readonly Connection[];
  readonly known: KnownHomes;
  /** Those that were not there when the deployment began: what has its home at one of them is put when it comes. */
  readonly away: ReadonlySet<Connection>;
}

/**
 * The numbers of `workers` in the order of their blocks: as given, but those that are known to be slower than others last, so that
 * parity blocks are theirs, or, where there are more workers than blocks, none.
 */
export function blockOrder(workers: readonly Pick<Connection, 'speed'>[]): number[] {
  return [...workers.keys()].sort((a, b) => workers[a]!.speed.handicap - workers[b]!.speed.handicap);
}

export class Homes {
  readonly #connections: readonly Connection[];
  readonly #places: readonly Connection[];
  readonly #count: number;
  readonly #known: KnownHomes;
  /** Whether what has its home there is put there now: a worker that is lost after the deployment began makes it fail. */
  readonly canTake: (connection: Connection) => boolean;
  readonly #own = new Map<number, Connection>();

  /** For `count` blocks; with more `places` those at the end are spares. */
  constructor({ connections, places, known, away }: PlacingContext, count: number) {
    this.canTake = connection => isUsable(connection) || !away.has(connection);
    this.#connections = connections;
    this.#places = places;
    this.#count = count;
    this.#known = known;
  }

  /** The worker whose own block `block` is, with the shard `name`. */
  own(block: number, name: string): Connection {
    const place = this.#places[block]!;
    const isFree = (connection: Connection) => ![...this.#own.values()].includes(connection);
    const held = [place, ...this.#holders(name).sort((a, b) => this.#isPlace(a) - this.#isPlace(b))];
    const found =
      held.find(each => isFree(each) && isUsable(each) && each.shards.has(name)) ??
      this.#usable(place, isFree) ??
      [place, ...this.#places].find(isFree)!;
    this.#own.set(block, found);
    return found;
  }

  /** The other worker that gets `block`, for a hedge: the one whose own the next block is. */
  other(block: number, name: string): Connection {
    const own = this.#own.get(block)!;
    const next = (block + 1) % this.#places.length;
    const isOther = (connection: Connection) => connection !== own;
    const known = this.#own.get(next);
    if (known !== undefined && isOther(known)) return known;
    const place = this.#places[next]!;
    const held = [place, ...this.#holders(name)];
    return (
      held.find(each => isOther(each) && isUsable(each) && each.shards.has(name)) ??
      this.#usable(place, isOther) ??
      [place, ...this.#places].find(isOther)!
    );
  }

  /** `place`, or a spare where that is lost. */
  #usable(place: Connection, may: (connection: Connection) => boolean): Connection | undefined {
    if (may(place) && isUsable(place)) return place;
    return spares(this.#connections, each => may(each) && this.#isPlace(each) === 0)[0];
  }

  #holders(name: string): Connection[] {
    return (this.#known.get(name) ?? []).map(worker => this.#connections[worker]!);
  }

  #isPlace(connection: Connection): 0 | 1 {
    return this.#places.slice(0, this.#count).includes(connection) ? 1 : 0;
  }
}

/** The ready ones of `connections` that `may`, those with the fewest shards for their speed first. */
export function spares(connections: readonly Connection[], may: (connection: Connection) => boolean): Connection[] {
  return connections
    .filter(connection => connection.state.kind === 'ready' && may(connection))
    .sort((a, b) => loadOf(a) - loadOf(b));
}

/** With one shard more, counted so many times as it is slower than others. */
function loadOf({ shards, speed }: Connection): number {
  return (shards.size + 1) * speed.handicap;
}

export function awayOf(connections: readonly Connection[]): Set<Connection> {
  return new Set(connections.filter(connection => !isUsable(connection)));
}

/** Those of `holders` that are there; all that are, where a model's own workers are away. Throws UNAVAILABLE when nobody is. */
export function presentOf(connections: readonly Connection[], holders: readonly Connection[]): readonly Connection[] {
  const present = [holders, connections].map(some => some.filter(isUsable)).find(({ length }) => length > 0);
  if (present !== undefined) return present;
  const why = holders.map(connection => connection.whyAway).join('; ');
  throw new KofnError('UNAVAILABLE', `no worker is there to hold anything: ${why}. Start them, or connect to others`);
}

/** A worker that only seems lost is asked: a deployment may wait. */
export function isUsable({ state }: Connection): boolean {
  return !isGone(state) && state.kind !== 'draining';
}
