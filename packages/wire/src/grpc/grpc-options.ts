/** gRPC settings that both ends share. */
import { logVerbosity, setLogVerbosity, type ChannelOptions } from '@grpc/grpc-js';
import { KofnError } from '@kofn/core';
import type { MessageParts } from '../protocol/channel.js';

// What grpc-js writes to stderr it also reports to us, and we to the caller. Who debugs it sets GRPC_VERBOSITY.
if ((process.env['GRPC_NODE_VERBOSITY'] ?? process.env['GRPC_VERBOSITY']) === undefined) {
  setLogVerbosity(logVerbosity.NONE);
}

/** grpc-js' own limit of 4 MB is less than one layer's input. */
export const DEFAULT_MAX_MESSAGE_BYTES = 256 * 2 ** 20;

export function messageLimits(maxMessageBytes: number): ChannelOptions {
  return {
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
  };
}

/** Finds a half-open link within 15 s on both ends, with or without calls. */
export const keepalive: ChannelOptions = {
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.keepalive_permit_without_calls': 1,
};

/** grpc-js writes Buffers: a view of the same bytes. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * A message in parts, as far as grpc-js 1.14 looks at one that it sends: it asks for its length and has it copied behind the
 * prefix of its own frame (channel.test.ts holds it to that). On a stream that stalls it does so late: a part whose buffer its
 * owner has given away by then is zeros, for a throw would end the stream and all that waits on it.
 */
class GatheredMessage {
  readonly #parts: MessageParts;
  readonly #lengths: readonly number[];
  /** For a client; a server asks for `byteLength`. */
  readonly length: number;
  readonly byteLength: number;

  constructor(parts: MessageParts) {
    this.#parts = parts;
    this.#lengths = parts.map(({ byteLength }) => byteLength);
    this.length = this.byteLength = lengthOf(parts);
  }

  copy(target: Buffer, start: number): void {
    let at = start;
    for (const [index, part] of this.#parts.entries()) {
      const length = this.#lengths[index]!;
      if (part.byteLength === length) target.set(part, at);
      else target.fill(0, at, at + length);
      at += length;
    }
  }
}

/** What grpc-js is given to send. */
export function asMessage(message: Uint8Array | MessageParts): Buffer {
  return message instanceof Uint8Array ? asBuffer(message) : (new GatheredMessage(message) as unknown as Buffer);
}

export function lengthOf(message: Uint8Array | MessageParts): number {
  if (message instanceof Uint8Array) return message.byteLength;
  return message.reduce((sum, { byteLength }) => sum + byteLength, 0);
}

/** Throws RESOURCE_EXHAUSTED; `where` names the other end ("to host:port"). */
export function checkMessageSize(message: Uint8Array | MessageParts, maxMessageBytes: number, where: string): void {
  const length = lengthOf(message);
  if (length <= maxMessageBytes) return;
  throw new KofnError(
    'RESOURCE_EXHAUSTED',
    `a message of ${length} bytes ${where} is over the limit of ${maxMessageBytes} bytes; ` +
      `raise the limit on both ends, or split the layer into more blocks`,
  );
}
