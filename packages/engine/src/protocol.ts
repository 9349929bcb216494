/** What engine and engine thread say to each other. Tensors cross as structured clones, their buffers transferred. */
import type { ErrorCode, Tensors } from '@kofn/core';
import type { EngineName, ValueInfo } from './engine.js';

export interface ThreadData {
  readonly engine: EngineName;
}

export type Request =
  | { readonly kind: 'open'; readonly folder: string; readonly threads: number }
  | { readonly kind: 'run'; readonly session: number; readonly feeds: Tensors }
  | { readonly kind: 'release'; readonly session: number };

export interface Opened {
  readonly session: number;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
}

export type ToThread = Request & { readonly id: number };

export type FromThread =
  | { readonly kind: 'ready'; readonly version: string }
  | { readonly kind: 'done'; readonly id: number; readonly value: Opened | Tensors | undefined }
  | { readonly kind: 'failed'; readonly id: number | undefined; readonly code: ErrorCode; readonly message: string };

/**
 * Buffers to transfer with `values`, and the values to send: a view of a larger buffer is cut out of it first, since a
 * clone of a view carries the whole buffer. With `move` a tensor that covers its buffer gives it away, else it is copied.
 */
export function prepareTransfer(values: Tensors, move: boolean): { values: Tensors; buffers: ArrayBuffer[] } {
  const buffers = new Set<ArrayBuffer>();
  const prepared = Object.entries(values).map(([name, value]) => {
    if (Array.isArray(value.data)) return [name, value] as const;
    const { buffer, byteLength } = value.data;
    const whole = buffer instanceof ArrayBuffer && buffer.byteLength === byteLength;
    const data = whole && move ? value.data : value.data.slice();
    buffers.add(data.buffer as ArrayBuffer);
    return [name, { dtype: value.dtype, shape: value.shape, data }] as const;
  });
  return { values: Object.fromEntries(prepared), buffers: [...buffers] };
}
