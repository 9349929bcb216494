/**
 * Keeps what a model has on workers whole while it serves: what a lost worker held, or one does not take, is put to another, what a worker
 * lacks that came back is put again, and what it holds in vain is released. One for each deployment, which makes it last and disposes it first;
 * holding.ts is what it looks at, recover.ts (Resends) makes a shard anew and puts it.
 *
 * Invariants
 * 1. Nothing is put to a worker that is not ready, nor to one that holds something of the same layer: never two blocks on one by a move.
 * 2. A block moves when its new worker has the shard, for requests that begin from then on; until then its old worker stands there.
 * 3. What was moved stays where it is: a worker that comes back gives up its claim.
 * 4. Every shard that is put is claimed under the deployment's owner, and its worker is known before the outcome is, so that claims
 *    are renewed and given up wherever they may be.
 * 5. One shard at a time, the layer with the least margin first: requests go on meanwhile.
 * 6. After dispose nothing of it is pending, and no timer is left.
 */
import { abortable, KofnError, openScope, type Scope, type Timer } from '@kofn/core';
import type { Owner } from '@kofn/wire';
import type { Cluster } from '../fleet/cluster.js';
import type { Connection } from '../fleet/connection.js';
import { isGone } from '../fleet/worker-state.js';
import { blocksAt, isThere, workersOf, type Holding } from './holding.js';
import { spares } from '../blocks/homes.js';

/** After a failure the same is tried again so much later, twice as long each time up to the last. */
const FIRST_RETRY_MS = 10_000;
const LAST_RETRY_MS = 300_000;

/** One thing to do, and how pressing it is: the margin of its layer. */
interface Task {
  readonly margin: number;
  readonly work: () => Promise<void>;
}

export class Healer implements AsyncDisposable {
  readonly #cluster: Cluster;
  readonly #owner: Owner;
  readonly #holdings: readonly Holding[];
  readonly #renew: (connection: Connection) => Promise<void>;
  readonly #life: Scope;
  readonly #watched = new Map<Connection, () => void>();
  readonly #ready = new Set<Connection>();
  /** Since when a worker is lost. */
  readonly #lostMs = new Map<Connection, number>();
  /** What workers may hold in vain. */
  readonly #left = new Map<Connection, Set<string>>();
  /** By worker and place: when to try again, and how long that was put off. */
  readonly #retries = new Map<string, { readonly atMs: number; readonly waitMs: number }>();
  /** Lost workers whose part of a holding nobody can take, as was told. */
  readonly #reduced = new Set<string>();
  #working: Promise<void> | undefined;
  #timer: Timer | undefined;

  /** `left` is what workers hold in vain from the beginning. `renew` claims for another lease what stands on a worker. */
  constructor(
    cluster: Cluster,
    about: {
      readonly owner: Owner;
      readonly holdings: readonly Holding[];
      readonly left: ReadonlyMap<Connection, ReadonlySet<string>>;
      readonly renew: (connection: Connection) => Promise<void>;
    },
  ) {
    this.#cluster = cluster;
    this.#owner = about.owner;
    this.#holdings = about.holdings;
    this.#renew = about.renew;
    this.#life = openScope(cluster.clock);
    for (const [connection, names] of about.left) this.#leave(connection, names);
    for (const holding of this.#holdings) for (const worker of workersOf(holding)) this.#watch(this.#at(worker));
    for (const { worker, index } of this.#refused()) this.#retryLater(`${worker} ${index}`);
    this.#wake();
  }

  /** Workers that may hold something in vain. */
  get leftAt(): Iterable<Connection> {
    return this.#left.keys();
  }

  /** Whether the worker holds shard `name` in vain: its claim is not to be renewed. */
  isLeft(connection: Connection, name: string): boolean {
    return this.#left.get(connection)?.has(name) === true;
  }

  /** A worker is new in the cluster: it may take what nobody could. */
  welcome(connection: Connection): void {
    if (this.#life.signal.aborted) return;
    this.#watch(connection);
    this.#wake();
  }

  /** What was not taken is tried again now: there may be room for it. */
  tryAgain(): void {
    this.#retries.clear();
    this.#wake();
  }

  /** Ends what is under way; what is put then is claimed no more (shard-store.ts). */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#life.abort(new KofnError('CANCELLED', 'the model was closed meanwhile'));
    this.#timer?.cancel();
    for (const stop of this.#watched.values()) stop();
    await this.#working;
    this.#life[Symbol.dispose]();
  }

  #at(worker: number): Connection {
    return this.#cluster.connections[worker]!;
  }

  #watch(connection: Connection): void {
    if (this.#watched.has(connection)) return;
    const look = () => {
      this.#look(connection);
      this.#wake();
    };
    this.#watched.set(connection, connection.onChange(look));
    this.#look(connection, { isFirst: true });
  }

  #look(connection: Connection, { isFirst = false } = {}): void {
    const { kind } = connection.state;
    // One that answered wrong twice stays away until somebody releases it.
    const isLost = isGone(connection.state) || connection.trust.distrust !== undefined;
    if (!isLost) this.#lostMs.delete(connection);
    else if (!this.#lostMs.has(connection)) this.#lostMs.set(connection, this.#cluster.clock.now());
    if (kind !== 'ready') return void this.#ready.delete(connection);
    if (this.#ready.has(connection)) return;
    this.#ready.add(connection);
    for (const key of this.#reduced) if (key.startsWith(`${connection.index} `)) this.#reduced.delete(key);
    for (const key of this.#retries.keys()) if (key.startsWith(`${connection.index} `)) this.#retries.delete(key);
    // Back again, perhaps after its leases ended: claim what is there.
    if (!isFirst) void this.#renew(connection).then(() => this.#wake());
  }

  /** Begins the next thing to do, unless one is under way: then it looks itself when it is done. */
  #wake(): void {
    if (this.#working !== undefined || this.#life.signal.aborted) return;
    this.#timer?.cancel();
    this.#timer = undefined;
    const { task, dueMs } = this.#next();
    if (task !== undefined) {
      this.#working = task.work().finally(() => {
        this.#working = undefined;
        this.#wake();
      });
    } else if (dueMs !== Infinity) {
      const { clock } = this.#cluster;
      const wake = () => {
        this.#timer = undefined;
        this.#wake();
      };
      this.#timer = clock.setTimer(wake, Math.max(0, dueMs - clock.now()), { background: true });
    }
  }

  /** The most pressing thing to do, or when there will be one by itself. */
  #next(): { task: Task | undefined; dueMs: number } {
    let task: Task | undefined;
    let dueMs = Infinity;
    const consider = (key: string, fromMs: number, make: () => Task | number | undefined) => {
      const atMs = Math.max(fromMs, this.#retries.get(key)?.atMs ?? 0);
      if (atMs > this.#cluster.clock.now()) return void (dueMs = Math.min(dueMs, atMs));
      const made = make();
      if (typeof made === 'number') dueMs = Math.min(dueMs, made);
      else if (made !== undefined && (task === undefined || made.margin < task.margin)) task = made;
    };
    const { healAfterMs, connections } = this.#cluster;
    const has = isThere(connections);
    for (const [index, holding] of this.#holdings.entries()) {
      if (healAfterMs === Infinity) break;
      for (const worker of workersOf(holding)) {
        const connection = this.#at(worker);
        const lostMs = this.#lostMs.get(connection);
        const key = `${worker} ${index}`;
        const margin = () => holding.margin(has);
        if (lostMs !== undefined) {
          consider(key, lostMs + healAfterMs, () => this.#move(key, holding, connection, margin()));
        } else if (connection.state.kind === 'ready') {
          const block = blocksAt(holding, worker).find(each => lacks(holding, connection, each));
          if (block === undefined) continue;
          // What it has not taken another may; without one it is asked again later.
          const to = this.#retries.has(key) ? this.target(holding) : undefined;
          if (to === undefined) {
            const work = () => this.#restore(key, { holding, connection, block });
            consider(key, 0, () => ({ margin: margin(), work }));
          } else {
            const work = () => this.#moveTo(to, { holding, from: connection, key });
            consider('', 0, () => ({ margin: margin(), work }));
          }
        }
      }
    }
    for (const connection of this.#left.keys()) {
      if (connection.state.kind !== 'ready') continue;
      const key = `${connection.index} left`;
      consider(key, 0, () => ({ margin: Infinity, work: () => this.#release(key, connection) }));
    }
    return { task, dueMs };
  }

  /**
   * To have another worker hold what `from` held; when none can now but one is to be tried again, when; undefined, and told once, when
   * there is none.
   */
  #move(key: string, holding: Holding, from: Connection, margin: number): Task | number | undefined {
    const to = this.target(holding);
    if (to !== undefined) return { margin, work: () => this.#moveTo(to, { holding, from, key }) };
    const againMs = this.#againMs(holding);
    if (againMs !== Infinity) return againMs;
    if (this.#reduced.has(key)) return undefined;
    this.#reduced.add(key);
    for (const connection of this.#cluster.connections) this.#watch(connection);
    const { index: worker } = from;
    const what = nameOf(holding);
    const message = `no worker is left that could take what worker ${worker} held of ${what}: margin ${margin}`;
    this.#cluster.tell({ kind: 'reduced', worker, layer: layerOf(holding), message });
    return undefined;
  }

  /** @internal Who can take something of `holding`: a ready worker with nothing of it, of those the one with the least for its speed. */
  target(holding: Holding): Connection | undefined {
    const holders = workersOf(holding);
    const nowMs = this.#cluster.clock.now();
    const index = this.#holdings.indexOf(holding);
    return spares(this.#cluster.connections, connection => {
      const retry = this.#retries.get(`${connection.index} ${index}`);
      return !holders.has(connection.index) && (retry === undefined || retry.atMs <= nowMs);
    })[0];
  }

  /** When the first of those that did not take something of `holding` is tried again. */
  #againMs(holding: Holding): number {
    const holders = workersOf(holding);
    const index = this.#holdings.indexOf(holding);
    const others = spares(this.#cluster.connections, connection => !holders.has(connection.index));
    return Math.min(...others.map(other => this.#retries.get(`${other.index} ${index}`)?.atMs ?? Infinity));
  }

  async #moveTo(
    to: Connection,
    { holding, from, key }: { holding: Holding; from: Connection; key: string },
  ): Promise<void> {
    const blocks = blocksAt(holding, from.index);
    const names = blocks.map(block => holding.blocks[block]!.name);
    this.#watch(to);
    this.#leave(to, names); // until it stands there
    for (const block of blocks) if (!(await this.#give(holding, to, block))) return;
    holding.move(from.index, to.index);
    this.#retries.delete(key);
    this.#keep(to, names);
    this.#leave(from, names);
    const what = `what worker ${from.index} held of ${nameOf(holding)} stands on worker ${to.index} now`;
    this.#cluster.tell({ kind: 'moved', worker: to.index, layer: layerOf(holding), message: what });
  }

  async #restore(
    key: string,
    { holding, connection, block }: { holding: Holding; connection: Connection; block: number },
  ): Promise<void> {
    if (!(await this.#give(holding, connection, block))) return;
    this.#retries.delete(key);
    const { index: worker } = connection;
    const message = `worker ${worker} has its shard of ${nameOf(holding)} again`;
    this.#cluster.tell({ kind: 'restored', worker, layer: layerOf(holding), message });
  }

  /** Whether the worker holds the shard now. */
  async #give(holding: Holding, connection: Connection, block: number): Promise<boolean> {
    const { index: worker } = connection;
    try {
      await abortable(holding.resends.give(connection, block), this.#life.signal);
      return true;
    } catch (error) {
      if (this.#life.signal.aborted) return false;
      const { message } = KofnError.from(error);
      const isNew = this.#retryLater(`${worker} ${this.#holdings.indexOf(holding)}`);
      const what = `worker ${worker} did not take a shard of ${nameOf(holding)}: ${message}`;
      if (isNew) this.#cluster.tell({ kind: 'failed', worker, layer: layerOf(holding), message: what });
      return false;
    }
  }

  /** Drops the claims on what stands elsewhere. */
  async #release(key: string, connection: Connection): Promise<void> {
    const { signal } = this.#life;
    const { index: worker } = connection;
    const left = [...this.#left.get(connection)!];
    const names = left.filter(name => !this.#isNeeded(worker, name));
    try {
      if (names.length > 0) {
        const owner = this.#owner;
        const removing = connection.ask(client => client.remove(names, { owner, signal }), { signal });
        connection.lacks(...(await removing));
        const message = `worker ${worker} gave up ${names.length} shard(s) that stand elsewhere now`;
        this.#cluster.tell({ kind: 'released', worker, message });
      }
      this.#keep(connection, left);
      this.#retries.delete(key);
    } catch {
      if (!signal.aborted) this.#retryLater(key); // its lease ends by itself, too
    }
  }

  /** The workers that did not take something of a holding, with its index. */
  #refused(): { worker: number; index: number }[] {
    return this.#holdings.flatMap((holding, index) =>
      [...workersOf(holding)]
        .filter(worker => blocksAt(holding, worker).some(block => holding.resends.refusals.of(worker, block)))
        .map(worker => ({ worker, index })),
    );
  }

  #isNeeded(worker: number, name: string): boolean {
    return this.#holdings.some(({ blocks }) =>
      blocks.some(block => block.name === name && block.workers.includes(worker)),
    );
  }

  /** Whether it is the first time. */
  #retryLater(key: string): boolean {
    const before = this.#retries.get(key);
    const waitMs = before === undefined ? FIRST_RETRY_MS : Math.min(2 * before.waitMs, LAST_RETRY_MS);
    this.#retries.set(key, { atMs: this.#cluster.clock.now() + waitMs, waitMs });
    return before === undefined;
  }

  #leave(connection: Connection, names: Iterable<string>): void {
    this.#watch(connection);
    const left = this.#left.get(connection) ?? new Set();
    this.#left.set(connection, left);
    for (const name of names) left.add(name);
  }

  #keep(connection: Connection, names: Iterable<string>): void {
    const left = this.#left.get(connection);
    for (const name of names) left?.delete(name);
    if (left?.size === 0) this.#left.delete(connection);
  }
}

/** Whether a worker does not have a block that stands there. */
function lacks({ blocks, resends }: Holding, { index, shards }: Connection, block: number): boolean {
  return !shards.has(blocks[block]!.name) || resends.refusals.of(index, block) !== undefined;
}

function layerOf({ layers }: Holding): string {
  return layers.join(', ');
}

function nameOf(holding: Holding): string {
  return holding.isSegment ? layerOf(holding) : `layer ${layerOf(holding)}`;
}
