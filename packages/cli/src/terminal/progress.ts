/** Progress bars on stderr, only where a person looks at it. */
import cliProgress from 'cli-progress';

export interface Progress extends Disposable {
  /** `values` fill the places in the bar's format; only called when there is a bar. */
  update(done: number, values?: () => Readonly<Record<string, string>>): void;
}

const SILENT: Progress = { update: () => undefined, [Symbol.dispose]: () => undefined };

/** A bar of `total` steps, drawn as `format` says (cli-progress: {bar}, {value}, {total}, and names of `values`). */
export function openProgress(format: string, total: number, values: Readonly<Record<string, string>> = {}): Progress {
  if (!process.stderr.isTTY) return SILENT;
  const bar = new cliProgress.SingleBar(
    { format, stream: process.stderr, hideCursor: null, clearOnComplete: true, barsize: 24, fps: 10 },
    cliProgress.Presets.shades_classic,
  );
  bar.start(total, 0, values);
  return {
    update: (done, now) => bar.update(done, now?.() ?? {}),
    [Symbol.dispose]: () => bar.stop(),
  };
}

/** A line on stderr: what a person may want to know and a program does not. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}
