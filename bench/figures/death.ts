/** Latency over time while one machine is killed for good: detection, reload and retry against replication and a code. */
import { percentile, seriesScales, type CellResult, type RunResult } from 'kofn/measure';
import { cellOf, figureOfRun, rounded, type Drawing, type Row } from './figure.js';
import { at, axis, framed, label, type Panel } from './picture.js';

const SERIES = { failover: 'detect, reload, retry', '2mr': '2MR', 'cdc-1': 'CDC, one parity block' } as const;
const STRATEGIES = Object.keys(SERIES) as (keyof typeof SERIES)[];
const WIDTH = 560;

export const death = figureOfRun({
  name: 'death',
  what: 'latency while one machine dies',
  minutes: 1.3,
  draw,
});

function draw(result: RunResult): Drawing {
  const cells = STRATEGIES.map(strategy => cellOf(result, `death ${strategy}`));
  const rows = cells.map(rowOf);
  return {
    rows,
    spec: framed({
      name: 'death',
      title: 'One of six machines dies holding a request, and stays dead',
      subtitle: 'A request every 100 ms; latency from when it was due. Each mark is a request.',
      description: `Latency over time before and after a machine is killed. ${rows
        .map(row => `${row['strategy']}: longest ${row['longest ms']} ms, ${row['lost']} lost`)
        .join('; ')}.`,
      emulated:
        'Emulated: each machine on 100 Mbit/s Ethernet, 0.2 ms each way, with a device of 0.1 Gflop/s; a fully connected layer 2000→2000. The kill is SIGKILL: its connection breaks and is seen at once.',
      width: WIDTH + 130,
      panels: [panel(cells)],
    }),
  };
}

function rowOf(cell: CellResult): Row {
  const { before, after } = aroundKill(cell);
  const answered = after.flatMap(({ ms }) => (ms === null ? [] : [ms]));
  const half = answered.slice(Math.floor(answered.length / 2));
  return {
    strategy: SERIES[cell.strategy as keyof typeof SERIES],
    blocks: cell.what,
    'before: p50 ms': rounded(
      percentile(
        before.flatMap(({ ms }) => (ms === null ? [] : [ms])),
        50,
      )!,
    ),
    'the request it held: ms': cell.faults[0] === undefined ? null : rounded(after[0]?.ms ?? 0),
    'longest ms': rounded(percentile(answered, 100)!),
    'afterwards: p50 ms': rounded(percentile(half, 50)!),
    lost: cell.lost,
  };
}

interface Request {
  /** Seconds from the kill. */
  readonly at: number;
  readonly ms: number | null;
}

function aroundKill({ name, samples: [sample], faults: [fault] }: CellResult): { before: Request[]; after: Request[] } {
  if (sample === undefined || fault === undefined) throw new Error(`nothing was killed in the cell "${name}"`);
  const killed = sample.atMs[fault.request]!;
  const requests = sample.atMs.map((at, i) => ({ at: (at - killed) / 1000, ms: sample.ms[i] ?? null }));
  return { before: requests.slice(0, fault.request), after: requests.slice(fault.request) };
}

function panel(cells: readonly CellResult[]): Panel {
  const names = STRATEGIES.map(strategy => SERIES[strategy]);
  const scales = seriesScales(names);
  const requests = cells.flatMap((cell, i) => {
    const { before, after } = aroundKill(cell);
    return [...before, ...after].map(request => ({ ...request, series: names[i]!, dash: names[i]! }));
  });
  const answered = requests.filter(({ ms }) => ms !== null);
  const from = -3;
  const to = 5;
  const shown = answered.filter(({ at: second }) => second >= from && second <= to);
  const times = shown.map(({ ms }) => ms!);
  const [least, most] = [Math.min(...times) / 1.2, Math.max(...times) * 1.35];
  const x = axis('at', { title: 'seconds from the kill', domain: [from, to], grid: false });
  const y = axis('ms', {
    title: 'latency, ms (log)',
    domain: [least, most],
    isLog: true,
    format: '~g',
    values: [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000],
  });
  const legend = { title: null, orient: 'right', labelLimit: 300 } as const;
  const color = { field: 'series', type: 'nominal', scale: scales.color, legend } as const;
  return {
    width: WIDTH,
    height: 260,
    layer: [
      {
        data: { values: [{ at: 0 }] },
        mark: { type: 'rule', color: '#1a1a1a', strokeWidth: 1.2, strokeDash: [3, 3] },
        encoding: { x },
      },
      label({ x: at(x, 0), y: { value: 10 } }, 'killed', { dx: 6 }),
      {
        data: { values: shown },
        mark: { type: 'line', strokeWidth: 1.3 },
        encoding: {
          x,
          y,
          color,
          strokeDash: { field: 'dash', type: 'nominal', scale: scales.dash, legend: null },
        },
      },
      {
        data: { values: shown },
        mark: { type: 'point', filled: true, size: 26, opacity: 1 },
        encoding: {
          x,
          y,
          color,
          shape: { field: 'series', type: 'nominal', scale: scales.shape, legend },
        },
      },
    ],
  };
}
