/** What processes hold over a run, from /proc (Linux): memory, open files, sockets; of this process its handles too. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { percentile } from 'kofn/measure';

const FIGURES = ['rssBytes', 'files', 'sockets', 'handles'] as const;
type Figure = (typeof FIGURES)[number];

export interface Growth {
  readonly process: string;
  readonly figure: Figure;
  /** Medians of the run's second quarter and of its last. */
  readonly second: number;
  readonly last: number;
  readonly flat: boolean;
}

/** Growth that is still flat. Memory: collectors and caches settle late, most of all in a short run. */
const ALLOWED: Readonly<Record<Figure, (second: number) => number>> = {
  rssBytes: second => 1.25 * second + 32 * 2 ** 20,
  files: second => second + 4,
  sockets: second => second + 2,
  handles: second => second + 6,
};

export class Resources {
  readonly #samples = new Map<string, { progress: number; values: Partial<Record<Figure, number>> }[]>();

  /** `progress` from 0 to 1. A process that has just gone is left out. */
  sample(progress: number, pids: ReadonlyMap<string, number | undefined>): void {
    for (const [name, pid] of pids) {
      const values = pid === undefined ? undefined : valuesOf(pid);
      if (values === undefined) continue;
      const list = this.#samples.get(name) ?? [];
      this.#samples.set(name, list);
      list.push({ progress, values });
    }
  }

  growth(): Growth[] {
    return [...this.#samples].flatMap(([process, samples]) =>
      FIGURES.flatMap(figure => {
        const median = (from: number, to: number) =>
          percentile(
            samples
              .filter(({ progress }) => progress >= from && progress < to)
              .flatMap(({ values }) => values[figure] ?? []),
            50,
          );
        const [second, last] = [median(0.25, 0.5), median(0.75, 1)];
        if (second === null || last === null) return [];
        return [{ process, figure, second, last, flat: last <= ALLOWED[figure](second) }];
      }),
    );
  }
}

function valuesOf(pid: number): Partial<Record<Figure, number>> | undefined {
  try {
    const [, kilobytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'latin1')) ?? [];
    const targets = readdirSync(`/proc/${pid}/fd`).map(fd => linkOf(`/proc/${pid}/fd/${fd}`));
    return {
      ...(kilobytes === undefined ? {} : { rssBytes: 1024 * Number(kilobytes) }),
      files: targets.length,
      sockets: targets.filter(target => target.startsWith('socket:')).length,
      ...(pid === process.pid ? { handles: process.getActiveResourcesInfo().length } : {}),
    };
  } catch {
    return undefined;
  }
}

/** Empty when the file was closed meanwhile. */
function linkOf(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}
