/** What the file system said, as a KofnError that names the path. */
import { KofnError } from '@kofn/core';

/** RESOURCE_EXHAUSTED when no space is left, else STORAGE. */
export function storageError(error: unknown, path: string): KofnError {
  if (error instanceof KofnError) return error;
  const { code } = error as NodeJS.ErrnoException;
  if (typeof code !== 'string') return KofnError.from(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    const advice = 'free some space, remove shards, or choose another --data-dir';
    return new KofnError('RESOURCE_EXHAUSTED', `no space left for ${path} (${code}): ${advice}`, { cause: error });
  }
  const advice = ADVICE[code] ?? 'look at the disk, or choose another --data-dir';
  return new KofnError('STORAGE', `cannot use ${path}: ${(error as Error).message}; ${advice}`, { cause: error });
}

const ADVICE: Readonly<Record<string, string>> = {
  EROFS: 'the file system is read-only: choose a --data-dir that can be written',
  EACCES: 'give this user the right to write there, or choose another --data-dir',
  EPERM: 'give this user the right to write there, or choose another --data-dir',
  ENOTDIR: 'a file stands where a folder belongs: choose another --data-dir',
  EEXIST: 'a file stands where a folder belongs: choose another --data-dir',
};
