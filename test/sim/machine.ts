/**
 * One simulated worker: a disk, and the processes that run on it one after another. Each process is a WorkerServer, kofn's
 * own, on a clock, engine and blob store of the simulator.
 *
 * Invariants
 * 1. A process that was crashed does nothing any more: its clock, its engine and its view of the disk are dead.
 * 2. What the disk held when a process crashed is what the next one finds, unless the disk went with it.
 */
import { float32, type Clock, type Tensors } from '@kofn/core';
import type { Owner } from '@kofn/wire';
import { WorkerServer, type HeldShard } from '@kofn/worker';
import { MachineClock } from './machine-clock.js';
import { FormerPrograms, lied, type Lie } from './lies.js';
import type { Link } from './link.js';
import { MemoryDisk } from './memory-blobs.js';
import type { Peer } from './sim-call.js';
import type { Host } from './sim-channel.js';
import { SimEngine } from './sim-engine.js';
import type { Trace } from './trace.js';

/** Both ends find a silent link within this time (packages/wire/src/grpc/grpc-options.ts). */
export const KEEPALIVE_MS = 15_000;

export interface MachineLimits {
  readonly memoryBytes: number;
  readonly diskBytes: number;
  readonly maxQueue: number;
  /** Multiply-accumulates a millisecond. */
  readonly macsPerMs: number;
}

/** A process that was told to stop ends by then, whatever it has (packages/worker/src/start.ts). */
const GRACE_MS = 20_000;

/** Told of what a checker wants to know; machine.ts itself judges nothing. */
export interface MachineObserver {
  onMemory(machine: Machine, usedBytes: number): void;
  /** A request of the queue begins to run. */
  onStart(machine: Machine, about: { isCancelled: boolean; waitedMs: number; timeoutMs: number | undefined }): void;
  /** Its process is gone, or nothing of it is heard any more, for now. */
  onAway(machine: Machine): void;
  /** A run of its engine does not end. */
  onStuck(machine: Machine): void;
  /** The process was told to stop and ended a stream on which so many requests were not answered. */
  onUnanswered(machine: Machine, requests: number): void;
  /** A shard is being put to it. */
  onPut(machine: Machine, shard: string): void;
  /** A process begins to serve; a planted bug may change it. */
  onServer(server: WorkerServer): void;
}

/** What a faulty engine makes of the outputs. */
export type Spoiling = 'nan' | 'shape' | 'none';

interface Process extends Peer {
  readonly clock: MachineClock;
  readonly server: WorkerServer;
  readonly engine: SimEngine;
  isDraining: boolean;
}

export class Machine implements Host {
  readonly index: number;
  readonly link: Link;
  readonly limits: MachineLimits;
  /** Runs take so many times as long. */
  slowness = 1;
  spoiling: Spoiling = 'none';
  lying: Lie | undefined;
  refuses = false;
  /** No process will run on it any more. */
  isGone = false;
  /** Breaks the connection that the master has. */
  onBreak: (why: string) => void = () => undefined;
  /** As above, behind all that its process has sent. */
  onLeave: (why: string) => void = () => undefined;
  readonly #world: Clock;
  readonly #trace: Pick<Trace, 'add'>;
  readonly #observer: MachineObserver;
  #disk = new MemoryDisk();
  #process: Process | undefined;
  /** Of its engine's last run. */
  #outputs: Tensors | undefined;
  #awayFromMs: number | undefined;
  /** So many have run on it. */
  #processes = 0;
  /** Machines before it in this place. */
  #before = 0;
  /** Programs that it ran, by what they have in common with their shard's former versions. */
  readonly #programs = new FormerPrograms();
  #starting: Promise<void> | undefined;

  constructor(parts: {
    index: number;
    link: Link;
    limits: MachineLimits;
    world: Clock;
    trace: Pick<Trace, 'add'>;
    observer: MachineObserver;
  }) {
    this.index = parts.index;
    this.link = parts.link;
    this.limits = parts.limits;
    this.#world = parts.world;
    this.#trace = parts.trace;
    this.#observer = parts.observer;
  }

  get address(): string {
    return `worker-${this.index}${this.#before === 0 ? '' : `-${this.#before}`}:7453`;
  }

  get name(): string {
    return `worker ${this.index}`;
  }

  get disk(): MemoryDisk {
    return this.#disk;
  }

  /** The shards that its process holds, and whose they are. */
  get held(): HeldShard[] {
    return this.#process?.server.store.list() ?? [];
  }

  /** Their names. */
  get shards(): string[] {
    return this.held.map(({ name }) => name);
  }

  /** Names of those that `owner` claims. */
  claimedBy(owner: Owner): string[] {
    return this.#process?.server.store.claimedBy(owner) ?? [];
  }

  /** Its process runs and was not told to stop. */
  get serves(): boolean {
    return this.#process?.isDraining === false;
  }

  /** Since when nothing can be heard of it; undefined while something can. */
  get awayFromMs(): number | undefined {
    return this.#isAway ? this.#awayFromMs : undefined;
  }

  /** When it was last away. */
  get awayUntilMs(): number {
    return Math.max(this.#process?.clock.pausedUntilMs ?? 0, this.link.healedMs);
  }

  /** When the oldest run of its engine began. */
  get runningFromMs(): number | undefined {
    return this.#process?.engine.runningFromMs;
  }

  get longestRunMs(): number {
    return this.#process?.engine.longestRunMs ?? 0;
  }

  get #isAway(): boolean {
    const process = this.#process;
    return process === undefined || this.link.isSilent || process.clock.pausedUntilMs > this.#world.now();
  }

  accept(): Peer | undefined {
    return this.refuses ? undefined : this.#process;
  }

  start(): Promise<void> {
    return (this.#starting ??= this.#start().finally(() => (this.#starting = undefined)));
  }

  /** Another machine takes its place, at another address and with an empty disk. */
  replace(): Promise<void> {
    this.#before++;
    this.#disk = new MemoryDisk();
    this.#trace.add(this.name, `is another machine now, ${this.address}`);
    return this.start();
  }

  /** The process dies at once; its peer hears of it when the link lets it. */
  crash({ keepDisk }: { keepDisk: boolean }): void {
    const died = this.#process;
    if (died === undefined) return;
    this.#becomeAway(() => {
      died.clock.die();
      this.#process = undefined;
    });
    if (!keepDisk) this.#disk = new MemoryDisk();
    this.link.transmit('back', { out: 0, back: 0 }, () => this.onBreak('reset by peer'));
  }

  pause(ms: number): void {
    const process = this.#process;
    this.#becomeAway(() => process?.clock.pause(this.#world.now() + ms));
    if (ms < KEEPALIVE_MS) return;
    this.#world.setTimer(() => {
      if (process === this.#process) this.onBreak('no keepalive');
    }, KEEPALIVE_MS);
  }

  /** The link is silent in one direction or both for `ms`. */
  cutOff(directions: readonly ('out' | 'back')[], ms: number): void {
    this.#becomeAway(() => {
      for (const direction of directions) this.link.block(direction);
    });
    this.#world.setTimer(() => this.link.heal(), ms);
    if (ms >= KEEPALIVE_MS)
      this.#world.setTimer(() => this.link.isSilent && this.onBreak('no keepalive'), KEEPALIVE_MS);
  }

  /** From now until `resume` no run of its engine ends; the process lives and answers questions. */
  hang(): void {
    this.#process?.engine.hang();
  }

  resume(): void {
    this.#process?.engine.resume();
  }

  /** Tells the process to stop, as SIGTERM does, and lets it finish; resolves when it is gone. */
  async drain(): Promise<void> {
    const process = this.#process;
    if (process === undefined || process.isDraining) return;
    process.isDraining = true;
    await new Promise<void>(resolve => process.clock.whenAwake(resolve));
    const grace = new Promise<void>(resolve => this.#world.setTimer(resolve, GRACE_MS));
    await Promise.race([process.server.drain(), grace]);
    if (this.#process !== process) return;
    this.#becomeAway(() => {
      process.clock.die();
      this.#process = undefined;
    });
    this.onLeave('it has stopped');
  }

  /** Ends the process in order, as SIGTERM does; gives what it left behind, in words. */
  async stop(): Promise<string[]> {
    const process = this.#process;
    if (process === undefined) return [];
    this.#process = undefined;
    const { server, engine, clock } = process;
    engine.resume(); // a fault may have come after all were healed
    await new Promise<void>(resolve => clock.whenAwake(resolve));
    await server.drain();
    const { counters, waiting, running } = server.queue;
    await server[Symbol.asyncDispose]();
    const left: string[] = [];
    if (waiting + running > 0) left.push(`${waiting} requests wait and ${running} run`);
    if (counters.started !== counters.finished) left.push(`${counters.started - counters.finished} runs never ended`);
    if (engine.openSessions > 0) left.push(`${engine.openSessions} sessions are open`);
    if (server.executor.usedBytes !== 0) left.push(`${server.executor.usedBytes} bytes of sessions are counted`);
    if (clock.armed > 0) left.push(`${clock.armed} timers are set`);
    return left;
  }

  async #start(): Promise<void> {
    if (this.#process !== undefined) return;
    this.isGone = false;
    const clock = new MachineClock(this.#world);
    const disk = this.#disk;
    const engine = new SimEngine({
      clock,
      files: location => disk.files(location),
      speed: () => this.limits.macsPerMs / this.slowness,
      onMemory: bytes => this.#observer.onMemory(this, bytes),
      onStuck: () => this.#observer.onStuck(this),
      onOpen: program => this.#programs.keep(program),
      runs: program => (this.lying === 'shard' ? this.#programs.before(program) : program),
      spoil: outputs => this.#spoil(outputs),
    });
    const server = await WorkerServer.open({
      engine,
      blobs: disk.view(() => clock.isDead),
      clock,
      workerId: this.name,
      processId: `${this.name}, process ${this.#processes++}`,
      version: 'simulated',
      threads: 1,
      memoryLimitBytes: this.limits.memoryBytes,
      diskLimitBytes: this.limits.diskBytes,
      maxQueue: this.limits.maxQueue,
      cores: 1,
    });
    this.#observer.onServer(server);
    this.#watchQueue(server, clock);
    this.#watchStore(server);
    const onUnanswered = (requests: number) => this.#observer.onUnanswered(this, requests);
    this.#process = { server, engine, clock, handlers: server.handlers, isDraining: false, onUnanswered };
    this.#trace.add(this.name, `serves ${server.store.list().length} shards`);
  }

  #becomeAway(work: () => void): void {
    if (!this.#isAway) this.#awayFromMs = this.#world.now();
    work();
    if (this.#awayFromMs === this.#world.now()) this.#observer.onAway(this);
  }

  /** Lets the observer see each request begin; the queue itself stays as it is. */
  #watchQueue({ queue }: WorkerServer, clock: Clock): void {
    const submit = queue.submit.bind(queue);
    queue.submit = (work, options = {}) => {
      const { signal, timeoutMs } = options;
      const from = clock.now();
      return submit(() => {
        const waitedMs = clock.now() - from;
        this.#observer.onStart(this, { isCancelled: signal?.aborted === true, waitedMs, timeoutMs });
        return work();
      }, options);
    };
  }

  /** Lets the observer see each put begin. */
  #watchStore({ store }: WorkerServer): void {
    const put = store.put.bind(store);
    store.put = (shard, chunks, options) => {
      this.#observer.onPut(this, shard.name);
      return put(shard, chunks, options);
    };
  }

  #spoil(outputs: Tensors): Tensors {
    const before = this.#outputs;
    this.#outputs = outputs;
    if (this.lying !== undefined && this.spoiling === 'none') return lied(this.lying, outputs, before);
    if (this.spoiling === 'none') return outputs;
    const spoiled = Object.entries(outputs).map(([name, { shape, data }]) => {
      const values = data as Float32Array;
      if (this.spoiling === 'nan')
        return [
          name,
          float32(
            shape,
            values.map((v, i) => (i === 0 ? NaN : v)),
          ),
        ] as const;
      return [name, float32([values.length - 1], values.slice(1))] as const;
    });
    return Object.fromEntries(spoiled);
  }
}
