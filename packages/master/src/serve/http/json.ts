/** Bodies that are JSON. */
import { isUtf8 } from 'node:buffer';
import { KofnError } from '@kofn/core';

/** Throws INVALID_ARGUMENT. */
export function parseJson(bytes: Buffer): unknown {
  // Decoded all the same, other bytes would reach the model as other text.
  if (!isUtf8(bytes)) throw new KofnError('INVALID_ARGUMENT', 'the body is no JSON: it is not UTF-8');
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    const why = (cause as Error).message.slice(0, 200);
    throw new KofnError('INVALID_ARGUMENT', `the body is no JSON: ${why}`, { cause });
  }
}
