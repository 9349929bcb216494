/**
 * Machines that compute wrong but finite numbers, in scenarios where replies are verified: drawn from streams of their own, so that
 * other seeds are what they were without them. What must hold: no answer is wrong (checks/exact.ts), every liar is found out and nobody
 * else (checks/trust.ts).
 */
import { float32, type Float32Tensor, type Tensors } from '@kofn/core';
import type { CodeOptions } from '@kofn/master';
import type { Program } from './evaluate.js';
import type { ScheduledFault } from './faults.js';
import type { Phase } from './scenario.js';
import { between, pick, type Streams } from './streams.js';

/**
 * One element's bit, the output of another request, all values a little larger, the answer of the shard that was in its place before an
 * update.
 */
export const LIES = ['bit', 'stale', 'scale', 'shard'] as const;
export type Lie = (typeof LIES)[number];

/** Until its phase is over. */
const LONG_MS = 60_000;

/** Whether replies are verified, and the phases with lies in them if they are. Segments on workers are not. */
export function drawLies(
  streams: Streams,
  phases: readonly Phase[],
  segments: 'local' | 'replicated',
): { verify: NonNullable<CodeOptions['verify']>; phases: readonly Phase[] } {
  const rng = streams('lies');
  if (segments !== 'local' || rng.integer(2) === 0) return { verify: 'none', phases };
  const lying = phases.map(phase => {
    const lies = phase.afflicted.flatMap((worker): ScheduledFault[] => {
      if (rng.integer(3) === 0) return [];
      const how = pick(rng, LIES);
      return [
        { atMs: 0, worker, fault: { kind: 'lie', how, ms: how === 'shard' ? LONG_MS : 10 ** between(rng, 1, 4) } },
      ];
    });
    const needsFormer = lies.some(({ fault }) => fault.kind === 'lie' && fault.how === 'shard');
    const lastMs = Math.max(...phase.requests.map(({ atMs }) => atMs));
    const updateAtMs = needsFormer ? (phase.updateAtMs ?? between(rng, 0, lastMs)) : phase.updateAtMs;
    return { ...phase, updateAtMs, faults: [...lies, ...phase.faults] };
  });
  return { verify: 'fingerprint', phases: lying };
}

/** What a lying engine makes of `outputs`; `before` are those of its last run. With a former shard they are lies already. */
export function lied(how: Lie, outputs: Tensors, before: Tensors | undefined): Tensors {
  if (how === 'shard') return outputs;
  return Object.fromEntries(
    Object.entries(outputs).map(([name, value]) => {
      const { shape, data } = value as Float32Tensor;
      const old = before?.[name] as Float32Tensor | undefined;
      if (how === 'stale') return [name, old?.data.length === data.length ? float32(shape, old.data) : value];
      const values = how === 'scale' ? data.map(element => 1.01 * element) : data.slice();
      if (how === 'bit') {
        const largest = values.reduce(
          (best, element, i) => (Math.abs(element) > Math.abs(values[best]!) ? i : best),
          0,
        );
        new Uint32Array(values.buffer)[largest]! ^= 1 << 22;
      }
      return [name, float32(shape, values)];
    }),
  );
}

/** The programs that a machine has run, so that it can answer with a former version's weights. */
export class FormerPrograms {
  /** By what versions of a shard have in common, the latest last. */
  readonly #kept = new Map<string, Program[]>();

  keep(program: Program): void {
    const others = this.#others(program);
    this.#kept.set(keyOf(program), [...others.slice(-1), program]);
  }

  /** The one before `program` with other weights; itself when there was none. */
  before(program: Program): Program {
    return this.#others(program).at(-1) ?? program;
  }

  #others(program: Program): Program[] {
    return (this.#kept.get(keyOf(program)) ?? []).filter(other => !hasSameWeights(other, program));
  }
}

function keyOf({ nodes, constants }: Program): string {
  const shapes = [...constants].map(([name, { shape }]) => [name, shape]);
  return JSON.stringify([nodes.map(({ name, opType }) => [name, opType]), shapes]);
}

function hasSameWeights(a: Program, b: Program): boolean {
  return [...a.constants].every(([name, { data }]) =>
    data.every((value, i) => b.constants.get(name)!.data[i] === value),
  );
}
