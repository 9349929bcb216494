import type { Cluster, ClusterEvent } from 'kofn';

/** Resolves with the first event that `isIt`, one that was told already included. */
export function untilEvent(cluster: Cluster, isIt: (event: ClusterEvent) => boolean): Promise<ClusterEvent> {
  const told = cluster.events.find(isIt);
  if (told !== undefined) return Promise.resolve(told);
  return new Promise(resolve => {
    const stop = cluster.onEvent(event => {
      if (!isIt(event)) return;
      stop();
      resolve(event);
    });
  });
}
