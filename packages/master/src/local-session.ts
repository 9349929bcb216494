/**
 * Opens ModelFiles in the master's own engine. An engine reads models from a folder, so the files pass through a
 * temporary one that is gone again when this returns: nothing is left behind even by a SIGKILL later on.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { KofnError } from '@kofn/core';
import type { Engine, Session } from '@kofn/engine';
import type { ModelFiles } from '@kofn/graph';

/** Throws STORAGE when the temporary folder cannot be written, else what `Engine.open` throws. */
export async function openLocally(engine: Engine, files: ModelFiles, threads: number): Promise<Session> {
  const folder = await storing(mkdtemp(path.join(tmpdir(), 'kofn-segment-')));
  try {
    await storing(writeFile(path.join(folder, 'model.onnx'), files.model));
    if (files.weights.byteLength > 0) await storing(writeFile(path.join(folder, 'weights.bin'), files.weights));
    return await engine.open(folder, { threads });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function storing<T>(write: Promise<T>): Promise<T> {
  try {
    return await write;
  } catch (error) {
    throw KofnError.from(
      error,
      'STORAGE',
      `cannot write a temporary model under ${tmpdir()} (set TMPDIR to another place)`,
    );
  }
}
