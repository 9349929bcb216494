/**
 * Planted bugs: production code changed at run time, in tests alone, to prove that the checkers find what they are for.
 * Each says which violation is to find it.
 */
import { abortable, float32, isFiniteTensor, KofnError, type Clock, type Tensor, type Tensors } from '@kofn/core';
import { ProgressiveDecoder } from '@kofn/encoder';
import { ReplyCheck, type Cluster, type CodedModel } from '@kofn/master';
import { checksum, InferStream, WorkerClient, type InferReply } from '@kofn/wire';
import type { WorkerServer } from '@kofn/worker';
import { isLasting, type Fault } from './faults.js';
import { HEDGE_MARK } from './scenario.js';

/** packages/master/src/request/replicated-segment.ts. */
const SEGMENT_LATE_MS = 1_000;

export interface Canary {
  readonly name: string;
  /** What a checker says of it. */
  readonly found: RegExp;
  /** Where to begin to look for it, when it shows in few seeds. */
  readonly firstSeed?: number;
  /** What befalls a worker in the place of a fault that was drawn: for what shows in few seeds else. */
  readonly fault?: (drawn: Fault) => Fault;
  /** Changes a class that has no instance at hand; gives what undoes it. */
  apply?(): () => void;
  masterClock?(clock: Clock): Clock;
  cluster?(cluster: Cluster): void;
  model?(model: CodedModel): void;
  worker?(server: WorkerServer): void;
}

/** A link that damages every other frame, in the place of all that passes. */
function damaging(drawn: Fault): Fault {
  return isLasting(drawn) ? drawn : { kind: 'frames', fault: 'corrupt', chance: 0.5, ms: 5_000 };
}

export const CANARIES: readonly Canary[] = [
  {
    name: 'uses a late arrival for the next request',
    firstSeed: 1,
    found: /wrong answer/,
    apply: () => {
      const late = new WeakMap<InferStream, Map<string, InferReply>>();
      return patch(InferStream.prototype, 'infer', original => {
        return function (this: InferStream, request, { signal, ...options } = {}) {
          const kept = late.get(this) ?? new Map<string, InferReply>();
          late.set(this, kept);
          const old = kept.get(request.model);
          if (old !== undefined) {
            kept.delete(request.model);
            return Promise.resolve(old);
          }
          const reply = original.call(this, request, options);
          const keep = (value: InferReply) => {
            if (signal?.aborted) kept.set(request.model, value);
          };
          reply.then(keep, () => undefined);
          return abortable(reply, signal);
        };
      });
    },
  },
  {
    name: 'forgets to cancel',
    found: /neither answered nor cancelled/,
    apply: () =>
      patch(InferStream.prototype, 'infer', original => {
        return function (this: InferStream, request, { signal, ...options } = {}) {
          return abortable(original.call(this, request, options), signal);
        };
      }),
  },
  {
    name: 'counts a duplicate as two arrivals',
    firstSeed: 1,
    found: /wrong answer/,
    apply: () =>
      patch(ProgressiveDecoder.prototype, 'accept', original => {
        return function (this: ProgressiveDecoder, index, block) {
          const isNew = original.call(this, index, block);
          if (isNew && !this.complete) original.call(this, index === 0 ? 1 : index - 1, block);
          return isNew;
        };
      }),
  },
  {
    name: "takes a NaN of the caller for the workers' fault",
    firstSeed: 3,
    found: /lost within r/,
    model: model => {
      const run = model.run.bind(model);
      model.run = async (inputs, options) => {
        if (Object.values(inputs).every(isFiniteTensor)) return run(inputs, options);
        throw new KofnError('NOT_ENOUGH_WORKERS', 'every reply has NaN');
      };
    },
  },
  {
    name: 'does not look at the shape of a reply',
    firstSeed: 78,
    found: /wrong answer/,
    cluster: cluster => {
      const shapes = new Map<string, readonly number[]>();
      onReplies(cluster, (model, name, { shape, data }, rows) => {
        const known = shapes.get(`${model} ${name}`);
        if (known === undefined && shape[0] === rows) shapes.set(`${model} ${name}`, shape.slice(1));
        const expected = [rows, ...(known ?? shape.slice(1))];
        const values = new Float32Array(expected.reduce((a, b) => a * b, 1));
        values.set((data as Float32Array).subarray(0, values.length));
        return float32(expected, values);
      });
    },
  },
  {
    name: 'does not look for NaN in a reply',
    firstSeed: 54,
    found: /wrong answer/,
    cluster: cluster =>
      onReplies(cluster, (_model, _name, { shape, data }) =>
        float32(
          shape,
          (data as Float32Array).map(value => (Number.isFinite(value) ? value : 0)),
        ),
      ),
  },
  {
    name: 'does not look at the checksum of a reply',
    fault: damaging,
    firstSeed: 22,
    found: /wrong answer/,
    apply: () => patch(checksum, 'fits', fits => (frame, start) => start !== undefined || fits(frame)),
  },
  {
    name: 'runs a damaged request',
    fault: damaging,
    firstSeed: 22,
    found: /wrong answer/,
    apply: () => patch(checksum, 'fits', fits => (frame, start) => start === undefined || fits(frame, start)),
  },
  {
    name: 'ignores the deadline',
    found: /its deadline was/,
    model: model => {
      const run = model.run.bind(model);
      model.run = (inputs, options) => run(inputs, { ...options, deadlineMs: 10 * (options?.deadlineMs ?? 60_000) });
    },
  },
  {
    name: "ignores its caller's cancellation",
    firstSeed: 1,
    found: /was cancelled or closed at/,
    model: model => {
      const run = model.run.bind(model);
      model.run = (inputs, { signal: _, ...options } = {}) => run(inputs, options);
    },
  },
  {
    name: 'leaks a timer',
    firstSeed: 1,
    found: /the master left \d+ timers/,
    masterClock: clock => {
      let timers = 0;
      return {
        now: () => clock.now(),
        setTimer: (fire, delayMs, options) => {
          const timer = clock.setTimer(fire, delayMs, options);
          return ++timers % 20 === 0 ? { cancel: () => undefined } : timer;
        },
      };
    },
  },
  {
    name: 'forgets to renew its claims',
    firstSeed: 3,
    found: /blames worker|lost within r/,
    masterClock: clock => withoutTimers(clock, delayMs => delayMs === 3_600_000),
  },
  {
    name: 'never asks a second worker for a late block',
    firstSeed: 47,
    found: /waited|lost within r/,
    masterClock: clock => withoutTimers(clock, delayMs => delayMs % 1 === HEDGE_MARK),
  },
  {
    name: 'leaves a segment to workers that stand still',
    firstSeed: 220,
    found: /waited|lost within r/,
    masterClock: clock => withoutTimers(clock, delayMs => delayMs === SEGMENT_LATE_MS),
  },
  {
    name: 'believes a reply that fails its check',
    found: /wrong answer/,
    apply: () => patch(ReplyCheck.prototype, 'look', () => () => undefined),
  },
  {
    name: "checks every reply by the first block's fingerprint",
    firstSeed: 4,
    found: /blames worker|gave a false alarm/,
    apply: () =>
      patch(ReplyCheck.prototype, 'look', original => {
        return function (this: ReplyCheck, connection, _block, values) {
          return original.call(this, connection, 0, values);
        };
      }),
  },
  {
    name: 'does not give up the shards of a model that closes',
    found: /still holds/,
    apply: () => patch(WorkerClient.prototype, 'remove', () => () => Promise.resolve([])),
  },
  {
    name: 'runs a cancelled request',
    firstSeed: 1,
    found: /cancelled before its turn/,
    worker: ({ queue }) => {
      const submit = queue.submit.bind(queue);
      queue.submit = (work, { signal: _, ...options } = {}) => submit(work, options);
    },
  },
  {
    name: 'runs an expired request',
    firstSeed: 388,
    found: /ms old that had/,
    worker: ({ queue }) => {
      const submit = queue.submit.bind(queue);
      queue.submit = (work, { timeoutMs: _, ...options } = {}) => submit(work, options);
    },
  },
  {
    name: 'opens sessions beyond the memory limit',
    firstSeed: 1,
    found: /its limit is/,
    worker: ({ executor }) => void Object.defineProperty(executor, 'memoryLimitBytes', { value: Infinity }),
  },
  {
    name: 'runs a damaged shard',
    firstSeed: 65,
    found: /wrong answer/,
    worker: ({ store }) => {
      store.open = name => Promise.resolve(`disk/${name}`);
    },
  },
];

/** `clock` that does nothing where a timer of a delay that `isLost` ends. */
function withoutTimers(clock: Clock, isLost: (delayMs: number) => boolean): Clock {
  return {
    now: () => clock.now(),
    setTimer: (fire, delayMs, options) => clock.setTimer(isLost(delayMs) ? () => undefined : fire, delayMs, options),
  };
}

/** Puts what `change` makes of a method in its place; gives what puts it back. */
export function patch<T extends object, K extends keyof T>(
  target: T,
  name: K,
  change: (original: T[K]) => T[K],
): () => void {
  const original = target[name];
  target[name] = change(original);
  return () => void (target[name] = original);
}

/** Changes every tensor that a worker replies, before anybody looks at it; `rows` are those of the request. */
function onReplies(
  { connections }: Cluster,
  change: (model: string, name: string, reply: Tensor, rows: number) => Tensor,
): void {
  for (const connection of connections) {
    const infer = connection.infer.bind(connection);
    connection.infer = async (model, inputs, call) => {
      const rows = Object.values(inputs.inputs)[0]!.shape[0]!;
      const reply = await infer(model, inputs, call);
      const outputs: Tensors = Object.fromEntries(
        Object.entries(reply.outputs).map(([name, value]) => [name, change(model, name, value, rows)]),
      );
      return { ...reply, outputs };
    };
  }
}
