/**
 * What outlives a process unless it is removed: network namespaces, control groups. Each has a name that says whose it is, is removed
 * when this process exits, and by the next run when the owner was killed. (A pid that was given to another process since protects it
 * for that process's life.)
 */

const NAME = /^kofn-(\d+)-\d+$/;
const removals = new Set<() => void>();
let made = 0;

/** A name that no other of this process or of another that runs has; at most 20 characters. */
export function ownName(): string {
  return `kofn-${process.pid}-${made++}`;
}

/** Whether `name` is by {@link ownName} of a process that runs no more. */
export function isLeftover(name: string): boolean {
  const pid = NAME.exec(name)?.[1];
  if (pid === undefined) return false;
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

/** Calls `remove`, which must be synchronous and not throw, when this process exits, unless what is returned has been called. */
export function removeAtExit(remove: () => void): () => void {
  if (removals.size === 0) process.on('exit', removeAll);
  removals.add(remove);
  return () => {
    removals.delete(remove);
    if (removals.size === 0) process.off('exit', removeAll);
  };
}

function removeAll(): void {
  for (const remove of removals) remove();
}
