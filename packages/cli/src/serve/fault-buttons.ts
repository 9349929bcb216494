/**
 * The page's fault buttons for workers that were started here: `kofn serve --local N --allow-faults`. They are started with
 * `--allow-faults` too, or 'slow' is refused.
 */
import { KofnError } from '@kofn/core';
import type { FaultButtons } from '@kofn/master/serve';
import { FaultControl } from '../failure/fleet/fault-control.js';
import type { LocalWorkers } from '../workers/local-workers.js';

/** What 'slow' makes of an engine: seen in the lanes, and a straggler soon. */
const SLOW_FACTOR = 25;

export function localFaultButtons(workers: LocalWorkers): FaultButtons {
  return {
    async act(worker, action) {
      const pid = workers.pidOf(worker);
      if (pid === undefined && action !== 'restore') {
        throw new KofnError('UNAVAILABLE', `worker ${worker} does not run; restore it first`);
      }
      switch (action) {
        case 'kill':
          return workers.kill(worker);
        case 'pause':
          return workers.pause(worker);
        case 'slow':
          return setSlow(workers.addresses[worker]!, SLOW_FACTOR);
        case 'restore':
          if (pid === undefined) return workers.start(worker);
          workers.resume(worker);
          return setSlow(workers.addresses[worker]!, 1);
      }
    },
  };
}

async function setSlow(address: string, slowFactor: number): Promise<void> {
  await using control = await FaultControl.connect(address);
  await control.set({ slowFactor });
}
