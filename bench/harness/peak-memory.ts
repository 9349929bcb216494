/** Resident memory of a process at its peak, from /proc (Linux). */
import { readFileSync, writeFileSync } from 'node:fs';

/** The most MB that the process has while `work` goes on. */
export async function peakMb(pid: number, work: () => Promise<unknown>): Promise<number> {
  writeFileSync(`/proc/${pid}/clear_refs`, '5'); // the peak is now what is resident now: proc(5)
  await work();
  const [, kilobytes] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))!;
  return (1024 * Number(kilobytes)) / 1e6;
}
