/**
 * What the terminal, Markdown and HTML show alike: the cells of a run in groups that can be compared, and the columns of their tables.
 *
 * Invariants
 * 1. A group's cells have workload, link, fault, device, load and what is equal in common, so that its rows differ in the strategy.
 * 2. Columns come in three sets, what a reader asks first before the rest: were all answered, and how late; against what; at what
 *    price. A table that is too wide is cut between sets.
 * 3. A figure that there is none of is –, never 0.
 */
import { formatBytes, formatMs, plural } from '../../terminal/render.js';
import type { CellResult, Estimate, RunResult } from '../result/result.js';

export const NONE = '–';

export interface Group {
  /** In words, from what its cells have in common. */
  readonly title: string;
  readonly cells: readonly CellResult[];
}

export interface Column {
  readonly head: string;
  /** What the head means, in full. */
  readonly meaning: string;
  readonly text: (cell: CellResult, group: Group) => string;
  /** Whether `text` has something to say that is bad. */
  readonly bad?: (cell: CellResult) => boolean;
}

export function groupsOf({ cells }: Pick<RunResult, 'cells'>): Group[] {
  const groups = new Map<string, CellResult[]>();
  const extras = extrasThatDiffer(cells);
  for (const cell of cells) {
    const { workload, link, fault, equal } = cell;
    const words = [workload, `link ${link}`, `fault ${fault}`, `equal ${equal}`, ...extras.map(extra => extra(cell))];
    const title = words.join(' · ');
    const group = groups.get(title);
    if (group === undefined) groups.set(title, [cell]);
    else group.push(cell);
  }
  return [...groups].map(([title, members]) => ({ title, cells: members }));
}

/** What no title of a group says because it holds of all of them. */
export function commonOf({ cells }: Pick<RunResult, 'cells'>): string[] {
  const differing = extrasThatDiffer(cells);
  return cells.length === 0 ? [] : EXTRAS.filter(extra => !differing.includes(extra)).map(extra => extra(cells[0]!));
}

/** A cell's strategy; its whole name where the group has that strategy twice. */
export function seriesName(cell: CellResult, { cells }: Group): string {
  const isAlone = cells.every(each => each === cell || each.strategy !== cell.strategy);
  return isAlone ? cell.strategy : cell.name;
}

export function rowName(cell: CellResult, group: Group): string {
  return `${seriesName(cell, group)}${cell.complete ? '' : ' (cut short)'}`;
}

/** The sets of columns of `group`, without those that say nothing in any of its rows. The first is the name of the row. */
export function columnsOf(group: Group): readonly [Column, ...(readonly Column[])[]] {
  const says = (column: Column) => group.cells.some(cell => column.text(cell, group) !== NONE);
  return [NAME, [...ANSWERS, ...AFTER_FAULTS.filter(says)], AGAINST.filter(says), COSTS];
}

const NAME: Column = {
  head: 'strategy',
  meaning: 'how the workers are used',
  text: rowName,
  bad: ({ complete }) => !complete,
};

const ANSWERS: readonly Column[] = [
  {
    head: 'lost',
    meaning: 'requests without an answer, of all',
    text: ({ lost, requests }) => (lost === 0 ? '0' : `${lost} of ${requests}`),
    bad: ({ lost }) => lost > 0,
  },
  {
    head: 'wrong',
    meaning: 'answers that differ from those of the uncoded model',
    text: ({ wrong }) => String(wrong),
    bad: ({ wrong }) => wrong > 0,
  },
  { head: 'p50 ms', meaning: 'median latency of answered requests', text: cell => valueOf(cell.latencyMs.p50) },
  { head: 'p90 ms', meaning: '90th percentile of latency', text: cell => valueOf(cell.latencyMs.p90) },
  { head: 'p99 ms', meaning: '99th percentile of latency', text: cell => valueOf(cell.latencyMs.p99) },
  { head: 'p99.9 ms', meaning: '99.9th percentile of latency', text: cell => valueOf(cell.latencyMs.p999) },
  { head: 'max ms', meaning: 'longest latency', text: cell => msOf(cell.latencyMs.max) },
];

const AFTER_FAULTS: readonly Column[] = [
  {
    head: 'fault to answer ms',
    meaning: 'from a fault to the next answer: median / longest',
    text: ({ faultToAnswerMs: found }) => {
      if (found === null) return NONE;
      const never = found.unanswered > 0 ? `, ${found.unanswered} never` : '';
      return `${msOf(found.p50)} / ${msOf(found.max)}${never}`;
    },
    bad: ({ faultToAnswerMs }) => (faultToAnswerMs?.unanswered ?? 0) > 0,
  },
];

const AGAINST: readonly Column[] = (['p50', 'p99'] as const).flatMap(
  name =>
    [
      {
        head: `${name} / uncoded`,
        meaning: `${name} over that of uncoded, with its 95 % interval`,
        text: (cell, group) => againstOf(cell, group, 'uncoded', name),
      },
      {
        head: `${name} / 2MR`,
        meaning: `${name} over that of replication at equal cost, with its 95 % interval`,
        text: (cell, group) => againstOf(cell, group, 'replication', name),
      },
    ] satisfies Column[],
);

const COSTS: readonly Column[] = [
  {
    head: 'busy ms',
    meaning: 'time that all machines together compute for a request',
    text: cell => msOf(cell.busyMsPerRequest),
  },
  {
    head: 'there / back',
    meaning: 'bytes of a request to the workers / from them',
    text: ({ bytesPerRequest: { sent, received } }) => `${formatBytes(sent)} / ${formatBytes(received)}`,
  },
  {
    head: 'recovered',
    meaning: 'blocks computed from parity because theirs were lost / late',
    text: ({ recovered: { lost, late } }) => `${lost} lost, ${late} late`,
  },
];

export function msOf(value: number | null): string {
  return value === null ? NONE : formatMs(value);
}

/** An estimate of milliseconds with its interval. */
export function estimateText(estimate: Estimate | null): string {
  if (estimate === null) return NONE;
  return `${formatMs(estimate.value)} (${formatMs(estimate.low)}–${formatMs(estimate.high)})`;
}

/** A ratio with its interval. */
export function ratioText(estimate: Estimate | null): string {
  if (estimate === null) return NONE;
  return `${ratioDigits(estimate.value)} (${ratioDigits(estimate.low)}–${ratioDigits(estimate.high)})`;
}

/** What is emulated in a run, each sentence once, with how many cells it is of where it is not all. */
export function emulatedIn({ cells }: Pick<RunResult, 'cells'>): string[] {
  const counts = new Map<string, number>();
  for (const { emulated } of cells) {
    for (const sentence of new Set(emulated)) counts.set(sentence, (counts.get(sentence) ?? 0) + 1);
  }
  return [...counts].map(([sentence, count]) =>
    count === cells.length ? sentence : `${sentence} (${plural(count, 'cell')} of ${cells.length})`,
  );
}

/** What makes a run less than it was to be; nothing of a run that is whole. */
export function shortfalls(result: RunResult): string[] {
  const cut = result.cells.filter(({ complete }) => !complete);
  const wrong = result.cells.filter(cell => cell.wrong > 0);
  return [
    ...(result.complete
      ? []
      : ['The run is not whole: cells are missing, or have fewer requests than they were to have.']),
    ...result.failedCells.map(({ name, message }) => `Failed: ${name}: ${message}.`),
    ...(cut.length === 0
      ? []
      : [`Cut short: ${cut.map(({ name, requests }) => `${name} (${plural(requests, 'request')})`).join(', ')}.`]),
    ...(wrong.length === 0 ? [] : [`Wrong answers: ${wrong.map(cell => `${cell.name} (${cell.wrong})`).join(', ')}.`]),
  ];
}

const EXTRAS: readonly ((cell: CellResult) => string)[] = [
  ({ device }) => `device ${device}`,
  ({ load }) => (load.kind === 'closed' ? 'one request after the other' : `a request every ${msOf(load.everyMs)} ms`),
];

const extrasThatDiffer = (cells: readonly CellResult[]) =>
  EXTRAS.filter(extra => cells.some(cell => extra(cell) !== extra(cells[0]!)));

function againstOf(cell: CellResult, group: Group, which: 'uncoded' | 'replication', name: 'p50' | 'p99'): string {
  const isBaseline = group.cells.some(({ ratios }) => ratios[which]?.cell === cell.name);
  return isBaseline ? '1' : ratioText(cell.ratios[which]?.[name] ?? null);
}

const valueOf = (estimate: Estimate | null) => msOf(estimate?.value ?? null);

const ratioDigits = (value: number) =>
  value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);

/** How to read the figures. */
export const LEGEND =
  'Percentiles are of answered requests; lost ones are beside them. (a–b) is a 95 % interval, by a bootstrap over repeats and blocks of ' +
  'consecutive requests. – is no figure: fewer than 10 samples lie beyond that percentile, or there is nothing to compare with.';
