/** What a run leaves: one JSON file a benchmark, and all of them as one table; in results/ or, unless that is asked for, in local/. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Bench, Figure, Target } from './bench.js';

/** Of the checkout, not of dist: the figures that the documents quote, and, ignored by git, those of this machine. */
export function resultsFolder(isSaved: boolean): string {
  return fileURLToPath(new URL(isSaved ? '../results/' : '../local/results/', import.meta.url));
}

export interface Result {
  readonly bench: string;
  readonly what: string;
  readonly baseline: string;
  readonly machine: { readonly cpu: string; readonly cores: number; readonly node: string };
  readonly figures: readonly Figure[];
}

export function resultOf({ name, what, baseline }: Bench, figures: readonly Figure[]): Result {
  const machine = { cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: cpus().length, node: process.version };
  return { bench: name, what, baseline, machine, figures };
}

/** Writes `result` to `folder`, in the place of an earlier one of the same benchmark. */
export function writeResult(folder: string, result: Result): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}${result.bench.replace('/', '-')}.json`, `${JSON.stringify(result, null, 2)}\n`);
}

/** Writes table.md, of every result that lies in `folder`, those of earlier runs too; in the order of `benches`. */
export function writeTable(folder: string, benches: readonly Bench[]): void {
  const results = readdirSync(folder)
    .filter(file => file.endsWith('.json'))
    .map(file => JSON.parse(readFileSync(`${folder}${file}`, 'utf8')) as Result);
  const known = benches.flatMap(({ name }) => results.filter(({ bench }) => bench === name));
  writeFileSync(`${folder}table.md`, `${tableOf(known)}\n`);
}

export function tableOf(results: readonly Result[]): string {
  return [
    '| benchmark | kofn | baseline | ratio (95 %) | target | |\n|---|---|---|---|---|---|',
    ...results.flatMap(({ bench, figures }) => figures.map(each => rowOf(bench, each))),
  ].join('\n');
}

export function missed(results: readonly Result[]): string[] {
  return results.flatMap(({ bench, figures }) =>
    figures
      .filter(({ holds }) => !holds)
      .map(({ name, ratio, target }) => `${bench} ${name}: ${ratio.toFixed(2)}, target ${textOf(target)}`),
  );
}

function rowOf(bench: string, { name, unit, value, baseline, ratio, target, holds, spread }: Figure): string {
  const [low, high] = spread.ratio95.map(edge => edge?.toFixed(2) ?? '–');
  const cells = [
    `${bench} ${name}`,
    `${value.toFixed(2)} ${unit}`,
    `${baseline.toFixed(2)} ${unit}`,
    `${ratio.toFixed(2)} (${low} … ${high})`,
    textOf(target),
    holds ? '✓' : '✗',
  ];
  return `| ${cells.join(' | ')} |`;
}

function textOf(target: Target): string {
  return 'atMost' in target ? `≤ ${target.atMost}` : `≥ ${target.atLeast}`;
}
