/**
 * What a model has on workers, in one form: the blocks of layers that share an input, or a segment. heal.ts keeps it whole,
 * `health` tells of it.
 *
 * Invariant: who holds what is one array that is replaced as a whole. A request takes it once, so none sees a half of a move.
 */
import { KofnError } from '@kofn/core';
import type { Connection } from '../fleet/connection.js';
import type { DeployedGroup } from '../request/deployed-group.js';
import { isUsable } from '../blocks/homes.js';
import type { Resends } from '../blocks/recover.js';
import { refusalsOf, refusalWords } from '../blocks/refusals.js';
import type { ReplicatedSegment } from '../request/replicated-segment.js';
import type { DeployedStep } from '../request/run.js';
import type { ModelHealth } from '../contract/health.js';

export interface Holding {
  /** Names of the layers, or the segment's. */
  readonly layers: readonly string[];
  readonly isSegment: boolean;
  /** Blocks that an answer needs, and that there are; for a segment workers. */
  readonly k: number;
  readonly n: number;
  /** Of each block its shard's name and who holds it. */
  readonly blocks: readonly HeldBlock[];
  /** Puts a block's shard to a worker. */
  readonly resends: Resends;
  /** From the next request on `to` holds what `from` held. */
  move(from: number, to: number): void;
  /** How many of those that are there may still be lost, whichever they are; below 0 workers alone cannot answer. */
  margin(isThere: (worker: number, name: string) => boolean): number;
}

export interface HeldBlock {
  readonly name: string;
  readonly workers: readonly number[];
}

export function holdingsOf(steps: readonly DeployedStep[]): Holding[] {
  return steps.flatMap((step): Holding[] => {
    if (step.kind === 'segment') return [];
    return step.kind === 'coded' ? [new GroupHolding(step.group)] : [new SegmentHolding(step.segment)];
  });
}

/** The numbers of all workers that hold something of it. */
export function workersOf({ blocks }: Holding): Set<number> {
  return new Set(blocks.flatMap(({ workers }) => workers));
}

/** The numbers of the blocks that `worker` holds. */
export function blocksAt({ blocks }: Holding, worker: number): number[] {
  return blocks.flatMap(({ workers }, block) => (workers.includes(worker) ? [block] : []));
}

/** Whether a worker is ready and has a shard. */
export function isThere(connections: readonly Connection[]): (worker: number, name: string) => boolean {
  return (worker, name) => {
    const { state, shards } = connections[worker]!;
    return state.kind === 'ready' && shards.has(name);
  };
}

/** Whether a worker has a block of `holding`: its shard, for as long as the model stands. */
function standing({ resends }: Pick<Holding, 'resends'>, has: (worker: number, name: string) => boolean) {
  return ({ name, workers }: HeldBlock, block: number) =>
    workers.some(worker => has(worker, name) && resends.refusals.of(worker, block) === undefined);
}

/** Who was not there when a model was put, and what is to be made of it. */
export interface PutOutcome {
  readonly connections: readonly Connection[];
  readonly away: ReadonlySet<Connection>;
  /** Whether those that were away must not be missed. */
  readonly needsAway: boolean;
  /** The margin that a holding must have of which something was refused. */
  readonly leastMargin: number;
}

/** Throws what a worker said that did not take a part that cannot be missed, or UNAVAILABLE for one that was not there. */
export function requireDecodable(holding: Holding, outcome: PutOutcome): void {
  const { connections, away, needsAway, leastMargin } = outcome;
  const has = (worker: number, name: string) => {
    const connection = connections[worker]!;
    return isUsable(connection) && connection.shards.has(name);
  };
  const refusals = refusalsOf([holding], connections);
  const isAwayMissed = needsAway && away.size > 0 && !holding.isSegment;
  const least = refusals.length > 0 ? leastMargin : isAwayMissed ? 0 : -Infinity;
  if (holding.margin(has) >= least) return;
  const missing = [...workersOf(holding)].map(worker => connections[worker]!).filter(each => away.has(each));
  const why = [...refusals.map(refusalWords), ...missing.map(({ whyAway }) => whyAway)].join('; ');
  const what = holding.isSegment ? holding.layers[0]! : `layer ${holding.layers.join(', ')}`;
  const more = least > 0 ? ` and keeps a margin of ${least}` : '';
  const others = 'plan for the others (workers), or give more parity';
  const advice =
    refusals.length > 0
      ? `Mend that, ${others}`
      : `Start them, let the master compute what is missing (onLoss: 'local'), ${others}`;
  throw new KofnError(
    refusals[0]?.code ?? 'UNAVAILABLE',
    `${what} needs ${holding.k} of ${holding.n} blocks${more}: ${why}. ${advice}`,
  );
}

export function healthOf(holdings: readonly Holding[], connections: readonly Connection[]): ModelHealth {
  const has = isThere(connections);
  const layers = holdings
    .filter(({ isSegment }) => !isSegment)
    .flatMap(holding => {
      const { k, n, blocks } = holding;
      const ready = blocks.filter(standing(holding, has)).length;
      const margin = holding.margin(has);
      const workers = blocks.map(block => block.workers);
      const shards = blocks.map(({ name }) => name);
      const refusals = refusalsOf([holding], connections);
      return holding.layers.map(layer => ({ layer, k, n, ready, margin, workers, shards, refusals }));
    });
  const margin = layers.length === 0 ? null : Math.min(...layers.map(each => each.margin));
  return { layers, margin, refusals: refusalsOf(holdings, connections) };
}

class GroupHolding implements Holding {
  readonly isSegment = false;
  readonly layers: readonly string[];
  readonly k: number;
  readonly n: number;
  readonly resends: Resends;
  readonly #group: DeployedGroup;

  constructor(group: DeployedGroup) {
    this.#group = group;
    this.layers = group.layers.map(({ name }) => name);
    this.k = group.code.k;
    this.n = group.shards.length;
    this.resends = group.resends;
  }

  get blocks(): HeldBlock[] {
    return this.#group.shards.map(({ name, worker, other }) => ({
      name,
      workers: other === undefined ? [worker] : [worker, other],
    }));
  }

  move(from: number, to: number): void {
    const moved = (worker: number) => (worker === from ? to : worker);
    this.#group.shards = this.#group.shards.map(({ name, worker, other }) => ({
      name,
      worker: moved(worker),
      other: other === undefined ? undefined : moved(other),
    }));
  }

  margin(has: (worker: number, name: string) => boolean): number {
    const { blocks } = this;
    const isStanding = standing(this, has);
    const comes = (block: number) => isStanding(blocks[block]!, block);
    const margins = this.#group.code.quorums.map(({ members, count }) => members.filter(comes).length - count);
    return Math.min(...margins);
  }
}

class SegmentHolding implements Holding {
  readonly isSegment = true;
  readonly layers: readonly string[];
  readonly k = 1;
  readonly n: number;
  readonly resends: Resends;
  readonly #segment: ReplicatedSegment;

  constructor(segment: ReplicatedSegment) {
    this.#segment = segment;
    this.layers = [segment.name];
    this.n = segment.workers.length;
    this.resends = segment.resends;
  }

  get blocks(): HeldBlock[] {
    return [{ name: this.#segment.shard, workers: this.#segment.workers }];
  }

  move(from: number, to: number): void {
    this.#segment.workers = this.#segment.workers.map(worker => (worker === from ? to : worker));
  }

  margin(has: (worker: number, name: string) => boolean): number {
    const { shard: name, workers } = this.#segment;
    const isStanding = standing(this, has);
    return workers.filter(worker => isStanding({ name, workers: [worker] }, 0)).length - 1;
  }
}
