/** Where a link leads. */
import { parseServer, type ListenAddress } from '@kofn/wire/address';

/** A port on loopback, or `host:port`. */
export type LinkTarget = number | string;

/** Throws INVALID_ARGUMENT. */
export function parseTarget(target: LinkTarget): ListenAddress {
  return parseServer('the target of a link', typeof target === 'number' ? `127.0.0.1:${target}` : target);
}
