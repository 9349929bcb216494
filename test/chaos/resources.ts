/** What processes hold over a run, from /proc (Linux): memory, open files, sockets; of this process its handles too. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { percentile } from 'kofn/measure';

const FIGURES = ['rssBytes', 'files', 'sockets', 'handles'] as const;
type Figure = (typeof FIGURES)[number];

export interface Growth {
  readonly process: string;
  readonly figure: Figure;
  /** Medians of the second quarter of the process's life in the run and of the last. */
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

/** A process with fewer samples has not lived long enough to tell. */
const MIN_SAMPLES = 16;
const CLOSING_MS = 5_000;

export type Values = Readonly<Partial<Record<Figure, number>>>;

export class Resources {
  readonly #samples = new Map<string, Values[]>();
  #sampledAt = -Infinity;

  /** Takes a sample of each process when the last is older than `everyMs`. A process that has just gone is left out. */
  sample(everyMs: number, pids: () => ReadonlyMap<string, number | undefined>): void {
    if (performance.now() - this.#sampledAt < everyMs) return;
    this.#sampledAt = performance.now();
    for (const [name, pid] of pids()) {
      const values = pid === undefined ? undefined : valuesOf(pid);
      if (values === undefined) continue;
      const list = this.#samples.get(name) ?? [];
      this.#samples.set(name, list);
      list.push(values);
    }
  }

  growth(): Growth[] {
    return [...this.#samples].flatMap(([process, samples]) =>
      FIGURES.flatMap(figure => {
        const median = (from: number, to: number) =>
          percentile(
            samples.slice(from * samples.length, to * samples.length).flatMap(values => values[figure] ?? []),
            50,
          );
        const [second, last] = [median(0.25, 0.5), median(0.75, 1)];
        if (samples.length < MIN_SAMPLES || second === null || last === null) return [];
        return [{ process, figure, second, last, flat: last <= ALLOWED[figure](second) }];
      }),
    );
  }
}

/** Of what a process or a fleet has open: how many of each kind. */
export type Counts = ReadonlyMap<string, number>;

/** What keeps this process alive now. */
export function openResources(): Counts {
  const counts = new Map<string, number>();
  for (const kind of process.getActiveResourcesInfo()) {
    if (kind !== 'Immediate') counts.set(kind, (counts.get(kind) ?? 0) + 1);
  }
  return counts;
}

/** Sockets of each process, whichever in its place it is: a name up to the point. */
export function openSockets(pids: ReadonlyMap<string, number | undefined>): Counts {
  const counts = new Map<string, number>();
  for (const [name, pid] of pids) {
    const values = pid === undefined ? undefined : valuesOf(pid);
    counts.set(`sockets of ${name.split('.')[0]}`, values?.sockets ?? 0);
  }
  return counts;
}

/** Of what there is more than `before`, once what is closing has had CLOSING_MS to close. */
export async function leftSince(before: Counts, now: () => Counts): Promise<string[]> {
  const end = performance.now() + CLOSING_MS;
  for (;;) {
    const left = [...now()].filter(([what, count]) => count > (before.get(what) ?? 0));
    if (left.length === 0 || performance.now() > end) {
      return left.map(([what, count]) => `${what}: ${count}, before ${before.get(what) ?? 0}`);
    }
    await new Promise(resolve => setImmediate(resolve));
  }
}

/** Undefined when the process has gone. */
export function valuesOf(pid: number): Values | undefined {
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
