import { abortable, type Signal } from '@kofn/core';
import type { Cluster, Fleet } from '@kofn/master';

/** The first snapshot of the fleet from now on that `holds`. Throws the signal's reason. */
export async function untilFleet(cluster: Cluster, holds: (fleet: Fleet) => boolean, signal?: Signal): Promise<Fleet> {
  let stop: () => void = () => undefined;
  const found = new Promise<Fleet>(resolve => {
    const look = (fleet: Fleet) => {
      if (holds(fleet)) resolve(fleet);
    };
    stop = cluster.onFleetChange(look);
    look(cluster.workers);
  });
  return abortable(found, signal).finally(stop);
}
