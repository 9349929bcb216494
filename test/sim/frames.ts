/** Frames of an inference stream: what the trace says of them, and what a fault makes of them. */
import type { Rng } from '@kofn/core';
import { codecs, type MessageParts } from '@kofn/wire';
import type { Direction } from './link.js';

/** A copy, as on a wire: nobody sees what a sender does to its buffers afterwards. */
export function whole(message: Uint8Array | MessageParts): Uint8Array {
  return message instanceof Uint8Array ? message : Buffer.concat(message);
}

export interface FrameInfo {
  readonly id: string;
  readonly kind: 'request' | 'cancel' | 'reply' | 'error' | 'garbage';
  readonly detail: string;
}

export function describeFrame(direction: Direction, frame: Uint8Array): FrameInfo {
  try {
    if (direction === 'out') {
      const { id, parameters, model_name: model } = codecs.inferRequest.decode(frame);
      if (parameters['kofn_cancel']?.bool_param === true) return { id, kind: 'cancel', detail: '' };
      return { id, kind: 'request', detail: model.slice(0, 8) };
    }
    const { error_message: message, infer_response: response } = codecs.streamResponse.decode(frame);
    const id = response?.id ?? '';
    if (message === '') return { id, kind: 'reply', detail: '' };
    return { id, kind: 'error', detail: response?.parameters?.['kofn_code']?.string_param ?? '' };
  } catch {
    return { id: '', kind: 'garbage', detail: '' };
  }
}

/** Whether it cancels a request; a quick look, for frames that are whole. */
export function isCancel(frame: Uint8Array): boolean {
  return frame.byteLength < 128 && Buffer.from(frame).includes('kofn_cancel');
}

/**
 * What bad memory or a bad link makes of a frame: mostly one bit turned over, anywhere, the numbers included; else a few bytes
 * that are others, or nothing but rubbish.
 */
export function corrupted(frame: Uint8Array, rng: Rng): Uint8Array {
  const changed = Uint8Array.from(frame);
  const kind = rng.integer(8);
  if (kind === 0 || changed.byteLength === 0) return changed.fill(0xff);
  const place = () => rng.integer(changed.byteLength);
  if (kind > 2) changed[place()]! ^= 1 << rng.integer(8);
  else for (let count = 1 + rng.integer(4); count > 0; count--) changed[place()]! ^= 1 + rng.integer(255);
  return changed;
}

/** A reply whose first tensor has lost its end; another frame loses its own. */
export function truncated(direction: Direction, frame: Uint8Array): Uint8Array {
  if (describeFrame(direction, frame).kind !== 'reply') return frame.subarray(0, frame.byteLength - 1);
  const { infer_response: response } = codecs.streamResponse.decode(frame);
  const [first = new Uint8Array(), ...rest] = response?.raw_output_contents ?? [];
  const raw = [first.subarray(0, Math.max(0, first.byteLength - 4)), ...rest];
  const cut = { ...response, raw_output_contents: raw };
  return codecs.streamResponse.encode({ error_message: '', infer_response: cut });
}
