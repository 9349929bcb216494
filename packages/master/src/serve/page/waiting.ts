/** What a request would have taken had each of its layers waited for all its workers: by its own report, some time after the answer. */
import type { LayerReport, RunReport } from '../../contract/report.js';

export interface Waiting {
  /** At least so long: a reply whose time is not known counts as no wait. Infinity when a worker failed: there would be no answer. */
  readonly ms: number;
  /** Every reply is known. */
  readonly isKnown: boolean;
}

/**
 * What is added to `ms`, which the request took, is of each step on the way to the answer the time from the last reply that was used to
 * the last of all, the wait behind other requests at its worker left out. Of steps side by side the way is taken to lead over the one
 * that ended last before the next began.
 */
export function waitingForAll(ms: number, { layers }: RunReport): Waiting {
  const steps = stepsOf(layers).map(([first]) => first!);
  if (steps.some(({ erasures }) => erasures.length > 0)) return { ms: Infinity, isKnown: true };
  const isKnown = steps.every(({ unanswered }) => unanswered.every(({ lateMs }) => lateMs !== undefined));
  let total = ms;
  for (let step = lastBefore(steps, Infinity); step !== undefined; step = lastBefore(steps, step.startMs)) {
    const usedMs = step.arrivals.at(-1)?.ms ?? 0;
    total += Math.max(0, ...step.unanswered.map(({ lateMs = 0 }) => lateMs - usedMs));
  }
  return { ms: total, isKnown };
}

/** The one that ended last of those that had ended by `atMs`. */
function lastBefore(steps: readonly LayerReport[], atMs: number): LayerReport | undefined {
  let last: LayerReport | undefined;
  for (const step of steps) {
    const endMs = step.startMs + step.ms;
    if (endMs <= atMs && step.startMs < atMs && (last === undefined || endMs > last.startMs + last.ms)) last = step;
  }
  return last;
}

/** Layers of one step together: they share their calls, and the list of arrivals. In the order of the steps' beginning. */
export function stepsOf(layers: readonly LayerReport[]): LayerReport[][] {
  const steps = new Map<LayerReport['arrivals'], LayerReport[]>();
  for (const layer of layers) {
    const step = steps.get(layer.arrivals);
    if (step === undefined) steps.set(layer.arrivals, [layer]);
    else step.push(layer);
  }
  return [...steps.values()].sort(([a], [b]) => a!.startMs - b!.startMs);
}
