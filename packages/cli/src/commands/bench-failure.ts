/** `kofn bench failure`: runs a config, writes its report, prints its table. */
import path from 'node:path';
import { KofnError } from '@kofn/core';
import { EXIT_FAILED, EXIT_OK } from '../terminal/exit.js';
import { readConfig, type Config } from '../failure/config/config.js';
import { resultTables } from '../failure/report/table.js';
import { openFolder, writeResult } from '../failure/report/write.js';
import type { RunResult } from '../failure/result/result.js';
import { runBenchmark } from '../failure/run/run.js';
import { shippedConfig } from '../failure/config/shipped.js';
import { note, openProgress } from '../terminal/progress.js';
import { table } from '../terminal/render.js';

export interface BenchFailureArguments {
  readonly config: string;
  readonly output?: string;
  readonly workers?: readonly string[];
  readonly cells?: readonly string[];
  readonly seed?: number;
  readonly requests?: number;
  readonly list?: boolean;
  readonly json?: boolean;
}

/** What a caller outside of the command line tells. */
export interface Invocation {
  readonly command: string;
  readonly version: string;
}

/** Returns the exit code: 1 when an answer was wrong or a cell failed. That a strategy loses requests is what is measured. */
export async function benchFailure(
  args: BenchFailureArguments,
  invocation: Invocation,
  signal: AbortSignal,
): Promise<number> {
  const config = chosen(await readConfig(shippedConfig(args.config)), args);
  if (args.list === true) {
    process.stdout.write(args.json ? `${JSON.stringify(config)}\n` : `${cellTable(config)}\n`);
    return EXIT_OK;
  }
  const folder = args.output ?? path.join('kofn-bench', config.name);
  await openFolder(folder);
  const result = await run(config, args, invocation, signal);
  const files = await writeResult(result, folder);
  process.stdout.write(args.json ? `${JSON.stringify(result)}\n` : `${resultTables(result)}\n`);
  if (signal.aborted) note('It was interrupted: the report has what was measured until then.');
  note(`Report: ${Object.values(files).join(', ')}`);
  return result.failedCells.length > 0 || result.cells.some(({ wrong }) => wrong > 0) ? EXIT_FAILED : EXIT_OK;
}

async function run(
  config: Config,
  { workers: hosts }: BenchFailureArguments,
  invocation: Invocation,
  signal: AbortSignal,
): Promise<RunResult> {
  const times = config.repeats === 1 ? '' : `, ${config.repeats} times each`;
  note(`${config.name}: ${config.cells.length} cells${times}, seed ${config.seed}`);
  const format = ' {bar} {percentage}% | {eta_formatted} left | {cell}';
  using progress = openProgress(format, 1, { cell: 'starting workers' });
  return await runBenchmark({
    config,
    hosts,
    signal,
    ...invocation,
    // Where no bar is drawn, a line a cell says that it goes on.
    onCell: name => (process.stderr.isTTY ? undefined : note(`  ${name}`)),
    onProgress: ({ cell, done, total }) => progress.update(done / total, () => ({ cell })),
  });
}

/** `config` as the command line narrows it. Throws INVALID_ARGUMENT: no such cell. */
function chosen(config: Config, { cells: names, seed = config.seed, requests }: BenchFailureArguments): Config {
  const isAsked = (name: string) =>
    names === undefined || names.some(asked => name === asked || name.startsWith(`${asked} `));
  const unknown = names?.find(
    asked => !config.cells.some(({ name }) => name === asked || name.startsWith(`${asked} `)),
  );
  if (unknown !== undefined) {
    const known = config.cells.map(({ name }) => name).join(', ');
    throw new KofnError('INVALID_ARGUMENT', `--cells ${unknown}: there is no such cell; there are ${known}`);
  }
  const cells = config.cells.filter(({ name }) => isAsked(name));
  const claims = config.claims.filter(({ of, to }) => isAsked(of) && isAsked(to));
  return {
    ...config,
    seed,
    claims,
    cells: requests === undefined ? cells : cells.map(cell => ({ ...cell, requests })),
  };
}

function cellTable({ cells }: Config): string {
  const rows = cells.map(({ name, strategy, fault, link, workload, equal, workers, requests }) => [
    name,
    strategy,
    fault.name,
    link.name,
    workload.name,
    `${workers}, equal ${equal}`,
    String(requests),
  ]);
  return table(['cell', 'strategy', 'fault', 'link', 'workload', 'workers', 'requests'], rows);
}
