/** `kofn bench compare A B`: what changed between two runs of `kofn bench failure` beyond noise. */
import { KofnError } from '@kofn/core';
import { EXIT_FAILED, EXIT_OK } from '../terminal/exit.js';
import { compareRuns, LEVEL, type CellComparison, type Change, type Comparison } from '../failure/result/compare.js';
import { msOf, NONE, ratioText } from '../failure/report/rows.js';
import { readResult } from '../failure/report/write.js';
import { formatBytes, plural, table, verdict } from '../terminal/render.js';

export interface CompareArguments {
  readonly json?: boolean;
}

/** Returns the exit code: 1 when something got worse. Throws NOT_FOUND and INVALID_ARGUMENT for what is no result. */
export async function benchCompare(before: string, after: string, args: CompareArguments): Promise<number> {
  const comparison = compareRuns(await readResult(before), await readResult(after));
  if (comparison.cells.length === 0) {
    // A check that compared nothing must not pass.
    throw new KofnError('INVALID_ARGUMENT', `${before} and ${after} have no cell of one name in common`);
  }
  process.stdout.write(args.json === true ? `${JSON.stringify(comparison)}\n` : `${comparisonText(comparison)}\n`);
  return comparison.worse > 0 ? EXIT_FAILED : EXIT_OK;
}

export function comparisonText(comparison: Comparison): string {
  const { cells, onlyBefore, onlyAfter, warnings, tests, worse, better } = comparison;
  const changed = cells.filter(hasChanged);
  const rows = changed.flatMap(({ cell, figures }) => figures.filter(isChange).map(change => rowOf(cell, change)));
  const same = cells.length - changed.length;
  return [
    ...warnings.map(line => `! ${line}`),
    ...onlyIn('before', onlyBefore),
    ...onlyIn('after', onlyAfter),
    ...(rows.length === 0 ? [] : [table(['cell', 'figure', 'before', 'after', 'after / before', ''], rows)]),
    ...(same > 0 ? [`${same} of ${plural(cells.length, 'cell')}: nothing changed beyond noise.`] : []),
    `${verdict(`${worse} worse`, worse === 0)}, ${better} better; ` +
      `intervals are of ${(1 - LEVEL) * 100} % over all ${plural(tests, 'test')} together (Bonferroni).`,
  ].join('\n');
}

function rowOf(cell: string, { figure, before, after, ratio, verdict: found }: Change): string[] {
  const text = FORMATS[figure];
  const isExact = ratio !== null && ratio.low === ratio.high;
  const over = ratio === null ? NONE : isExact ? ratio.value.toFixed(2) : ratioText(ratio);
  return [cell, NAMES[figure], text(before), text(after), over, verdict(found, found === 'better')];
}

const NAMES: Record<Change['figure'], string> = {
  p50: 'p50 ms',
  p90: 'p90 ms',
  p99: 'p99 ms',
  p999: 'p99.9 ms',
  busy: 'busy ms',
  bytes: 'bytes',
  lost: 'lost',
  wrong: 'wrong',
};

const count = (value: number | null) => String(value ?? NONE);
const FORMATS: Record<Change['figure'], (value: number | null) => string> = {
  p50: msOf,
  p90: msOf,
  p99: msOf,
  p999: msOf,
  busy: msOf,
  bytes: value => formatBytes(value ?? undefined),
  lost: count,
  wrong: count,
};

const isChange = ({ verdict: found }: Change) => found === 'worse' || found === 'better';
const hasChanged = ({ figures }: CellComparison) => figures.some(isChange);

function onlyIn(which: string, names: readonly string[]): string[] {
  return names.length === 0 ? [] : [`! only ${which}: ${names.join(', ')}`];
}
