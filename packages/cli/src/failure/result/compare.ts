/**
 * What changed between two runs of `kofn bench failure` beyond noise, cell by cell.
 *
 * A percentile has changed when both hold: the interval of its ratio (after / before) excludes 1, and the ratio is further from 1 than
 * a least change. The intervals are of 95 % over all comparisons together, after Bonferroni: with m of them one alone has to hold with
 * 1 - 0.05 / m, or every twentieth would be called a change where there is none. Resampling cannot see so far out, so the bootstrap's
 * 95 % interval is widened, on the log scale, by as much as a normal distribution's would be.
 *
 * The least change is 2 %. Where either side has a single repeat it is 10 %: how runs differ (other processes, the state of the machine)
 * is then in no interval. Figures without samples have no interval at all: busy time has changed from 50 % on, for two runs of one
 * config differed by up to a third, and bytes from 10 % on.
 *
 * Lost requests are compared by Fisher's exact test, at the same level. A wrong answer is never noise.
 */
import { fisher, normalQuantile } from './exact.js';
import type { CellResult, Estimate, RunResult } from './result.js';
import { answeredOf, PERCENTILE_NAMES, ratios, type PercentileName } from './statistics.js';

export const LEVEL = 0.05;
export const LEAST_CHANGE = 0.02;
/** Of a single repeat, and of bytes. */
export const LEAST_CHANGE_OF_ONE = 0.1;
const LEAST_CHANGE_OF_BUSY = 0.5;

export type Figure = PercentileName | 'busy' | 'bytes' | 'lost' | 'wrong';
export type Verdict = 'worse' | 'better' | 'same' | 'not compared';

export interface Change {
  readonly figure: Figure;
  readonly before: number | null;
  readonly after: number | null;
  /** After over before, with the interval as it was judged; low and high are the value where there is none. Null for counts. */
  readonly ratio: Estimate | null;
  readonly verdict: Verdict;
}

export interface CellComparison {
  readonly cell: string;
  /** Every figure in turn, also those that did not change. */
  readonly figures: readonly Change[];
}

export interface Comparison {
  readonly before: string;
  readonly after: string;
  readonly cells: readonly CellComparison[];
  readonly onlyBefore: readonly string[];
  readonly onlyAfter: readonly string[];
  /** What makes it unfair or unsure, one sentence each. */
  readonly warnings: readonly string[];
  /** How many tests share the level. */
  readonly tests: number;
  readonly worse: number;
  readonly better: number;
}

export function compareRuns(before: RunResult, after: RunResult): Comparison {
  const pairs = before.cells.flatMap(cell => {
    const other = after.cells.find(({ name }) => name === cell.name);
    if (other === undefined) return [];
    return [{ before: cell, after: other, found: ratios(answeredOf(other), answeredOf(cell)) }];
  });
  const tests = pairs.reduce((sum, pair) => sum + testsOf(pair), 0);
  const level = LEVEL / Math.max(1, tests);
  const cells = pairs.map(pair => ({ cell: pair.before.name, figures: figuresOf(pair, level) }));
  const count = (verdict: Verdict) =>
    cells.reduce((sum, { figures }) => sum + figures.filter(each => each.verdict === verdict).length, 0);
  const namesWithout = (run: RunResult, other: RunResult) =>
    run.cells.map(({ name }) => name).filter(name => other.cells.every(cell => cell.name !== name));
  return {
    before: before.name,
    after: after.name,
    cells,
    onlyBefore: namesWithout(before, after),
    onlyAfter: namesWithout(after, before),
    warnings: warningsOf(before, after, pairs),
    tests,
    worse: count('worse'),
    better: count('better'),
  };
}

interface Pair {
  readonly before: CellResult;
  readonly after: CellResult;
  /** After over before. */
  readonly found: ReturnType<typeof ratios>;
}

/** How many of the figures of `pair` are tested with chance in mind. */
function testsOf({ before, after, found }: Pair): number {
  return PERCENTILE_NAMES.filter(name => found[name] !== null).length + (before.lost + after.lost > 0 ? 1 : 0);
}

function figuresOf(pair: Pair, level: number): Change[] {
  const { before, after, found } = pair;
  const least = hasOneRepeat(pair) ? LEAST_CHANGE_OF_ONE : LEAST_CHANGE;
  const percentiles = PERCENTILE_NAMES.map((figure): Change => {
    const values = { before: before.latencyMs[figure]?.value ?? null, after: after.latencyMs[figure]?.value ?? null };
    const ratio = found[figure];
    if (ratio === null) return { figure, ...values, ratio, verdict: 'not compared' };
    const wide = widened(ratio, level);
    return { figure, ...values, ratio: wide, verdict: verdictOf(wide, least) };
  });
  return [
    ...percentiles,
    plain('busy', before.busyMsPerRequest, after.busyMsPerRequest, LEAST_CHANGE_OF_BUSY),
    plain('bytes', bytesOf(before), bytesOf(after), LEAST_CHANGE_OF_ONE),
    lostOf(pair, level),
    wrongOf(pair),
  ];
}

/** More is worse, of every figure. */
function verdictOf({ value, low, high }: Estimate, least: number): Verdict {
  if (low > 1 && value > 1 + least) return 'worse';
  // The same step on a log scale, so that exchanging the runs exchanges better and worse.
  return high < 1 && value < 1 / (1 + least) ? 'better' : 'same';
}

/** A 95 % interval of a ratio as one of 1 - level. */
function widened({ value, low, high }: Estimate, level: number): Estimate {
  const by = normalQuantile(1 - level / 2) / normalQuantile(0.975);
  return { value, low: value * (low / value) ** by, high: value * (high / value) ** by };
}

function plain(figure: Figure, before: number, after: number, least: number): Change {
  if (before === 0) return { figure, before, after, ratio: null, verdict: after === 0 ? 'same' : 'not compared' };
  const value = after / before;
  const ratio = { value, low: value, high: value };
  return { figure, before, after, ratio, verdict: verdictOf(ratio, least) };
}

function lostOf({ before, after }: Pair, level: number): Change {
  const more = after.lost * before.requests - before.lost * after.requests;
  const isChance = more === 0 || fisher(before.lost, before.requests, after.lost, after.requests) >= level;
  const verdict = isChance ? 'same' : more > 0 ? 'worse' : 'better';
  return { figure: 'lost', before: before.lost, after: after.lost, ratio: null, verdict };
}

function wrongOf({ before, after }: Pair): Change {
  const verdict = after.wrong > 0 ? 'worse' : before.wrong > 0 ? 'better' : 'same';
  return { figure: 'wrong', before: before.wrong, after: after.wrong, ratio: null, verdict };
}

function warningsOf(before: RunResult, after: RunResult, pairs: readonly Pair[]): string[] {
  const warnings: string[] = [];
  const differs = (what: string, a: unknown, b: unknown) => {
    if (a !== b) warnings.push(`${what} differs: ${String(a)} before, ${String(b)} after`);
  };
  for (const name of ['cpu', 'cores', 'os', 'node', 'kofn', 'engine'] as const) {
    differs(name, before.environment[name], after.environment[name]);
  }
  differs('hosts', before.environment.hosts.join(', ') || 'none', after.environment.hosts.join(', ') || 'none');
  const together = (what: string, applies: (pair: Pair) => boolean) => {
    const names = pairs.filter(applies).map(pair => pair.before.name);
    if (names.length > 0) warnings.push(`${what}: ${names.length === pairs.length ? 'all cells' : names.join(', ')}`);
  };
  for (const [what, of] of CONDITIONS) together(`${what} differs`, pair => of(pair.before) !== of(pair.after));
  together('cut short on one side or both', pair => !pair.before.complete || !pair.after.complete);
  together(
    'a single repeat on one side or both, so that how runs differ (other processes, the state of the machine) is in no interval, ' +
      `and a change counts from ${LEAST_CHANGE_OF_ONE * 100} % on`,
    hasOneRepeat,
  );
  return warnings;
}

/** What has to be alike for two cells of one name to be the same experiment. */
const CONDITIONS: readonly (readonly [string, (cell: CellResult) => string])[] = [
  ['the strategy', ({ strategy, workers, k, r }) => `${strategy} ${workers} ${k} ${r}`],
  ['the fault', ({ fault }) => fault],
  ['the link', ({ link }) => link],
  ['the workload', ({ workload }) => workload],
  ['the device', ({ device }) => device],
  ['what is equal', ({ equal }) => equal],
  ['the load', ({ load }) => `${load.kind} ${load.everyMs}`],
  ['what is emulated', ({ emulated }) => [...emulated].sort().join('\n')],
  ['the number of requests', ({ requests }) => String(requests)],
];

const hasOneRepeat = ({ before, after }: Pair) => before.samples.length < 2 || after.samples.length < 2;
const bytesOf = ({ bytesPerRequest: { sent, received } }: CellResult) => sent + received;
