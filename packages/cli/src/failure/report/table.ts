/** A run as tables for a terminal, and the same as Markdown. What is in them is in rows.ts. */
import { stripVTControlCharacters } from 'node:util';
import { bold, table, verdict } from '../../terminal/render.js';
import type { RunResult } from '../result/result.js';
import {
  columnsOf,
  commonOf,
  emulatedIn,
  groupsOf,
  LEGEND,
  ratioText,
  shortfalls,
  type Column,
  type Group,
} from './rows.js';

/** Characters; a terminal whose width is not known, and what a page of Markdown shows without scrolling. */
const TERMINAL_WIDTH = 120;
const MARKDOWN_WIDTH = 140;

/** Tables that are no wider than `columns` characters where two in place of one make them so. */
export function resultTables(result: RunResult, columns = process.stdout.columns ?? TERMINAL_WIDTH): string {
  const common = commonOf(result);
  const groups = groupsOf(result).map(group => {
    const made = tablesOf(group, columns, terminalTable);
    return [bold(printable(group.title)), ...made].join('\n');
  });
  return [
    ...shortfalls(result).map(line => verdict(printable(line), false)),
    ...(common.length === 0 ? [] : [printable(`All: ${common.join(' · ')}`)]),
    ...groups,
    ...list(bold('Claims'), claimLines(result)),
    ...list(bold('Strategies'), strategyLines(result)),
    ...list(bold('Emulated'), emulatedIn(result)),
    LEGEND,
  ].join('\n\n');

  function list(head: string, lines: readonly string[]): string[] {
    return lines.length === 0 ? [] : [[head, ...lines.map(line => `  - ${printable(line)}`)].join('\n')];
  }
}

/** The same for a README or a report.md; headings begin at `level`. */
export function resultMarkdown(result: RunResult, level = 2): string {
  const heading = (text: string, below = 0) => `${'#'.repeat(level + below)} ${escapeMarkdown(text)}`;
  const common = commonOf(result);
  const { cpu, cores, os, node, kofn, engine } = result.environment;
  return [
    heading(result.name),
    ...(result.description === '' ? [] : [escapeMarkdown(result.description)]),
    ...shortfalls(result).map(line => `**${escapeMarkdown(line)}**`),
    `Made by ${codeSpan(result.command)}, seed ${result.seed}, ${result.startedAt.slice(0, 10)}; ` +
      escapeMarkdown(`kofn ${kofn}, ${engine}, Node ${node}, ${os}, ${cpu} (${cores} cores).`),
    ...(common.length === 0 ? [] : [escapeMarkdown(`All: ${common.join(' · ')}.`)]),
    ...groupsOf(result).flatMap(group => [
      heading(group.title, 1),
      ...tablesOf(group, MARKDOWN_WIDTH, (columns, of) => markdownTable(columns, of)),
    ]),
    ...list('Claims', claimLines(result)),
    ...list('Strategies', strategyLines(result)),
    ...list('Emulated', emulatedIn(result)),
    LEGEND,
  ].join('\n\n');

  function list(head: string, lines: readonly string[]): string[] {
    return lines.length === 0 ? [] : [heading(head, 1), lines.map(line => `- ${escapeMarkdown(line)}`).join('\n')];
  }
}

export function claimLines({ claims }: Pick<RunResult, 'claims'>): string[] {
  return claims.map(({ what, estimate, why }) => {
    const found = estimate === null ? 'cannot be said: too few samples, or a cell is missing' : ratioText(estimate);
    return `${what}: ${found}. ${why}`;
  });
}

/** Each strategy in words, once. */
export function strategyLines({ cells }: Pick<RunResult, 'cells'>): string[] {
  return [...new Set(cells.map(({ strategy, what }) => `${strategy}: ${what}`))];
}

/** One table, or two or three where one would be wider than `width`. */
function tablesOf(group: Group, width: number, make: (columns: readonly Column[], group: Group) => string): string[] {
  const [name, answers, against, costs] = columnsOf(group);
  const ways = [
    [[...answers!, ...against!, ...costs!]],
    [answers!, [...against!, ...costs!]],
    [answers!, against!, costs!],
  ];
  const made = ways.map(way => way.filter(set => set.length > 0).map(set => make([name, ...set], group)));
  return made.find(tables => tables.every(text => widthOf(text) <= width)) ?? made.at(-1)!;
}

const widthOf = (text: string) => Math.max(...text.split('\n').map(line => stripVTControlCharacters(line).length));

function terminalTable(columns: readonly Column[], group: Group): string {
  const cellText = ({ text, bad }: Column, cell: Group['cells'][number]) =>
    bad?.(cell) === true ? verdict(printable(text(cell, group)), false) : printable(text(cell, group));
  return table(
    columns.map(({ head }) => head),
    group.cells.map(cell => columns.map(column => cellText(column, cell))),
  );
}

/** Padded, so that it can be read as it is too. */
function markdownTable(columns: readonly Column[], group: Group): string {
  const rows = [
    columns.map(({ head }) => escapeMarkdown(head)),
    ...group.cells.map(cell => columns.map(({ text }) => escapeMarkdown(text(cell, group)))),
  ];
  const widths = columns.map((_, at) => Math.max(3, ...rows.map(row => row[at]!.length)));
  const line = (texts: readonly string[]) =>
    `| ${texts.map((text, at) => (at === 0 ? text.padEnd(widths[at]!) : text.padStart(widths[at]!))).join(' | ')} |`;
  const rule = widths.map((width, at) => (at === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`));
  return [line(rows[0]!), `| ${rule.join(' | ')} |`, ...rows.slice(1).map(line)].join('\n');
}

/** Names come from files of others: nothing of them may end a cell, start markup or HTML, or break a line. */
export function escapeMarkdown(text: string): string {
  return printable(text)
    .replace(/[\\`*_[\]|<>#]/g, '\\$&')
    .replace(/&/g, '&amp;');
}

/** In as many backticks as it does not hold. */
function codeSpan(text: string): string {
  const longest = Math.max(0, ...(text.match(/`+/g) ?? []).map(run => run.length));
  const fence = '`'.repeat(longest + 1);
  const pad = longest > 0 ? ' ' : '';
  return `${fence}${pad}${printable(text)}${pad}${fence}`;
}

/** One line, without what would move the cursor of a terminal or colour it. */
function printable(text: string): string {
  // eslint-disable-next-line no-control-regex
  return stripVTControlCharacters(text).replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ');
}
