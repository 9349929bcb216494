/**
 * One simulated worker: a disk, and the processes that run on it one after another. Each process is a WorkerServer, kofn's
 * own, on a clock, engine and blob store of the simulator.
 *
 * Invariants
 * 1. A process that was crashed does nothing any more: its clock, its engine and its view of the disk are dead.
 * 2. What the disk held when a process crashed is what the next one finds, unless the disk went with it.
 */
import { float32, type Clock, type Tensors } from '@kofn/core';
import { WorkerServer } from '@kofn/worker';
import { MachineClock } from './machine-clock.js';
import type { Link } from './link.js';
import { MemoryDisk } from './memory-blobs.js';
import type { Peer } from './sim-call.js';
import type { Host } from './sim-channel.js';
import { SimEngine } from './sim-engine.js';
import type { Trace } from './trace.js';

/** Both ends find a silent link within this time (packages/wire/src/grpc-options.ts). */
export const KEEPALIVE_MS = 15_000;

export interface MachineLimits {
  readonly memoryBytes: number;
  readonly diskBytes: number;
  readonly maxQueue: number;
  /** Multiply-accumulates a millisecond. */
  readonly macsPerMs: number;
}

/** Told of what a checker wants to know; machine.ts itself judges nothing. */
export interface MachineObserver {
  onMemory(machine: Machine, usedBytes: number): void;
  /** A request of the queue begins to run. */
  onStart(machine: Machine, about: { isCancelled: boolean; waitedMs: number; timeoutMs: number | undefined }): void;
  /** A process begins to serve; a planted bug may change it. */
  onServer(server: WorkerServer): void;
}

/** What a faulty engine makes of the outputs. */
export type Spoiling = 'nan' | 'shape' | 'none';

interface Process extends Peer {
  readonly clock: MachineClock;
  readonly server: WorkerServer;
  readonly engine: SimEngine;
}

export class Machine implements Host {
  readonly index: number;
  readonly address: string;
  readonly link: Link;
  readonly limits: MachineLimits;
  /** Runs take so many times as long. */
  slowness = 1;
  spoiling: Spoiling = 'none';
  refuses = false;
  /** Breaks the connection that the master has. */
  onBreak: (why: string) => void = () => undefined;
  readonly #world: Clock;
  readonly #trace: Trace;
  readonly #observer: MachineObserver;
  #disk = new MemoryDisk();
  #process: Process | undefined;
  #starting: Promise<void> | undefined;

  constructor(parts: {
    index: number;
    link: Link;
    limits: MachineLimits;
    world: Clock;
    trace: Trace;
    observer: MachineObserver;
  }) {
    this.index = parts.index;
    this.address = `worker-${parts.index}:9090`;
    this.link = parts.link;
    this.limits = parts.limits;
    this.#world = parts.world;
    this.#trace = parts.trace;
    this.#observer = parts.observer;
  }

  get name(): string {
    return `worker ${this.index}`;
  }

  get disk(): MemoryDisk {
    return this.#disk;
  }

  /** Names of the shards that its process holds. */
  get shards(): string[] {
    return this.#process?.server.store.list().map(({ name }) => name) ?? [];
  }

  accept(): Peer | undefined {
    return this.refuses ? undefined : this.#process;
  }

  start(): Promise<void> {
    return (this.#starting ??= this.#start().finally(() => (this.#starting = undefined)));
  }

  /** The process dies at once; its peer hears of it when the link lets it. */
  crash({ keepDisk }: { keepDisk: boolean }): void {
    const died = this.#process;
    if (died === undefined) return;
    died.clock.die();
    this.#process = undefined;
    if (!keepDisk) this.#disk = new MemoryDisk();
    this.link.transmit('back', { out: 0, back: 0 }, () => this.onBreak('reset by peer'));
  }

  pause(ms: number): void {
    const process = this.#process;
    process?.clock.pause(this.#world.now() + ms);
    if (ms < KEEPALIVE_MS) return;
    this.#world.setTimer(() => {
      if (process === this.#process) this.onBreak('no keepalive');
    }, KEEPALIVE_MS);
  }

  /** The link is silent in one direction or both for `ms`. */
  cutOff(directions: readonly ('out' | 'back')[], ms: number): void {
    for (const direction of directions) this.link.block(direction);
    this.#world.setTimer(() => this.link.heal(), ms);
    if (ms >= KEEPALIVE_MS)
      this.#world.setTimer(() => this.link.isSilent && this.onBreak('no keepalive'), KEEPALIVE_MS);
  }

  /** Ends the process in order, as SIGTERM does; gives what it left behind, in words. */
  async stop(): Promise<string[]> {
    const process = this.#process;
    if (process === undefined) return [];
    this.#process = undefined;
    const { server, engine, clock } = process;
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
    const clock = new MachineClock(this.#world);
    const disk = this.#disk;
    const engine = new SimEngine({
      clock,
      files: location => disk.files(location),
      speed: () => this.limits.macsPerMs / this.slowness,
      onMemory: bytes => this.#observer.onMemory(this, bytes),
      spoil: outputs => this.#spoil(outputs),
    });
    const server = await WorkerServer.open({
      engine,
      blobs: disk.view(() => clock.isDead),
      clock,
      workerId: this.name,
      version: 'simulated',
      threads: 1,
      memoryLimitBytes: this.limits.memoryBytes,
      diskLimitBytes: this.limits.diskBytes,
      maxQueue: this.limits.maxQueue,
      cores: 1,
    });
    this.#observer.onServer(server);
    this.#watchQueue(server, clock);
    this.#process = { server, engine, clock, handlers: server.handlers };
    this.#trace.add(this.name, `serves ${server.store.list().length} shards`);
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

  #spoil(outputs: Tensors): Tensors {
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
