/** A plan for people: a row for each linear layer, totals, and what the figures rest on. */
import { formatShape } from '@kofn/core';
import type { LayerChoice, LayerPlan, Plan } from '@kofn/master';
import { note } from './progress.js';
import { bold, formatBytes, formatCount, formatMs, plural, table } from './render.js';

const SUGGESTION =
  'Coding pays for no layer by these figures; --layers all codes them all the same, for the sake of losses.';

export function planTable({ layers }: Plan): string {
  const rows = layers.map(layer => [
    layer.name,
    layer.operator,
    `${layer.inputShape ? formatShape(layer.inputShape) : '-'} > ${layer.outputShape ? formatShape(layer.outputShape) : '-'}`,
    formatCount(layer.macs),
    formatBytes(layer.weightBytes),
    layer.coded === undefined ? '-' : formatBytes(layer.coded.shardBytes),
    layer.coded === undefined ? 'local' : bold(`${layer.coded.code} ${layer.coded.k}+${layer.coded.r}`),
    formatMs(layer.costs?.localMs),
    formatMs(layer.costs?.codedMs),
    layer.reason,
  ]);
  const head = [
    'layer',
    'operator',
    'in > out',
    'MACs',
    'weights',
    'a worker',
    'code k+r',
    'local ms',
    'coded ms',
    'why',
  ];
  return table(head, rows);
}

/** Sums over the layers, for the line below the table and for JSON. */
export interface PlanTotals {
  readonly layers: number;
  readonly coded: number;
  readonly macs: number;
  readonly weightBytes: number;
  /** Weights that each worker keeps. */
  readonly workerBytes: number;
  /** Expected time of all linear layers on the master. */
  readonly localMs: number;
  /** The same with the coded layers on the workers. */
  readonly plannedMs: number;
}

export function planTotals({ layers }: Plan): PlanTotals {
  const sum = (figure: (layer: LayerPlan) => number | undefined) =>
    layers.reduce((total, layer) => total + (figure(layer) ?? 0), 0);
  return {
    layers: layers.length,
    coded: layers.filter(({ decision }) => decision === 'coded').length,
    macs: sum(layer => layer.macs),
    weightBytes: sum(layer => layer.weightBytes),
    workerBytes: sum(layer => layer.coded?.shardBytes),
    localMs: sum(layer => layer.costs?.localMs),
    plannedMs: sum(layer => (layer.decision === 'coded' ? layer.costs?.codedMs : layer.costs?.localMs)),
  };
}

export function planWords(plan: Plan, choice: LayerChoice): string[] {
  const { source, roundTripMs, megabitsPerSecond, workerGflops, localGflops } = plan.speeds;
  const totals = planTotals(plan);
  const lines = [
    `${totals.coded} of ${plural(totals.layers, 'linear layer')} coded; ${formatCount(totals.macs)} MACs, ` +
      `${formatBytes(totals.weightBytes)} of weights, ${formatBytes(totals.workerBytes)} on each worker; ` +
      `expected ${formatMs(totals.localMs)} ms all local, ${formatMs(totals.plannedMs)} ms as planned.`,
    `Speeds are ${source}: round trip ${formatMs(roundTripMs)} ms, ${megabitsPerSecond.toFixed(0)} Mbit/s, ` +
      `worker ${workerGflops.toPrecision(3)} GFLOP/s, master ${localGflops.toPrecision(3)} GFLOP/s.`,
  ];
  return nothingPays(plan, choice) ? [...lines, SUGGESTION] : lines;
}

/** Which workers run what is not coded, and what stays with the master all the same; nothing when all does. */
export function segmentWords({ segments }: Plan): string[] {
  if (segments.every(({ decision }) => decision === 'local')) return [];
  return segments.map(({ name, nodes, reason, workers }) => {
    const at = workers.length === 0 ? 'master' : `workers ${workers.join(' and ')}`;
    return `${name}, ${plural(nodes, 'node')}: ${at}; ${reason}.`;
  });
}

/** What is to be known of the model, and under `auto` the decision in brief, on stderr: both sides of each layer, and what to do when nothing pays. */
export function noteDecision(plan: Plan, choice: LayerChoice): void {
  for (const line of plan.notes) note(line);
  if (choice !== 'auto') return;
  for (const { name, reason } of plan.layers) note(`${name}: ${reason}`);
  if (nothingPays(plan, choice)) note(SUGGESTION);
}

export function nothingPays({ layers }: Plan, choice: LayerChoice): boolean {
  return choice === 'auto' && layers.every(({ decision }) => decision === 'local');
}
