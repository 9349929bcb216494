/** From the name of a code to the code: the one place that knows them all. */
import { KofnError, unreachable } from '@kofn/core';
import { CODE_NAMES, type Code, type CodeName } from '../code.js';
import { replication } from './replication.js';
import { rotation } from './rotation.js';
import { sumParity } from './sum-parity.js';
import { uncoded } from './uncoded.js';

/** Blocks of one layer; far above any cluster that the float error allows. */
const MAX_BLOCKS = 256;

/** The code to use for r parity blocks when the user names none. */
export function defaultCode(r: number): CodeName {
  if (r === 0) return 'uncoded';
  return r === 1 ? 'sum' : 'rotation';
}

/** Throws INVALID_ARGUMENT naming the option, the value and the range. */
export function createCode(name: CodeName, { k, r }: { k: number; r: number }): Code {
  requireCount('k', k, 1);
  requireCount('r', r, 0);
  if (k + r > MAX_BLOCKS) {
    throw new KofnError('INVALID_ARGUMENT', `k + r: at most ${MAX_BLOCKS} blocks, got ${k + r}`);
  }
  switch (name) {
    case 'uncoded':
      if (r !== 0) throw new KofnError('INVALID_ARGUMENT', `r: an uncoded layer has no parity, got r = ${r}`);
      return uncoded(k);
    case 'replication':
      return replication(k, r);
    case 'sum':
      return sumParity(k, r);
    case 'rotation':
      return rotation(k, r);
    default:
      if (!(CODE_NAMES as readonly string[]).includes(name)) {
        throw new KofnError('INVALID_ARGUMENT', `code: "${String(name)}" is not one of ${CODE_NAMES.join(', ')}`);
      }
      return unreachable(name);
  }
}

function requireCount(option: string, value: number, min: number): void {
  if (Number.isInteger(value) && value >= min) return;
  throw new KofnError('INVALID_ARGUMENT', `${option}: must be a whole number ≥ ${min}, got ${value}`);
}
