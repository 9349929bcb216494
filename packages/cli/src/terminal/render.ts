/** Tables and figures for people. Colours only on a terminal (picocolors; NO_COLOR turns them off). */
import { stripVTControlCharacters } from 'node:util';
import Table from 'cli-table3';
import picocolors from 'picocolors';

// picocolors alone would colour a pipe where the environment says CI.
const color = picocolors.createColors(process.stdout.isTTY === true && picocolors.isColorSupported);

/** A table of text; columns whose cells are all figures stand to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const isFigure = (text = '') => /^([\d.,]+( .{1,3})?|-|–|)$/.test(stripVTControlCharacters(text));
  const isFigures = head.map((_, column) => rows.every(row => isFigure(row[column])));
  const made = new Table({
    head: head.map(text => color.bold(text)),
    colAligns: isFigures.map(figures => (figures ? 'right' : 'left')),
    style: { head: [], border: [], compact: true },
  });
  for (const row of rows) made.push([...row]);
  return made.toString();
}

export function formatMs(value: number | null | undefined): string {
  if (value === null || value === undefined) return '-';
  if (value < 0.01 && value > 0) return '<0.01';
  return value < 100 ? value.toFixed(2) : value.toFixed(0);
}

/** With decimal units, as rates have them. */
export function formatBytes(bytes: number | undefined): string {
  return scaled(bytes, ['B', 'kB', 'MB', 'GB']);
}

export function formatCount(count: number | undefined): string {
  return scaled(count, ['', 'k', 'M', 'G']);
}

export function formatError(value: number | string | null | undefined): string {
  if (value === null || value === undefined) return '-';
  return typeof value === 'string' ? value : value === 0 ? '0' : value.toExponential(1);
}

export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** Green when it is as it should be, red when not. */
export function verdict(text: string, good: boolean): string {
  return good ? color.green(text) : color.red(text);
}

export const bold = (text: string) => color.bold(text);
export const dim = (text: string) => color.dim(text);

function scaled(value: number | undefined, units: readonly string[]): string {
  if (value === undefined) return '-';
  let rest = value;
  let unit = 0;
  while (rest >= 1000 && unit < units.length - 1) {
    rest /= 1000;
    unit++;
  }
  return `${unit === 0 || rest >= 100 ? rest.toFixed(0) : rest.toFixed(1)} ${units[unit]}`.trim();
}
