/** Where a link leads. */
import { KofnError } from '@kofn/core';

/** A port on loopback, or `host:port`. */
export type LinkTarget = number | string;

export interface Target {
  readonly host: string;
  readonly port: number;
}

/** Throws INVALID_ARGUMENT. */
export function parseTarget(target: LinkTarget): Target {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(
    typeof target === 'number' ? `127.0.0.1:${target}` : target,
  ) ?? [undefined, undefined, undefined, '0'];
  const host = bracketed ?? plain;
  if (host !== undefined && Number(port) >= 1 && Number(port) <= 65_535) return { host, port: Number(port) };
  throw new KofnError('INVALID_ARGUMENT', `a link to ${target}: must be a port from 1 to 65535, or host:port`);
}
