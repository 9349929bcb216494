/**
 * Machines that compute wrong but finite numbers, in scenarios where replies are verified: drawn from streams of their own, so that
 * other seeds are what they were without them. What must hold: no answer is wrong (exact.ts), and only liars are found wrong.
 */
import { float32, type Float32Tensor, type Tensors } from '@kofn/core';
import type { Cluster, CodeOptions } from '@kofn/master';
import type { Violation } from './checks/request.js';
import type { ScheduledFault } from './faults.js';
import type { Phase } from './scenario.js';
import { between, pick, type Streams } from './streams.js';

/** One element's bit, the output of another request, all values a little larger. */
export const LIES = ['bit', 'stale', 'scale'] as const;
export type Lie = (typeof LIES)[number];

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
      return [{ atMs: 0, worker, fault: { kind: 'lie', how: pick(rng, LIES), ms: 10 ** between(rng, 1, 4) } }];
    });
    return { ...phase, faults: [...lies, ...phase.faults] };
  });
  return { verify: 'fingerprint', phases: lying };
}

/** What a lying engine makes of `outputs`; `before` are those of its last run. */
export function lied(how: Lie, outputs: Tensors, before: Tensors | undefined): Tensors {
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

/** What the master holds against its workers, of which `liars` lied. Releases those that it has put aside: the phase is over. */
export function checkJudged(cluster: Cluster, liars: ReadonlySet<number>): Violation[] {
  return cluster.workers.flatMap(({ index, state, reason, wrongAnswers, falseAlarms }) => {
    if (state === 'quarantined' && reason.startsWith('answered wrong')) cluster.release(index);
    const violations: Violation[] = [];
    if (wrongAnswers > 0 && !liars.has(index)) violations.push(`worker ${index} is found wrong and never lied`);
    if (falseAlarms > 0 && !liars.has(index)) violations.push(`worker ${index} gave a false alarm`);
    return violations;
  });
}
