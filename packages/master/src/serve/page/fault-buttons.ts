/** What the page's buttons do to workers, for those who let it: `kofn serve --allow-faults`. */
import type { FaultAction } from '@kofn/dashboard';

export interface FaultButtons {
  /**
   * Resolves once it is done: 'kill' ends the worker at once, 'pause' stops it where it is, 'slow' lets its engine take many times as
   * long, 'restore' undoes all three. `worker` is its number in the cluster. Throws what is wrong as KofnError: INVALID_ARGUMENT (no such
   * worker), UNAVAILABLE (it is gone).
   */
  act(worker: number, action: FaultAction): Promise<void>;
}
