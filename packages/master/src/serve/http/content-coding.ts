/** Content codings of HTTP (RFC 9110, 8.4 and 12.5.3): bodies of requests are read in any of them, answers have the one that the client prefers. */
import { promisify } from 'node:util';
import { brotliCompress, brotliDecompress, constants, deflate, gunzip, gzip, inflate } from 'node:zlib';
import { KofnError } from '@kofn/core';
import { errorCodes } from 'fastify';
import Negotiator from 'negotiator';

const DECODERS = {
  gzip: promisify(gunzip),
  'x-gzip': promisify(gunzip),
  deflate: promisify(inflate),
  br: promisify(brotliDecompress),
} as const;

/** Fast rather than small: an answer waits for it, and the numbers of a tensor are hard to compress. */
const ENCODERS = {
  gzip: (bytes: Uint8Array) => promisify(gzip)(bytes, { level: 1 }),
  deflate: (bytes: Uint8Array) => promisify(deflate)(bytes, { level: 1 }),
  br: (bytes: Uint8Array) => promisify(brotliCompress)(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } }),
} as const;

export type Encoding = keyof typeof ENCODERS;

const IDENTITY = 'identity';
const OFFERED = [IDENTITY, ...Object.keys(ENCODERS)];
/** The codings that a client is told of. */
export const ENCODINGS = Object.keys(ENCODERS).join(', ');

/** Nobody needs more of them on one body. */
const MAX_CODINGS = 4;
/** What is shorter fits one packet as it is. */
const LEAST_BYTES = 1_400;

/** What a body has been through, in that order, by its Content-Encoding; undefined where that is not only what is read here. */
export function decodingsOf(contentEncoding = ''): (keyof typeof DECODERS)[] | undefined {
  const names = contentEncoding.split(',').map(name => name.trim().toLowerCase());
  const codings = names.filter(name => name !== '' && name !== IDENTITY);
  const areKnown = (all: string[]): all is (keyof typeof DECODERS)[] =>
    all.every(name => Object.hasOwn(DECODERS, name));
  return codings.length <= MAX_CODINGS && areKnown(codings) ? codings : undefined;
}

/** Undoes what bodies have been through, of one after the other: a few bytes of a client may come to `maxBytes` each. */
export class Decoder {
  readonly #maxBytes: number;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * `body` as it was before its codings, which `decodingsOf` knows. Throws INVALID_ARGUMENT (it is not what the header says), and what fastify
   * throws for a body that is too large, as soon as more than `maxBytes` come out of one of them.
   */
  decode(body: Buffer, contentEncoding: string | undefined): Promise<Buffer> {
    const codings = decodingsOf(contentEncoding) ?? [];
    if (codings.length === 0) return Promise.resolve(body);
    const decoding = this.#turn.then(() => this.#undo(body, codings.reverse()));
    this.#turn = decoding.catch(() => undefined);
    return decoding;
  }

  async #undo(body: Buffer, codings: readonly (keyof typeof DECODERS)[]): Promise<Buffer> {
    let bytes = body;
    for (const coding of codings) {
      try {
        bytes = await DECODERS[coding](bytes, { maxOutputLength: this.#maxBytes });
      } catch (cause) {
        const { code, message } = cause as NodeJS.ErrnoException;
        if (code === 'ERR_BUFFER_TOO_LARGE') throw new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE();
        const what = `the body is not what Content-Encoding says: ${coding}: ${message}`;
        throw new KofnError('INVALID_ARGUMENT', what, { cause });
      }
    }
    return bytes;
  }
}

/** The codings that a client takes, those that it prefers first; 'identity' is an answer as it is. */
function acceptedBy(acceptEncoding: string | undefined): string[] {
  return new Negotiator({ headers: { 'accept-encoding': acceptEncoding } }).encodings(OFFERED);
}

/** Whether a client takes what this server can send. */
export function isAnswerable(acceptEncoding: string | undefined): boolean {
  return acceptedBy(acceptEncoding).length > 0;
}

/** The coding that an answer of `bytes` should have for a client; undefined for none. */
export function encodingFor(acceptEncoding: string | undefined, bytes: number): Encoding | undefined {
  const accepted = acceptedBy(acceptEncoding);
  const [best] = accepted;
  if (best === undefined || best === IDENTITY || (bytes < LEAST_BYTES && accepted.includes(IDENTITY))) return undefined;
  return best as Encoding;
}

export function encoded(bytes: string | Uint8Array, coding: Encoding): Promise<Buffer> {
  return ENCODERS[coding](typeof bytes === 'string' ? Buffer.from(bytes) : bytes);
}
