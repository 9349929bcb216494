/** A dense layer on workers that are processes of their own, to pause and kill. */
import assert from 'node:assert/strict';
import { seededRng } from '@kofn/core';
import { codedLayer, connect } from 'kofn';
import type { Cluster, CodedLayer, CodeName, ConnectOptions, DispatchHooks, LayerReport, OnLoss } from 'kofn';
import { untilFleet } from 'kofn/measure';
import { keptWorkers, type KeptWorkers } from './kept-workers.js';

const UNITS = 12;
const FAN_IN = 32;
const rng = seededRng(5);
const draw = (length: number) => Float32Array.from({ length }, () => rng.normal());

export const weights = { data: draw(UNITS * FAN_IN), shape: [UNITS, FAN_IN] };
export const x = [[...draw(FAN_IN)]];
const expected = Float64Array.from({ length: UNITS }, (_, unit) =>
  x[0]!.reduce((sum, value, i) => sum + value * weights.data[unit * FAN_IN + i]!, 0),
);

export interface LayerSetup extends Pick<ConnectOptions, 'maxInFlight' | 'healAfterMs'> {
  readonly workers?: number;
  /** Those that hold the layer; all by default. */
  readonly holders?: readonly number[];
  readonly parity?: number;
  readonly code?: CodeName;
  readonly onLoss?: OnLoss;
  readonly systematicGraceMs?: number;
  readonly hedge?: number | 'p95';
  readonly hooks?: DispatchHooks;
}

export async function withLayer(
  { workers: count = 5, hooks = {}, maxInFlight = 64, healAfterMs = 10_000, holders, ...options }: LayerSetup,
  work: (layer: CodedLayer, workers: KeptWorkers, cluster: Cluster) => Promise<void>,
): Promise<void> {
  await using workers = await keptWorkers(count);
  await using cluster = await connect({ workers: workers.addresses, hooks, maxInFlight, healAfterMs });
  await using layer = await codedLayer(
    { type: 'dense', weights },
    { cluster, ...options, ...(holders && { workers: holders }) },
  );
  await work(layer, workers, cluster);
}

export function assertExact(output: ArrayLike<number>): void {
  expected.forEach((value, i) => assert.ok(Math.abs(output[i]! - value) < 1e-4, `${i}: ${output[i]} ${value}`));
}

/** Runs the layer once; the answer must be exact. */
export async function exact(layer: CodedLayer, deadlineMs = 20_000): Promise<LayerReport> {
  const { output, report } = await layer.run(x, { deadlineMs });
  assertExact(output.data);
  return report.layers[0]!;
}

export async function untilLost(cluster: Cluster, ...lost: readonly number[]): Promise<void> {
  await untilFleet(cluster, fleet => lost.every(worker => fleet[worker]!.state !== 'ready'));
}
