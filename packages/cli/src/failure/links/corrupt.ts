/** Where in the HTTP/2 frames of some bytes a bit is flipped. */
import { seededRng, type Rng } from '@kofn/core';
import type { Direction, LinkMode } from './mode.js';

const FRAME_HEADER = 9;
const FRAME_TYPE = 3;
const DATA_FRAME = 0;
/** What a client sends before its first frame (RFC 9113, 3.4). */
const PREFACE = 24;

export interface Flip {
  readonly at: number;
  readonly bit: number;
}

/** What of HTTP/2's frames is in some bytes. */
interface Frames {
  /** Where the first frame begins, if one does. */
  readonly header: number | undefined;
  /** Payloads of DATA frames. */
  readonly data: readonly { readonly at: number; readonly length: number }[];
}

/** Follows the frames of HTTP/2 (RFC 9113, 4.1: length in 3 bytes, type, 5 more, payload) behind a client's preface. */
export class FrameCursor {
  readonly #header = Buffer.alloc(FRAME_HEADER);
  /** Those of the header that have come. */
  #headerBytes = 0;
  #payloadLeft: number;
  #isData = false;

  constructor(direction: Direction) {
    this.#payloadLeft = direction === 'there' ? PREFACE : 0;
  }

  pass(bytes: Buffer): Frames {
    let header: number | undefined;
    const data: { at: number; length: number }[] = [];
    let at = 0;
    while (at < bytes.length) {
      const length = Math.min(this.#payloadLeft, bytes.length - at);
      if (this.#isData && length > 0) data.push({ at, length });
      this.#payloadLeft -= length;
      at += length;
      if (at === bytes.length) break;
      if (this.#headerBytes === 0) header ??= at;
      const copied = bytes.copy(this.#header, this.#headerBytes, at);
      at += copied;
      this.#headerBytes += copied;
      if (this.#headerBytes < FRAME_HEADER) break;
      this.#headerBytes = 0;
      this.#payloadLeft = this.#header.readUIntBE(0, 3);
      this.#isData = this.#header[FRAME_TYPE] === DATA_FRAME;
    }
    return { header, data };
  }
}

/** Undefined: not in these bytes, or not in this direction. */
export function flipIn(
  frames: Frames,
  direction: Direction,
  mode: LinkMode & { readonly kind: 'corrupt' },
): Flip | undefined {
  const rng = seededRng(mode.seed);
  return mode.inPayload ? inPayload(frames, direction, mode.direction, rng) : inHeader(frames, direction, rng);
}

function inHeader({ header }: Frames, direction: Direction, rng: Rng): Flip | undefined {
  return direction === 'there' || header === undefined ? undefined : { at: header, bit: 0x40 << rng.integer(2) };
}

function inPayload({ data }: Frames, direction: Direction, wanted: Direction | undefined, rng: Rng): Flip | undefined {
  const drawn = rng.integer(2) === 0 ? 'back' : 'there';
  const size = data.reduce((sum, { length }) => sum + length, 0);
  if (direction !== (wanted ?? drawn) || size === 0) return undefined;
  let offset = rng.integer(size);
  for (const { at, length } of data) {
    if (offset < length) return { at: at + offset, bit: 1 << rng.integer(8) };
    offset -= length;
  }
  return undefined;
}
