/**
 * An engine (packages/engine/src/engine.ts is the contract) whose runs are evaluated in float64 and take virtual time.
 *
 * Invariants
 * 1. Runs execute one at a time, in the order of their calls.
 * 2. What runs costs its multiply-accumulates at the speed that the machine has when it begins.
 * 3. While it hangs, no run ends.
 * 4. `usedBytes` is what the open sessions hold.
 */
import { elementCount, float32, KofnError, type Clock, type Tensor, type Tensors } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import { evaluate, parseProgram, type Program, type Value } from './evaluate.js';

/** As the worker counts a session beside its weights. */
const SESSION_BYTES = 2 * 2 ** 20;
const OPEN_MS = 0.5;
const RUN_MS = 0.1;

export interface SimEngineParts {
  readonly clock: Clock;
  /** The files at a location; the master's own engine has none. */
  readonly files?: (location: string) => { model: Uint8Array; weights: Uint8Array };
  /** Multiply-accumulates a millisecond, asked for as each run begins. */
  readonly speed: () => number;
  /** Told of the bytes of open sessions whenever they grow. */
  readonly onMemory?: (usedBytes: number) => void;
  /** Told when a run does not end because the engine hangs. */
  readonly onStuck?: () => void;
  /** Told of each program that is opened. */
  readonly onOpen?: (program: Program) => void;
  /** What a faulty machine runs instead of a program. */
  readonly runs?: (program: Program) => Program;
  /** What a faulty machine makes of its outputs. */
  readonly spoil?: (outputs: Tensors) => Tensors;
}

export class SimEngine implements Engine {
  readonly name = 'simulated';
  readonly version = '1';
  readonly #parts: SimEngineParts;
  #freeAtMs = 0;
  #usedBytes = 0;
  #openSessions = 0;
  #isClosed = false;
  /** When each run under way began. */
  readonly #running = new Set<{ readonly fromMs: number }>();
  #longestRunMs = 0;
  #hang: { readonly ends: Promise<void>; readonly end: () => void } | undefined;

  constructor(parts: SimEngineParts) {
    this.#parts = parts;
  }

  get openSessions(): number {
    return this.#openSessions;
  }

  /** When the oldest run under way began. */
  get runningFromMs(): number | undefined {
    const [oldest] = this.#running;
    return oldest?.fromMs;
  }

  /** Of the runs that ended. */
  get longestRunMs(): number {
    return this.#longestRunMs;
  }

  /** No run ends before `resume`. */
  hang(): void {
    if (this.#hang !== undefined) return;
    let end!: () => void;
    const ends = new Promise<void>(resolve => (end = resolve));
    this.#hang = { ends, end };
  }

  resume(): void {
    this.#hang?.end();
    this.#hang = undefined;
  }

  async open(location: string): Promise<Session> {
    const { files } = this.#parts;
    if (files === undefined) throw new KofnError('NOT_FOUND', `no folder ${location}`);
    return this.openFiles(files(location));
  }

  async openFiles(files: { model: Uint8Array; weights: Uint8Array }): Promise<Session> {
    if (this.#isClosed) throw new KofnError('CANCELLED', 'the engine is closed');
    const program = parseProgram(files);
    this.#parts.onOpen?.(program);
    const bytes = program.bytes + SESSION_BYTES;
    this.#usedBytes += bytes;
    this.#openSessions++;
    this.#parts.onMemory?.(this.#usedBytes);
    await this.#busy(OPEN_MS);
    return this.#session(program, bytes);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    return Promise.resolve();
  }

  #session(program: Program, bytes: number): Session {
    let isOpen = true;
    let running = Promise.resolve();
    const info = ({ name, shape }: Program['inputs'][number]) => ({ name, dtype: 'float32' as const, shape });
    return {
      inputs: program.inputs.map(info),
      outputs: program.outputs.map(info),
      run: async (feeds, { transfer = false } = {}) => {
        if (!isOpen || this.#isClosed) throw new KofnError('CANCELLED', 'the session is closed');
        const { outputs, macs } = evaluate(this.#parts.runs?.(program) ?? program, feedsOf(program, feeds));
        if (transfer) for (const { data } of Object.values(feeds)) take(data as Float32Array);
        const run = this.#run(macs);
        running = Promise.all([running, run]).then(() => undefined);
        await run;
        const named = program.outputs.map(({ name }, i) => [name, rounded(outputs[i]!)] as const);
        const made: Tensors = Object.fromEntries(named);
        return this.#parts.spoil?.(made) ?? made;
      },
      [Symbol.asyncDispose]: async () => {
        if (!isOpen) return;
        isOpen = false;
        await running;
        this.#usedBytes -= bytes;
        this.#openSessions--;
      },
    };
  }

  async #run(macs: number): Promise<void> {
    const { clock, onStuck } = this.#parts;
    const running = { fromMs: clock.now() };
    this.#running.add(running);
    await this.#busy(RUN_MS, macs);
    while (this.#hang !== undefined) {
      onStuck?.();
      await this.#hang.ends;
    }
    this.#running.delete(running);
    this.#longestRunMs = Math.max(this.#longestRunMs, clock.now() - running.fromMs);
  }

  /** Resolves when the engine's thread has done that much more. */
  #busy(ms: number, macs = 0): Promise<void> {
    const { clock, speed } = this.#parts;
    const startMs = Math.max(clock.now(), this.#freeAtMs);
    this.#freeAtMs = startMs + ms + macs / speed();
    return new Promise(resolve => clock.setTimer(resolve, this.#freeAtMs - clock.now()));
  }
}

function feedsOf({ inputs }: Program, feeds: Tensors): Map<string, Value> {
  return new Map(
    inputs.map(({ name, shape }) => {
      const value = feeds[name];
      if (value === undefined) throw new KofnError('INVALID_ARGUMENT', `input "${name}" is missing`);
      if (
        value.data.length !== elementCount(value.shape) ||
        (shape.length > 0 && shape.length !== value.shape.length)
      ) {
        throw new KofnError('SHAPE_MISMATCH', `input "${name}" has shape [${value.shape.join(',')}]`);
      }
      return [name, valueOf(value)];
    }),
  );
}

/** Detaches a buffer as its move to another thread does, so that who uses it afterwards is found out. */
function take({ buffer, byteLength }: Float32Array): void {
  if (buffer.byteLength === byteLength) structuredClone(buffer, { transfer: [buffer as ArrayBuffer] });
}

export function valueOf({ shape, data }: Tensor): Value {
  return { shape, data: Float64Array.from(data as Float32Array) };
}

function rounded({ shape, data }: Value): Tensor {
  return float32(shape, Float32Array.from(data));
}
