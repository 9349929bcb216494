/** The tables of README.md, each between two marks: its numbers are those that were measured last. */
import type { Row } from './figure.js';

/** `readme` with `rows` as the table of figure `name`. Throws when it has no place for it. */
export function withTable(readme: string, name: string, rows: readonly Row[]): string {
  const [open, close] = [`<!-- numbers of ${name} -->`, `<!-- end of ${name} -->`];
  const [start, end] = [readme.indexOf(open), readme.indexOf(close)];
  if (start < 0 || end < start) throw new Error(`bench/figures/README.md has no marks "${open}" and "${close}"`);
  return `${readme.slice(0, start + open.length)}\n\n${tableOf(rows)}\n\n${readme.slice(end)}`;
}

export function tableOf(rows: readonly Row[]): string {
  const heads = Object.keys(rows[0] ?? {});
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const isFigures = (head: string) => rows.every(row => typeof row[head] !== 'string');
  return [
    line(heads),
    line(heads.map(head => (isFigures(head) ? '--:' : '---'))),
    ...rows.map(row => line(heads.map(head => String(row[head] ?? '–').replaceAll('|', '\\|')))),
  ].join('\n');
}
