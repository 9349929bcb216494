/**
 * Writes a protobuf message from front to back. frames.ts uses it for what is sent most; all else takes the generated codec.
 *
 * Invariants
 * 1. A large payload is not copied: the message is then in parts.
 * 2. One message is written at a time, from its first field to `finish`: all are written in the same buffer.
 */
import type { MessageParts } from './channel.js';
import { checksum } from './checksum.js';

/** From this size a part of its own costs less than a copy. */
const LARGE = 4096;
/** The longest that protobuf allows a number to be. */
const MAX_VARINT = 10;
/** A length of up to 127 takes one byte. */
const SHORT = 128;

let scratch = Buffer.allocUnsafeSlow(2 ** 14);

/** A message inside a message, or a packed list, that is being written. */
export type Mark = number;

export class FrameWriter {
  readonly #parts: Uint8Array[] = [];
  /** Bytes in the parts. */
  #before = 0;
  /** Where the next byte goes in the buffer. */
  #at = 0;

  /** Bytes written so far. */
  get length(): number {
    return this.#before + this.#at;
  }

  /** A number ≥ 0, in `bytes` bytes or as few as there can be. */
  varint(value: number, bytes = 1): void {
    this.#reserve(MAX_VARINT);
    let rest = value;
    for (let left = bytes - 1; rest >= SHORT || left > 0; left--) {
      scratch[this.#at++] = (rest % SHORT) | SHORT;
      rest = Math.floor(rest / SHORT);
    }
    scratch[this.#at++] = rest;
  }

  /** A field of text. */
  text(tag: number, value: string): void {
    const { length } = value;
    this.#reserve(3 * length + MAX_VARINT);
    scratch[this.#at++] = tag;
    if (length < SHORT) {
      // Short ASCII is what there is; the runtime's own call takes longer for it.
      const start = this.#at + 1;
      let i = 0;
      for (; i < length; i++) {
        const code = value.charCodeAt(i);
        if (code >= SHORT) break;
        scratch[start + i] = code;
      }
      if (i === length) {
        scratch[this.#at] = length;
        this.#at = start + length;
        return;
      }
    }
    this.varint(Buffer.byteLength(value));
    this.#at += scratch.write(value, this.#at);
  }

  /** Bytes as they are. */
  bytes(value: Uint8Array): void {
    this.#reserve(value.byteLength);
    scratch.set(value, this.#at);
    this.#at += value.byteLength;
  }

  /** A field of bytes: the payload of a tensor. */
  payload(tag: number, value: Uint8Array): void {
    this.varint(tag);
    this.varint(value.byteLength);
    if (value.byteLength < LARGE) return this.bytes(value);
    this.#cut();
    this.#parts.push(value);
    this.#before += value.byteLength;
  }

  /** Begins a field that `end` ends. */
  begin(tag: number): Mark {
    this.#reserve(2);
    scratch[this.#at++] = tag;
    return this.#at++;
  }

  end(mark: Mark): void {
    const length = this.#at - mark - 1;
    if (length < SHORT) {
      scratch[mark] = length;
      return;
    }
    const more = varintBytes(length) - 1;
    this.#reserve(more);
    scratch.copyWithin(mark + 1 + more, mark + 1, this.#at);
    this.#at = mark;
    this.varint(length);
    this.#at += length;
  }

  /**
   * Makes the number that ends at `end` (a `position`) `count` bytes longer, its value what it was, and so the fields of `marks` around
   * it. False, and nothing is done, where that cannot be.
   */
  lengthen(end: number, count: number, marks: readonly Mark[]): boolean {
    let first = end - 1;
    while (first > 0 && scratch[first - 1]! >= SHORT) first--;
    if (end - first + count > MAX_VARINT || marks.some(mark => scratch[mark]! + count >= SHORT)) return false;
    this.#reserve(count);
    scratch.copyWithin(end + count, end, this.#at);
    scratch[end - 1]! |= SHORT;
    scratch.fill(SHORT, end, end + count - 1);
    scratch[end + count - 1] = 0;
    for (const mark of marks) scratch[mark]! += count;
    this.#at += count;
    return true;
  }

  /** Where the next byte goes, for `lengthen`; good until a large payload is written. */
  get position(): number {
    return this.#at;
  }

  /** Writes a number into the bytes that an earlier `varint(0, bytes)` left at `position`. */
  patch(position: number, value: number, bytes: number): void {
    const at = this.#at;
    this.#at = position;
    this.varint(value, bytes);
    this.#at = at;
  }

  /** The checksum of all so far, begun from `start`. */
  crc(start: number): number {
    const parts = this.#parts.reduce((crc, part) => checksum.of(part, crc), start);
    return checksum.of(scratch.subarray(0, this.#at), parts);
  }

  finish(): MessageParts {
    this.#cut();
    return this.#parts;
  }

  #cut(): void {
    if (this.#at === 0) return;
    this.#parts.push(Buffer.from(scratch.subarray(0, this.#at)));
    this.#before += this.#at;
    this.#at = 0;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= scratch.byteLength) return;
    const larger = Buffer.allocUnsafeSlow(2 * (this.#at + bytes));
    larger.set(scratch.subarray(0, this.#at));
    scratch = larger;
  }
}

/** Bytes of a number ≥ 0. */
export function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value; rest >= SHORT; rest = Math.floor(rest / SHORT)) bytes++;
  return bytes;
}
