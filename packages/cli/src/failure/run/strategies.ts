/**
 * The ways to put a model on machines that are compared: how many machines and blocks each takes at equal cost, and the options of
 * `codedModel` that it is. `failover` is one of its own (failover.ts).
 */
import { KofnError } from '@kofn/core';
import type { ModelOptions } from '@kofn/master';
import type { Cell } from '../config/config.js';

export interface Strategy {
  readonly name: string;
  /** In words, with k and r. */
  readonly what: string;
  /** Workers that hold the model. */
  readonly n: number;
  readonly k: number;
  readonly r: number;
  /** Speed of each machine over that of the uncoded fleet's: 1 at an equal number of workers. */
  readonly speed: number;
  readonly options: Pick<ModelOptions, 'parity' | 'code' | 'onLoss' | 'hedge' | 'segments'>;
  readonly isFailover: boolean;
}

/** Throws INVALID_ARGUMENT: too few workers for it. */
export function strategyOf({ name, strategy, equal, workers }: Pick<Cell, 'name' | 'strategy' | 'equal' | 'workers'>) {
  const isCompute = equal === 'compute';
  const made = (n: number, k: number, what: string, options: Strategy['options'], isFailover = false): Strategy => {
    const speed = isCompute ? workers / n : 1;
    const slower = speed === 1 ? '' : `, on machines of ${speed.toFixed(2)} times the speed`;
    return { name: strategy, what: `${what}${slower}`, n, k, r: n - k, speed, options, isFailover };
  };
  const need = (least: number) => {
    if (workers >= least) return;
    throw new KofnError(
      'INVALID_ARGUMENT',
      `cell "${name}": ${strategy} takes ${least} workers at least, it has ${workers}`,
    );
  };
  const uncoded = { parity: 0, onLoss: 'fail' } as const;
  switch (strategy) {
    case 'uncoded':
      return made(workers, workers, `uncoded, k = n = ${workers}`, uncoded);
    case 'failover':
      return made(workers, workers, `uncoded, k = n = ${workers}; detect, reload, retry`, uncoded, true);
    case 'hedged': {
      need(2);
      const what = `uncoded, k = n = ${workers}, each block on two; late ones asked again after the p95`;
      return made(workers, workers, what, { parity: 0, onLoss: 'local', hedge: 'p95' });
    }
    case '2mr': {
      need(isCompute ? 1 : 2);
      const k = isCompute ? workers : Math.floor(workers / 2);
      return made(2 * k, k, `2MR, k = ${k}, each block on two of ${2 * k}`, { parity: 1, code: 'replication' });
    }
    default:
      return coded();
  }

  function coded(): Strategy {
    const [, digits = '', rest] = /^cdc-(\d+)(-2mr)?$/.exec(strategy) ?? [];
    const r = Number(digits);
    if (!(r >= 1)) throw new KofnError('INVALID_ARGUMENT', `cell "${name}": ${strategy}: give cdc-1, cdc-2, …`);
    need(isCompute ? 1 : r + 1);
    const n = isCompute ? workers + r : workers;
    const what = `CDC, k = ${n - r}, r = ${r}${rest === undefined ? '' : ', everything else on two workers each'}`;
    return made(n, n - r, what, { parity: r, ...(rest === undefined ? {} : { segments: 'replicated' }) });
  }
}
