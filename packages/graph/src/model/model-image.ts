/** A model on its way: joined in memory, or saved part by part, so that no more than one part is in memory. */
import { open, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { atOnce, PART_VALUES, type Parts } from '@kofn/core';
import type { ModelFiles, ModelImage } from './graph.js';

/** Joined at a time. */
const PART_BYTES = 4 * PART_VALUES;

/** Both files in memory. */
export function modelFiles(image: ModelImage): ModelFiles {
  return atOnce(modelFilesInParts(image));
}

export function* modelFilesInParts({ model, weightsBytes, parts }: ModelImage): Parts<ModelFiles> {
  if (parts.length === 1) return { model, weights: parts[0]!.read() }; // nothing to join: passed on as it is
  const weights = new Uint8Array(weightsBytes);
  for (const { read, offset } of parts) {
    const bytes = read();
    for (let at = 0; at < bytes.byteLength; at += PART_BYTES) {
      weights.set(bytes.subarray(at, at + PART_BYTES), offset + at);
      yield;
    }
  }
  return { model, weights };
}

/** weights.bin from its first byte to its last, a part at a time; undefined where somebody else may have the thread, too. */
export function* weightsInBands({ parts }: ModelImage): Generator<Uint8Array | undefined, void, void> {
  let at = 0;
  for (const { offset, read, bands } of parts) {
    if (offset > at) yield new Uint8Array(offset - at);
    at = offset;
    for (const band of bands?.() ?? [read()]) {
      const bytes = band && new Uint8Array(band.buffer, band.byteOffset, band.byteLength);
      yield bytes;
      at += bytes?.byteLength ?? 0;
    }
  }
}

export function imageOfFiles({ model, weights }: ModelFiles): ModelImage {
  const parts = weights.byteLength > 0 ? [{ offset: 0, read: () => weights }] : [];
  return { model, weightsBytes: weights.byteLength, parts };
}

/** Writes `image` to the folder `folder`, which exists: model.onnx and, when it has weights, weights.bin. */
export async function saveModel({ model, weightsBytes, parts }: ModelImage, folder: string): Promise<void> {
  await writeFile(path.join(folder, 'model.onnx'), model);
  if (weightsBytes === 0) return;
  const file = await open(path.join(folder, 'weights.bin'), 'w');
  try {
    for (const { read, offset } of parts) {
      const bytes = read();
      for (let at = 0; at < bytes.byteLength;) {
        const { bytesWritten } = await file.write(bytes, at, bytes.byteLength - at, offset + at);
        at += bytesWritten;
      }
    }
  } finally {
    await file.close();
  }
}
