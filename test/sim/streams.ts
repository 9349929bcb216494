/**
 * Chance of one seed, in streams by purpose: what one part of a simulation draws does not change what another draws, so
 * that a seed stays like itself when a part changes.
 */
import { createHash } from 'node:crypto';
import { seededRng, type Rng } from '@kofn/core';

export type Streams = (purpose: string) => Rng;

export function streamsOf(seed: number): Streams {
  return purpose => seededRng(createHash('sha256').update(`${seed} ${purpose}`).digest().readUIntBE(0, 6));
}

export function pick<T>(rng: Rng, from: readonly T[]): T {
  return from[rng.integer(from.length)]!;
}

/** Uniform between `least` and `most`. */
export function between(rng: Rng, least: number, most: number): number {
  return least + (most - least) * rng.uniform();
}

/** `count` different ones of `from`, in a drawn order. */
export function some<T>(rng: Rng, from: readonly T[], count: number): T[] {
  const left = [...from];
  return Array.from({ length: Math.min(count, left.length) }, () => left.splice(rng.integer(left.length), 1)[0]!);
}
