/** Weights that stand beside the model (ONNX external data): in files of its folder, or in bytes at `weights.bin`. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import path from 'node:path';
import { KofnError } from '@kofn/core';
import type { OnnxModel } from './graph.js';
import { onnx, type TensorProto } from './proto.js';

type ReadExternal = OnnxModel['readExternal'];

/** One read call takes less than 2 GiB. */
const MAX_READ_BYTES = 2 ** 30;

/**
 * Where a tensor's bytes stand, or undefined when they are in the model itself. Throws INVALID_MODEL (an offset or length
 * that is no number of bytes).
 */
export function externalRange(
  value: TensorProto,
): { location: string; offset: number; byteLength: number | undefined } | undefined {
  if (value.dataLocation !== onnx.TensorProto.DataLocation.EXTERNAL) return undefined;
  const entry = (key: string) => value.externalData?.find(item => item.key === key)?.value ?? undefined;
  const count = (key: string): number | undefined => {
    const text = entry(key);
    if (text === undefined) return undefined;
    const bytes = Number(text);
    if (text !== '' && Number.isSafeInteger(bytes) && bytes >= 0) return bytes;
    const message = `constant "${value.name ?? ''}": external data with ${key} "${text}", which is no number of bytes`;
    throw new KofnError('INVALID_MODEL', message);
  };
  return { location: entry('location') ?? '', offset: count('offset') ?? 0, byteLength: count('length') };
}

/** Reads from files below `folder`: a location that leads out of it is refused. */
export function externalFiles(folder: string): ReadExternal {
  return (location, offset, byteLength, scratch) => {
    const file = path.resolve(folder, location);
    const inside = path.relative(folder, file);
    if (location === '' || inside.startsWith('..') || path.isAbsolute(inside)) {
      throw new KofnError('INVALID_MODEL', `external data at "${location}" is outside the model's folder ${folder}`);
    }
    const handle = openFile(file);
    try {
      return readAt(handle, file, offset, byteLength, scratch);
    } finally {
      closeSync(handle);
    }
  };
}

/** Reads from one open file, whatever the location, until it is closed: the file may be removed in the meantime. */
export function openExternal(file: string): { readonly read: ReadExternal; close(): void } {
  const handle = openFile(file);
  return {
    read: (_, offset, byteLength, scratch) => readAt(handle, file, offset, byteLength, scratch),
    close: () => closeSync(handle),
  };
}

function openFile(file: string): number {
  try {
    return openSync(file, 'r');
  } catch (cause) {
    const message = `the model's external data ${file} cannot be read; copy it next to the model`;
    throw new KofnError('NOT_FOUND', message, { cause });
  }
}

function readAt(
  handle: number,
  file: string,
  offset: number,
  byteLength: number | undefined,
  scratch: Uint8Array | undefined,
): Uint8Array {
  const size = fstatSync(handle).size;
  const length = byteLength ?? Math.max(0, size - offset);
  if (offset + length > size) throw tooShort(file, offset + length, size);
  const bytes = scratch ?? new Uint8Array(length);
  for (let at = 0; at < length;) {
    const read = readSync(handle, bytes, at, Math.min(length - at, MAX_READ_BYTES), offset + at);
    if (read === 0) throw tooShort(file, offset + length, offset + at);
    at += read;
  }
  return bytes;
}

/** Reads from `weights`, the bytes of the one file `weights.bin`. */
export function externalBytes(weights: Uint8Array): ReadExternal {
  return (location, offset, byteLength = weights.byteLength - offset) => {
    if (location !== 'weights.bin') {
      const message = `the model has external data at "${location}", which bytes alone do not bring: load it by its path`;
      throw new KofnError('NOT_FOUND', message);
    }
    if (offset + byteLength > weights.byteLength) throw tooShort(location, offset + byteLength, weights.byteLength);
    return weights.subarray(offset, offset + byteLength);
  };
}

function tooShort(file: string, needed: number, size: number): KofnError {
  return new KofnError(
    'DATA_LOSS',
    `the model's external data ${file} is cut off: ${size} bytes, the model needs ${needed}; copy it again`,
  );
}
