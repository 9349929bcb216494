/**
 * The end-to-end checksum of an inference between kofn peers, extension `kofn.checksum`: the last SEAL_BYTES of a frame are the
 * parameter `kofn_crc32`, eight hexadecimal digits: the CRC-32 (that of zlib) of every byte before it, in a reply begun from the
 * checksum of its request. frames.ts writes such frames, infer-stream.ts is the master's side, the worker's stream.ts the other.
 *
 * Invariants
 * 1. Every byte of a frame is covered, or is the checksum.
 * 2. A reply fits no other request than its own.
 * 3. A frame is a message as any other: a peer that does not know the checksum reads a parameter more.
 */
import { crc32 } from 'node:zlib';

/** Field 4 of a request and of a reply, `parameters`: an entry with the key and a `string_param` of eight bytes. */
const FIELD = Buffer.from([0x22, 24, 0x0a, 10, ...Buffer.from('kofn_crc32'), 0x12, 10, 0x1a, 8]);
const DIGITS = 8;
export const SEAL_BYTES = FIELD.byteLength + DIGITS;

export const checksum = {
  /** Of `bytes`, begun from `start`. */
  of(bytes: Uint8Array, start = 0): number {
    // Of no bytes at no address zlib says 0, whatever it began from.
    return bytes.byteLength === 0 ? start : crc32(bytes, start);
  },

  /** The end of a frame whose other bytes have the checksum `crc`. */
  seal(crc: number): Uint8Array {
    return Buffer.concat([FIELD, Buffer.from(crc.toString(16).padStart(DIGITS, '0'), 'latin1')]);
  },

  /** The checksum that a frame ends in: undefined when it has none, NaN when what stands there is no checksum. */
  in(frame: Uint8Array): number | undefined {
    const at = frame.byteLength - SEAL_BYTES;
    if (at < 0) return undefined;
    const end = Buffer.from(frame.buffer, frame.byteOffset + at, SEAL_BYTES);
    if (end.compare(FIELD, 0, FIELD.byteLength, 0, FIELD.byteLength) !== 0) return undefined;
    const digits = end.toString('latin1', FIELD.byteLength);
    return /^[0-9a-f]{8}$/.test(digits) ? Number.parseInt(digits, 16) : NaN;
  },

  /** Whether a frame is as it was sent: it ends in the checksum of its other bytes, begun from `start`. */
  fits(frame: Uint8Array, start = 0): boolean {
    const crc = checksum.in(frame);
    return crc !== undefined && crc === checksum.of(frame.subarray(0, frame.byteLength - SEAL_BYTES), start);
  },
};
