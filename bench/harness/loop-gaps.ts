/** How long this process's event loop is held up: one watch at a time. */
import { monitorEventLoopDelay, type IntervalHistogram } from 'node:perf_hooks';

let histogram: IntervalHistogram | undefined;

/** Begins a watch: a timer of one millisecond, and how far apart its turns are. */
export function watchLoop(): void {
  histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
}

/** Ends it: the 99th percentile of the gaps, the timer's own millisecond included. */
export function loopGapMsP99(): number {
  histogram!.disable();
  return histogram!.percentile(99) / 1e6;
}
