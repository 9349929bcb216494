/**
 * The figures of the papers, from kofn's own failure benchmark: `npm run figures`, with --help for the rest. README.md shows them.
 *
 * Invariants
 * 1. A figure is measured, its result written, and drawn from that: `--draw` gives the same picture without measuring.
 * 2. A run that is interrupted or fails leaves the results, pictures and tables of before, each whole, and no process.
 * 3. Only with `--save` is anything written that git knows; else all goes to bench/local/figures/.
 * 4. That one figure fails does not keep the others from being measured.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Interrupt, note, openProgress, toolOptions, writeWhole } from 'kofn/measure';
import { format, resolveConfig } from 'prettier';
import type { Figure, Row } from './figure.js';
import { FIGURES, figureFile } from './figures.js';
import { picturesOf } from './picture.js';
import { tableOf, withTable } from './readme.js';

const width = Math.max(...FIGURES.map(({ name }) => name.length));
const HELP = `Usage: npm run figures -- [NAME...] [options]

Measures and draws the figures of bench/figures/README.md. Each has its config there, NAME.yaml. Its result goes to
bench/local/figures/results/NAME.json, and NAME.svg, NAME.png and NAME.md (its table) beside that; git ignores them. Without a NAME
all, which takes about ${Math.ceil(minutesOf(FIGURES))} minutes on
two cores that do nothing else.

${FIGURES.map(({ name, what, minutes }) => `  ${name.padEnd(width)}  ${what} (${minutesText(minutes)})`).join('\n')}

Options:
  --save     write to bench/figures/ instead, and the tables into its README
  --draw     draw again from the results, without measuring (those of bench/figures/, with --save or where this machine has none)
  --json     print the numbers of the figures as JSON on stdout
  --help     print this

For example:
  npm run figures -- death
  npm run figures -- --draw --save
  npm run figures -- stragglers cost --json

Exit code: 0 done, 1 failed, 2 bad arguments, 130 interrupted (what was saved before is as it was).
`;

let names: string[] = [];
const flags = toolOptions(HELP, () => {
  const parsed = parseArgs({
    allowPositionals: true,
    options: {
      save: { type: 'boolean' },
      draw: { type: 'boolean' },
      json: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  });
  names = parsed.positionals;
  const unknown = names.find(asked => !FIGURES.some(({ name }) => name === asked));
  if (unknown !== undefined) throw new Error(`there is no figure ${unknown}`);
  return parsed.values;
});

using interrupt = new Interrupt();
await run(FIGURES.filter(({ name }) => names.length === 0 || names.includes(name)));

async function run(figures: readonly Figure[]): Promise<void> {
  const done: Record<string, readonly Row[]> = {};
  for (const figure of figures) {
    try {
      if (flags.draw !== true) await measure(figure);
      done[figure.name] = await draw(figure);
    } catch (error) {
      process.exitCode = interrupt.exitCode ?? 1;
      if (interrupt.signal.aborted) return note('interrupted');
      note(`${figure.name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  if (flags.json === true) process.stdout.write(`${JSON.stringify(done)}\n`);
}

async function measure(figure: Figure): Promise<void> {
  const { name } = figure;
  note(`${name}: ${figure.what} (${minutesText(figure.minutes)})`);
  using progress = openProgress(` {bar} {percentage}% | {eta_formatted} left | {what}`, 1, { what: 'starting' });
  const result = await figure.measure({
    configFile: figureFile(`${name}.yaml`),
    command: `npm run figures -- ${name}`,
    signal: interrupt.signal,
    onProgress: (share, what) => progress.update(share, () => ({ what })),
  });
  await mkdir(madeFile('results'), { recursive: true });
  await writeWhole(madeFile(resultOf(figure)), `${JSON.stringify(result)}\n`);
}

async function draw(figure: Figure): Promise<readonly Row[]> {
  const { name } = figure;
  const result = [madeFile(resultOf(figure)), figureFile(resultOf(figure))].find(file => existsSync(file));
  if (result === undefined) throw new Error(`${name} has not been measured yet: npm run figures -- ${name}`);
  const { spec, rows } = figure.draw(JSON.parse(await readFile(result, 'utf8')));
  const { svg, png } = await picturesOf(spec);
  await mkdir(madeFile('.'), { recursive: true });
  await writeWhole(madeFile(`${name}.svg`), svg);
  await writeWhole(madeFile(`${name}.png`), png);
  if (flags.save === true) {
    const readme = figureFile('README.md');
    const text = withTable(await readFile(readme, 'utf8'), name, rows);
    await writeWhole(readme, await format(text, { ...(await resolveConfig(readme)), filepath: readme }));
  } else await writeWhole(madeFile(`${name}.md`), `${tableOf(rows)}\n`);
  note(`${name}: ${relative(madeFile(`${name}.png`))}, ${relative(madeFile(`${name}.svg`))}`);
  return rows;
}

function resultOf({ name }: Figure): string {
  return path.join('results', `${name}.json`);
}

/** A file that a run makes. */
function madeFile(name: string): string {
  return flags.save === true ? figureFile(name) : figureFile(path.join('..', 'local', 'figures', name));
}

function relative(file: string): string {
  return path.relative(fileURLToPath(new URL('../../../', import.meta.url)), file);
}

function minutesOf(figures: readonly Figure[]): number {
  return figures.reduce((sum, { minutes }) => sum + minutes, 0);
}

function minutesText(minutes: number): string {
  return minutes < 1 ? `${Math.round(minutes * 60)} s` : `${minutes} min`;
}
