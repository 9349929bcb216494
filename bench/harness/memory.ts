/** Resident memory of a process, from /proc (Linux), in MB. */
import { readFileSync, writeFileSync } from 'node:fs';

export function residentMb(pid: number): number {
  return field(pid, 'VmRSS');
}

/** The most that the process has while `work` goes on. */
export async function peakMb(pid: number, work: () => Promise<unknown>): Promise<number> {
  writeFileSync(`/proc/${pid}/clear_refs`, '5'); // the peak is now what is resident now: proc(5)
  await work();
  return field(pid, 'VmHWM');
}

function field(pid: number, name: 'VmRSS' | 'VmHWM'): number {
  const [, kilobytes] = new RegExp(`${name}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, 'latin1'))!;
  return (1024 * Number(kilobytes)) / 1e6;
}
