/** What engine and engine thread say to each other. Tensors cross as structured clones, their buffers transferred. */
import type { ErrorCode, Tensor, Tensors } from '@kofn/core';
import type { EngineName, ValueInfo } from './engine.js';
import type { Gate } from './gate.js';

export interface ThreadData {
  readonly engine: EngineName;
  readonly gate: Gate;
}

export type Request =
  | { readonly kind: 'open'; readonly folder: string; readonly threads: number }
  | { readonly kind: 'normalise'; readonly modelFile: string; readonly target: string }
  | { readonly kind: 'run'; readonly session: number; readonly feeds: Tensors }
  | { readonly kind: 'release'; readonly session: number };

export interface Opened {
  readonly session: number;
  readonly inputs: readonly ValueInfo[];
  readonly outputs: readonly ValueInfo[];
}

export type Answer = Opened | Tensors | undefined;

/** 'close' has no answer: the thread ends. */
export type ToThread = (Request & { readonly id: number }) | { readonly kind: 'close' };

export type FromThread =
  | { readonly kind: 'ready'; readonly version: string }
  | { readonly kind: 'done'; readonly id: number; readonly value: Answer }
  | { readonly kind: 'failed'; readonly id: number | undefined; readonly code: ErrorCode; readonly message: string };

/**
 * Buffers to transfer with `values`, and the values to send: a view of a larger buffer is cut out of it first, since a
 * clone of a view carries the whole buffer. With `move` a tensor that takes most of its buffer (all of it, or a message's payload)
 * gives it away, else it is copied.
 */
export function prepareTransfer(values: Tensors, move: boolean): { values: Tensors; buffers: ArrayBuffer[] } {
  const buffers = new Set<ArrayBuffer>();
  const prepared = Object.entries(values).map(([name, value]): [string, Tensor] => {
    const { dtype, shape, data: given } = value;
    if (Array.isArray(given)) return [name, { dtype, shape, data: given }];
    const isMost = given.buffer instanceof ArrayBuffer && given.buffer.byteLength < 2 * given.byteLength;
    // A Buffer's own slice would give a view.
    const copy = () => (Buffer.isBuffer(given) ? new Uint8Array(given) : given.slice());
    const data = isMost && move ? given : copy();
    buffers.add(data.buffer as ArrayBuffer);
    return [name, { dtype, shape, data }];
  });
  return { values: Object.fromEntries(prepared), buffers: [...buffers] };
}
