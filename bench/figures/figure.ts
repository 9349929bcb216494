/**
 * What a figure is: how its numbers come to be, and what becomes of them. main.ts runs them, picture.ts draws them. One file a figure,
 * beside its config; the numbers of all but one are a run of the failure benchmark.
 */
import { readFileSync } from 'node:fs';
import { readConfig, runBenchmark, runResult, type CellResult, type RunResult, type TopLevelSpec } from 'kofn/measure';

export interface MeasureContext {
  /** The figure's own YAML file. */
  readonly configFile: string;
  /** What the result says it was made by. */
  readonly command: string;
  readonly signal: AbortSignal;
  readonly onProgress: (share: number, what: string) => void;
}

/** Rows of figures, as README.md has them and --json prints them. */
export type Row = Readonly<Record<string, string | number | null>>;

export interface Figure {
  readonly name: string;
  /** In some words, for --help. */
  readonly what: string;
  /** About how long `measure` takes on two cores that do nothing else. */
  readonly minutes: number;
  /** What is saved as results/NAME.json. Throws the signal's reason, never returns half a result. */
  readonly measure: (context: MeasureContext) => Promise<unknown>;
  /** The picture and the numbers of what was saved. Throws when it is something else. */
  readonly draw: (saved: unknown) => Drawing;
}

export interface Drawing {
  readonly spec: TopLevelSpec;
  readonly rows: readonly Row[];
}

/** A figure whose config is one of `kofn bench failure`. */
export function figureOfRun(figure: Omit<Figure, 'measure' | 'draw'> & { draw(result: RunResult): Drawing }): Figure {
  return {
    ...figure,
    async measure({ configFile, command, signal, onProgress }) {
      const config = await readConfig(configFile);
      const result = await runBenchmark({
        config,
        command,
        version: version(),
        signal,
        onProgress: ({ cell, done, total }) => onProgress(done / total, cell),
        onCell: () => undefined,
      });
      signal.throwIfAborted();
      const [failed] = result.failedCells;
      if (failed !== undefined) throw new Error(`the cell "${failed.name}" failed: ${failed.message}`);
      return runResult.parse(result);
    },
    draw: saved => figure.draw(runResult.parse(saved)),
  };
}

/** The cell that is called so. */
export function cellOf({ name: run, cells }: RunResult, name: string): CellResult {
  const cell = cells.find(each => each.name === name);
  if (cell === undefined) throw new Error(`the result of ${run} has no cell "${name}"; measure it again`);
  return cell;
}

/** To `digits` significant ones. */
export const rounded = (value: number, digits = 3) => Number(value.toPrecision(digits));

function version(): string {
  const file = new URL('../../../packages/cli/package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
