/** What a worker does to its own process: end it, or let it stand still. */
import { spawnSync } from 'node:child_process';
import { KofnError } from '@kofn/core';

/** process.exit would wait for the engine's thread, whose run cannot be stopped. */
export function endNow(): never {
  process.kill(process.pid, 'SIGKILL');
  throw new KofnError('INTERNAL', 'alive after SIGKILL');
}

/**
 * A shell stops this process and lets it go on, so that neither can come before the other, and is waited for, so that this thread does
 * nothing until it is over. It ignores what a terminal sends to all of a group: without it the process would stand for ever.
 */
const PAUSE = 'trap "" HUP INT TERM; kill -STOP "$0" && sleep "$1"; slept=$?; kill -CONT "$0"; exit $slept';

/** Lets the whole process stand still for `ms`, then go on. Throws INTERNAL when it cannot. */
export function standStill(ms: number): void {
  const args = ['-c', PAUSE, String(process.pid), (ms / 1000).toFixed(3)];
  const { status, error } = spawnSync('/bin/sh', args, { stdio: 'ignore' });
  if (status === 0) return;
  const why = error?.message ?? `exit code ${status}`;
  throw new KofnError('INTERNAL', `/bin/sh could not pause this process (${why})`, { cause: error });
}
