/**
 * Requests joined along their first dimension into one run of the model, where that is asked for: each waits `maxDelayMs` at most for
 * others that fit it. What comes out is cut apart again. Off by default: it is right only for models that treat each row by itself.
 *
 * Invariants
 * 1. Joined are only inputs of equal names, element types and sizes but for the first, of a model that leaves all first sizes open.
 * 2. One that is cancelled or expires leaves at once; the run goes on for the others, and ends with the last of them.
 * 3. When what comes out has not the rows that went in, each is run by itself.
 */
import {
  abortable,
  KofnError,
  openScope,
  tensor,
  type Clock,
  type Scope,
  type Signal,
  type Tensor,
  type Tensors,
  type Timer,
} from '@kofn/core';
import type { CodedModel } from '../../coded-model.js';
import { requireRange, requireWhole } from '../../contract/options.js';
import type { RunReport } from '../../contract/report.js';

export interface BatchOptions {
  /** The most rows of one run; 1, the default, joins nothing. */
  readonly maxBatch?: number | undefined;
  /** How long the first request of a run waits for others. Default 5. */
  readonly maxDelayMs?: number | undefined;
}

export interface BatchResult {
  readonly outputs: Tensors;
  readonly report: RunReport;
  /** Of the run that it was a part of; undefined when it ran by itself. */
  readonly rows?: number | undefined;
}

interface RunCall {
  readonly signal: Signal;
  readonly deadlineMs: number;
  readonly id: string;
}

interface Member extends RunCall {
  readonly inputs: Tensors;
  readonly rows: number;
  readonly endsAt: number;
}

interface Batch {
  readonly members: Member[];
  rows: number;
  readonly timer: Timer;
  readonly result: Promise<BatchedOutputs>;
  /** Takes no more, and runs. */
  start(): void;
  /** Takes no more, and ends where it is. */
  drop(): void;
  readonly scope: Scope;
}

/** Undefined: they have to run each by itself. */
type BatchedOutputs = { readonly outputs: Tensors; readonly report: RunReport } | undefined;

export class Batcher {
  readonly #clock: Clock;
  readonly #maxBatch: number;
  readonly #maxDelayMs: number;
  /** Those that wait for more, of each model by what fits together. */
  readonly #open = new WeakMap<CodedModel, Map<string, Batch>>();

  /** Throws INVALID_ARGUMENT. */
  constructor(clock: Clock, { maxBatch = 1, maxDelayMs = 5 }: BatchOptions) {
    requireWhole('maxBatch', maxBatch, 1, 65_536);
    requireRange('maxDelayMs', maxDelayMs, 0, 60_000);
    this.#clock = clock;
    this.#maxBatch = maxBatch;
    this.#maxDelayMs = maxDelayMs;
  }

  /** Runs `inputs`, which fit the model. Throws as `CodedModel.run`. */
  async run(model: CodedModel, inputs: Tensors, call: RunCall): Promise<BatchResult> {
    const rows = this.#maxBatch > 1 && takesRows(model) ? rowsOf(inputs) : undefined;
    if (rows === undefined || rows >= this.#maxBatch) return model.run(inputs, call);
    const batches = this.#open.get(model) ?? new Map<string, Batch>();
    this.#open.set(model, batches);
    const key = keyOf(inputs);
    let batch = batches.get(key);
    if (batch !== undefined && batch.rows + rows > this.#maxBatch) {
      batch.start();
      batch = undefined;
    }
    batch ??= this.#begin(model, batches, key);
    const member = { ...call, inputs, rows, endsAt: this.#clock.now() + call.deadlineMs };
    const first = batch.rows;
    batch.members.push(member);
    batch.rows += rows;
    if (batch.rows >= this.#maxBatch) batch.start();
    let joined: BatchedOutputs;
    try {
      joined = await abortable(batch.result, call.signal);
    } finally {
      if (batch.members.every(({ signal }) => signal.aborted)) {
        batch.drop();
      }
    }
    if (joined === undefined)
      return model.run(inputs, { ...call, deadlineMs: Math.max(1, member.endsAt - this.#clock.now()) });
    if (batch.members.length === 1) return joined;
    return { outputs: sliced(joined.outputs, first, rows), report: joined.report, rows: batch.rows };
  }

  #begin(model: CodedModel, batches: Map<string, Batch>, key: string): Batch {
    const scope = openScope(this.#clock);
    let start!: () => void;
    const started = new Promise<void>(resolve => (start = resolve));
    const shut = () => {
      if (batches.get(key) === batch) batches.delete(key);
      batch.timer.cancel();
    };
    const batch: Batch = {
      members: [],
      rows: 0,
      scope,
      timer: this.#clock.setTimer(() => batch.start(), this.#maxDelayMs),
      start() {
        shut();
        start();
      },
      drop() {
        shut();
        scope.abort(new KofnError('CANCELLED', 'all that asked for it are gone'));
      },
      result: started.then(() => this.#runAll(model, batch)).finally(() => scope[Symbol.dispose]()),
    };
    batch.result.catch(() => undefined); // those that asked for it may be gone
    batches.set(key, batch);
    return batch;
  }

  async #runAll(model: CodedModel, { members, rows, scope }: Batch): Promise<BatchedOutputs> {
    const [first] = members as [Member];
    if (members.length === 1) return model.run(first.inputs, first);
    const deadlineMs = Math.max(1, Math.max(...members.map(({ endsAt }) => endsAt)) - this.#clock.now());
    const id = members
      .map(each => each.id)
      .join(' ')
      .slice(0, 200);
    const result = await model.run(
      joined(
        members.map(({ inputs }) => inputs),
        rows,
      ),
      { signal: scope.signal, deadlineMs, id },
    );
    const fits = Object.values(result.outputs).every(({ shape }) => shape[0] === rows);
    return fits ? result : undefined;
  }
}

/** Whether the model takes any number of rows and gives as many. */
export function takesRows({ inputs, outputs }: CodedModel): boolean {
  return [...inputs, ...outputs].every(({ shape }) => shape.length > 0 && typeof shape[0] !== 'number');
}

/** The first size, where all inputs have the same, and their elements are numbers. */
function rowsOf(inputs: Tensors): number | undefined {
  const tensors = Object.values(inputs);
  const rows = tensors[0]?.shape[0];
  if (rows === undefined || rows === 0) return undefined;
  return tensors.every(({ shape, dtype }) => shape[0] === rows && dtype !== 'string') ? rows : undefined;
}

function keyOf(inputs: Tensors): string {
  const names = Object.keys(inputs).sort();
  return JSON.stringify(names.map(name => [name, inputs[name]!.dtype, ...inputs[name]!.shape.slice(1)]));
}

function joined(all: readonly Tensors[], rows: number): Tensors {
  const [first] = all as [Tensors];
  return Object.fromEntries(
    Object.entries(first).map(([name, { dtype, shape, data }]) => {
      const parts = all.map(inputs => inputs[name]!.data as Float32Array);
      const whole = new (data.constructor as Float32ArrayConstructor)(
        parts.reduce((sum, { length }) => sum + length, 0),
      );
      let at = 0;
      for (const part of parts) {
        whole.set(part, at);
        at += part.length;
      }
      return [name, tensor(dtype, [rows, ...shape.slice(1)], whole)];
    }),
  );
}

/** The rows of one request, copied: each answer then frees its own. */
function sliced(outputs: Tensors, first: number, rows: number): Tensors {
  const cut = ({ dtype, shape, data }: Tensor) => {
    const all = shape[0]!;
    if (rows === all) return tensor(dtype, shape, data);
    const size = data.length / all;
    return tensor(dtype, [rows, ...shape.slice(1)], data.slice(first * size, (first + rows) * size));
  };
  return Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, cut(value)]));
}
