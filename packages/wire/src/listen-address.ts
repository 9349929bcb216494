/** Where a server listens: HOST:PORT. */
import { isIP } from 'node:net';
import { KofnError } from '@kofn/core';

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** `text` of `option`; port 0 takes a free one. Throws INVALID_ARGUMENT naming the option. */
export function parseListen(option: string, text: string): ListenAddress {
  const [, bracketed, plain, port] = /^(?:\[([0-9a-f:.%\w]+)\]|([^:[\]\s]*)):(\d{1,5})$/i.exec(text) ?? [];
  const host = (bracketed ?? plain) || '127.0.0.1';
  if (port === undefined || Number(port) > 65535) {
    const expected = 'must be HOST:PORT with a port from 0 to 65535, such as 127.0.0.1:9090 or [::1]:9090';
    throw new KofnError('INVALID_ARGUMENT', `${option} ${text}: ${expected}`);
  }
  return { host, port: Number(port) };
}

/** Whether only this machine reaches what listens at `host`. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

/** `host:port`, an IPv6 host in brackets. */
export function formatAddress(host: string, port: number): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}
