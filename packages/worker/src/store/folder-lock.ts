/** One worker a data directory: FOLDER/worker.pid says which, by its process id and when that process started. */
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { KofnError } from '@kofn/core';

/** Throws INVALID_ARGUMENT when another live process has taken `folder`, else what the file system throws. */
export async function takeFolder(folder: string): Promise<void> {
  const file = lockFile(folder);
  const [pid = '', started] = ((await readFile(file, 'utf8').catch(ignoreMissing)) ?? '').trim().split(' ');
  const owner = Number(pid);
  // Process ids come round again, most of all in containers: the start tells this owner from another.
  if (owner > 0 && owner !== process.pid && isAlive(owner) && (await startOf(owner)) === started) {
    throw new KofnError(
      'INVALID_ARGUMENT',
      `--data-dir ${folder}: process ${owner} uses it (${file}); give each worker a directory of its own`,
    );
  }
  await writeFile(file, `${process.pid} ${(await startOf(process.pid)) ?? ''}`.trim());
}

export async function releaseFolder(folder: string): Promise<void> {
  await rm(lockFile(folder), { force: true });
}

/** For `catch`: undefined when there is no such file, else the error again. */
export function ignoreMissing(error: unknown): undefined {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'ENOENT' && code !== 'ENOTDIR') throw error;
}

function lockFile(folder: string): string {
  return path.join(folder, 'worker.pid');
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/**
 * Field 22 of /proc/PID/stat: clock ticks from boot to the process's start. Undefined for a process that has ended and
 * that nobody has waited for, and where there is no /proc.
 */
async function startOf(pid: number): Promise<string | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  // The second field is the command in brackets and may hold spaces.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ') ?? [];
  return fields[0] === 'Z' ? undefined : fields[19];
}
