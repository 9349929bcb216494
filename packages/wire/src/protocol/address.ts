/**
 * Addresses as people write them, `HOST:PORT`: every option, configuration and call that takes one has it parsed here. A message names the
 * option, what was given, what is wrong with it, and the form that is right.
 */
import { isIP, isIPv6 } from 'node:net';
import { KofnError } from '@kofn/core';

/**
 * Where `kofn worker` listens, and is looked for where an address has no port. IANA has given it to nobody, and no system hands it out to
 * connections of its own, which take ports from 32,768 on.
 */
export const DEFAULT_WORKER_PORT = 7453;

export interface ListenAddress {
  /** A name in lower case, an IPv4 address, or an IPv6 address in its shortest form, without brackets. */
  readonly host: string;
  readonly port: number;
}

/**
 * Where a server listens: without a host on 127.0.0.1, without a port on `defaultPort` where there is one; port 0 takes a free one. Throws
 * INVALID_ARGUMENT naming `option`.
 */
export function parseListen(option: string, text: string, defaultPort?: number): ListenAddress {
  return parse(option, text, { defaultHost: '127.0.0.1', defaultPort, leastPort: 0 });
}

/** Where a server is, as `HOST:PORT`: equal for equal addresses. Throws INVALID_ARGUMENT naming `option`. */
export function parseServer(option: string, text: unknown, defaultPort?: number): ListenAddress {
  return parse(option, text, { defaultHost: undefined, defaultPort, leastPort: 1 });
}

/** As `parseServer`, of a worker: without a port on {@link DEFAULT_WORKER_PORT}. */
export function parseWorker(option: string, text: unknown): string {
  const { host, port } = parseServer(option, text, DEFAULT_WORKER_PORT);
  return formatAddress(host, port);
}

/** One or more workers, each listed once. Throws INVALID_ARGUMENT naming `option`. */
export function parseWorkers(option: string, texts: unknown): string[] {
  if (!Array.isArray(texts) || texts.length === 0) {
    throw new KofnError('INVALID_ARGUMENT', `${option}: give at least one address, as ${FORM}`);
  }
  const empty = texts.findIndex(text => typeof text === 'string' && text.trim() === '');
  if (empty >= 0) {
    const where = `address ${empty + 1} of ${texts.length} is empty`;
    throw new KofnError('INVALID_ARGUMENT', `${option}: ${where}; take out the comma that is too many`);
  }
  const addresses = texts.map(text => parseWorker(option, text));
  const twice = addresses.find((address, at) => addresses.indexOf(address) !== at);
  if (twice === undefined) return addresses;
  throw new KofnError('INVALID_ARGUMENT', `${option}: ${twice} is listed twice; each worker counts once`);
}

/** Whether only this machine reaches what listens at `host`. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** `host:port`, an IPv6 host in brackets. */
export function formatAddress(host: string, port: number | string): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

const FORM = `HOST:PORT, such as pi1:${DEFAULT_WORKER_PORT} or [fd00::1]:${DEFAULT_WORKER_PORT}`;
/** Of a host in DNS. */
const MAX_NAME_CHARS = 253;

interface Rules {
  readonly defaultHost: string | undefined;
  readonly defaultPort: number | undefined;
  readonly leastPort: 0 | 1;
}

function parse(option: string, given: unknown, { defaultHost, defaultPort, leastPort }: Rules): ListenAddress {
  const wrong = (what: string, right = FORM) =>
    new KofnError('INVALID_ARGUMENT', `${option}: "${String(given).slice(0, 100)}" ${what}; give ${right}`);
  if (typeof given !== 'string') throw wrong('is not text');
  const text = given.trim();
  const [, scheme, rest = ''] = /^(?:([a-z][\w+.-]*):\/\/)?(.*)$/is.exec(text)!;
  const bare = rest.replace(/[/?#].*$/s, '').replace(/^.*@/s, '');
  if (scheme !== undefined) throw wrong('begins with a scheme', bare || FORM);
  if (bare !== rest) throw wrong(rest.includes('@') ? 'has a user name' : 'has a path', bare || FORM);
  if (/\s/.test(text)) throw wrong('has a space in it');
  if (text.includes(',')) throw wrong('has a comma in it', 'each address by itself');

  const [, bracketed, plain = '', port] = /^(?:\[([^[\]]*)\]|([^:]*))(?::([^:]*))?$/.exec(text) ?? [];
  const sample = defaultPort ?? 'PORT';
  if (bracketed === undefined && plain === '' && port === undefined) {
    const [, head = text, tail = sample] = /^(.*):(\d+)$/s.exec(text) ?? [];
    if (isIPv6(head)) throw wrong('is an IPv6 address without brackets', formatAddress(head, tail));
    if (isIPv6(text)) throw wrong('is an IPv6 address without brackets', formatAddress(text, sample));
    throw wrong('is no address');
  }
  if (bracketed !== undefined && !isIPv6(bracketed)) throw wrong('has in brackets what is no IPv6 address');
  if (port === undefined && /^\d+$/.test(plain))
    throw wrong('has no host', formatAddress(defaultHost ?? 'HOST', plain));
  const host = bracketed === undefined ? plain.toLowerCase() || defaultHost : shortest(bracketed);
  if (host === undefined) throw wrong('has no host', `HOST:${port}`);
  if (bracketed === undefined) {
    const isName = /^[\p{L}\p{N}_.-]+$/u.test(host) && host.length <= MAX_NAME_CHARS;
    if (!isName) throw wrong('has a host that is neither a name nor an IP address');
    if (/(?:^|\.)\d+$/.test(host) && isIP(host) !== 4) throw wrong('has a host that is no IPv4 address');
  }
  if (port === undefined && defaultPort !== undefined) return { host, port: defaultPort };
  const number = port !== undefined && /^\d+$/.test(port) ? Number(port) : NaN;
  if (number >= leastPort && number <= 65_535) return { host, port: number };
  const range = `one port from ${leastPort} to 65535`;
  throw wrong(
    port === undefined || port === '' ? 'has no port' : `has the port ${port}`,
    `${range}: ${formatAddress(host, sample)}`,
  );
}

/** An IPv6 address as RFC 5952 has it, its zone kept. */
function shortest(address: string): string {
  const [ip = '', zone] = address.split('%', 2);
  const [, canonical = ip] = /^\[(.*)\]$/.exec(new URL(`http://[${ip}]`).hostname) ?? [];
  return zone === undefined ? canonical : `${canonical}%${zone}`;
}
