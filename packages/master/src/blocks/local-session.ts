/**
 * Opens models in the master's own engine. An engine reads models from a folder, so they pass through a temporary one that
 * is gone again when this returns: nothing is left behind even by a SIGKILL later on. An engine that takes files in memory
 * (a simulator's) gets them so.
 */
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { KofnError } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import { modelFiles, saveModel, type ModelImage } from '@kofn/graph';

/** Throws STORAGE when the temporary folder cannot be written, else what `Engine.open` throws. */
export async function openLocally(engine: Engine, image: ModelImage, threads: number): Promise<Session> {
  if (engine.openFiles !== undefined) return engine.openFiles(modelFiles(image), { threads });
  const folder = await storing(mkdtemp(path.join(tmpdir(), 'kofn-segment-')));
  try {
    await storing(saveModel(image, folder), folder);
    return await engine.open(folder, { threads });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * `write`, with STORAGE for what the file system says against it: the message says how much room there is without what stands in `folder`,
 * which is removed.
 */
export async function storing<T>(write: Promise<T>, folder?: string): Promise<T> {
  try {
    return await write;
  } catch (error) {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
    const about = await statfs(tmpdir()).then(
      ({ bavail, bsize }) => `${((bavail * bsize) / 1e6).toFixed(1)} MB are free there; `,
      () => '', // it is not there
    );
    const message = `cannot write a temporary model under ${tmpdir()} (${about}set TMPDIR to another folder)`;
    throw KofnError.from(error, 'STORAGE', message);
  }
}
