/** Who a worker holds a shard for; shard_store.proto says what a claim is. */
import { KofnError } from '@kofn/core';

/** Of a cluster's and a model's name, in UTF-16 units. */
const MAX_CHARS = 200;

export interface Owner {
  readonly cluster: string;
  readonly model: string;
  readonly version: number;
}

/** `owner` as it is, once its names and its version are what the protocol allows. Throws INVALID_ARGUMENT. */
export function checkOwner(owner: Owner): Owner {
  const { cluster, model, version } = owner;
  for (const [what, name, least] of [
    ['cluster', cluster, 1],
    ['model', model, 0],
  ] as const) {
    if (typeof name === 'string' && name.length >= least && name.length <= MAX_CHARS) continue;
    const given = typeof name === 'string' ? `has ${name.length}` : `is ${String(name)}`;
    throw new KofnError(
      'INVALID_ARGUMENT',
      `the ${what} of an owner must be a string of ${least} to ${MAX_CHARS} characters and ${given}`,
    );
  }
  if (!Number.isInteger(version) || version < 0 || version >= 2 ** 32) {
    throw new KofnError(
      'INVALID_ARGUMENT',
      `the version of an owner must be a whole number from 0 to 2^32 - 1 and is ${String(version)}`,
    );
  }
  return owner;
}
