/**
 * Who may use the server. On the loopback interface whoever is on this machine; beyond it whoever has the token, over TLS.
 *
 * Invariants
 * 1. The token is in no message, log or error, and the time of a comparison tells nothing of it.
 * 2. A page of another site does not reach the server through the browser of whoever looks at it.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import { KofnError } from '@kofn/core';
import { isLoopback, type ListenAddress } from '@kofn/wire';

export interface AccessOptions {
  /** What every call has to bring, as `Authorization: Bearer TOKEN`. Default: nothing is asked for. */
  readonly token?: string | undefined;
  /** Certificate and key in PEM, of gRPC and HTTP. Default: no TLS. */
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer } | undefined;
  /** Beyond loopback, go without the one or the other. Default false. */
  readonly insecure?: boolean | undefined;
}

const LEAST_TOKEN_CHARS = 16;

export class Access {
  readonly #digest: Buffer | undefined;

  /** Throws INVALID_ARGUMENT: a token too short to be a secret. */
  constructor({ token }: AccessOptions) {
    if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
      throw new KofnError(
        'INVALID_ARGUMENT',
        'the token has characters that a header cannot carry; take printable ASCII',
      );
    }
    if (token !== undefined && token.length < LEAST_TOKEN_CHARS) {
      const advice = `give ${LEAST_TOKEN_CHARS} or more, such as those of \`openssl rand -hex 32\``;
      throw new KofnError(
        'INVALID_ARGUMENT',
        `the token has ${token.length} characters, which is too easy to guess; ${advice}`,
      );
    }
    this.#digest = token === undefined ? undefined : digest(token);
  }

  get asksForToken(): boolean {
    return this.#digest !== undefined;
  }

  /** Whether a call with this `authorization` may be made. */
  readonly allows = (authorization: string | undefined): boolean => {
    if (this.#digest === undefined) return true;
    const [, given = ''] = /^Bearer +(\S+) *$/i.exec(authorization ?? '') ?? [];
    return timingSafeEqual(digest(given), this.#digest); // of hashes, which are of one length
  };
}

function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

/**
 * Throws INVALID_ARGUMENT when `address`, which `option` gives, is open to others than this machine without token or TLS; when that is
 * meant (`insecure`), returns what is to be said aloud.
 */
export function checkAddress(
  option: string,
  { host }: ListenAddress,
  { token, tls, insecure = false }: AccessOptions,
): string | undefined {
  if (isLoopback(host) || (token !== undefined && tls !== undefined)) return undefined;
  const lacking = [
    ...(token === undefined ? ['a token (--token-file, or KOFN_TOKEN)'] : []),
    ...(tls === undefined ? ['TLS (--tls-cert and --tls-key)'] : []),
  ].join(' and ');
  if (!insecure) {
    const advice = 'or listen on 127.0.0.1, or say --insecure';
    throw new KofnError(
      'INVALID_ARGUMENT',
      `${option} ${host} is open to the network, which takes ${lacking}; ${advice}`,
    );
  }
  const risk = [
    ...(token === undefined ? ['whoever reaches it can use it, and load and unload its models'] : []),
    ...(tls === undefined ? ['whoever is on the way can read and change what is sent'] : []),
  ].join('; ');
  return `${option} ${host} is open to the network without ${lacking}: ${risk}`;
}

/**
 * Throws PERMISSION_DENIED for a request that a browser makes for a page of another site: one whose Origin is not the server itself,
 * or, where no token is asked for, one to a name that somebody else may have given this machine (DNS rebinding).
 */
export function checkOrigin(
  { host = '', origin }: { readonly host?: string | undefined; readonly origin?: string | undefined },
  { asksForToken }: Access,
  ownHost: string,
): void {
  if (origin !== undefined && hostOf(origin) !== host.toLowerCase()) {
    throw new KofnError(
      'PERMISSION_DENIED',
      `the page at ${origin.slice(0, 100)} is not of this server, and may not use it`,
    );
  }
  if (asksForToken || !isLoopback(ownHost)) return;
  const name = host
    .replace(/:\d+$/, '')
    .replace(/^\[|\]$/g, '')
    .toLowerCase();
  if (name === '' || isIP(name) !== 0 || name === 'localhost' || name === ownHost) return;
  const advice = 'ask it by its address or as localhost';
  throw new KofnError(
    'PERMISSION_DENIED',
    `this server listens on ${ownHost} and is not ${name.slice(0, 100)}; ${advice}`,
  );
}

function hostOf(origin: string): string | undefined {
  try {
    return new URL(origin).host;
  } catch {
    return undefined; // "null": a sandboxed page, or a file
  }
}
