/** What it costs to survive one failure: machines, and the time that devices are busy, over the number of devices without it. */
import { seriesScales, type RunResult } from 'kofn/measure';
import { cellOf, figureOfRun, rounded, type Drawing, type Row } from './figure.js';
import { at, axis, framed, label, type Panel } from './picture.js';

const DEVICES = [2, 4, 6, 8, 10, 12];
const SERIES = ['2MR', 'CDC'] as const;

export const cost = figureOfRun({
  name: 'cost',
  what: 'what it costs to survive one failure, 2 to 12 devices',
  minutes: 2,
  draw,
});

interface Point {
  readonly devices: number;
  readonly series: string;
  readonly dash: string;
  readonly machines: number;
  readonly compute: number;
}

function draw(result: RunResult): Drawing {
  const rows: Row[] = [];
  const points: Point[] = [];
  for (const devices of DEVICES) {
    const uncoded = cellOf(result, `k = ${devices}`);
    const [replicated, coded] = ['2mr', 'cdc-1'].map(strategy => cellOf(result, `k = ${devices} ${strategy}`));
    for (const [i, cell] of [replicated!, coded!].entries()) {
      const series = SERIES[i]!;
      const compute = cell.busyMsPerRequest / uncoded.busyMsPerRequest;
      points.push({ devices, series, dash: series, machines: cell.workers - uncoded.workers, compute });
    }
    const of = (series: string) => points.findLast(point => point.series === series)!;
    rows.push({
      devices,
      'CDC: more machines': of('CDC').machines,
      '2MR: more machines': of('2MR').machines,
      'uncoded busy ms': rounded(uncoded.busyMsPerRequest),
      'CDC busy ms': rounded(coded!.busyMsPerRequest),
      '2MR busy ms': rounded(replicated!.busyMsPerRequest),
      'CDC compute': `${of('CDC').compute.toFixed(2)} x`,
      '2MR compute': `${of('2MR').compute.toFixed(2)} x`,
    });
  }
  const most = Math.max(...points.map(({ compute }) => compute));
  return {
    rows,
    spec: framed({
      name: 'cost',
      title: 'The price of surviving one failure',
      subtitle:
        'Left: machines beside those that the layer is split over. Right: time that all devices together are busy for a request, measured, over that without redundancy.',
      description: `Machines and compute by the number of devices. ${rows
        .map(row => `${row['devices']}: CDC ${row['CDC compute']}, 2MR ${row['2MR compute']}`)
        .join('; ')}.`,
      emulated:
        'Emulated: devices of 0.005 Gflop/s that do no arithmetic, a fully connected layer 500→2400, no fault. A run that has begun is not cancelled, so redundant runs count though nobody waits for them.',
      width: 700,
      panels: [
        panel(points, 'machines', 'more machines', [0, 13.5], [0, 2, 4, 6, 8, 10, 12]),
        panel(points, 'compute', 'busy time / uncoded', [1, Math.max(2.3, 1.1 * most)], [1, 1.25, 1.5, 1.75, 2]),
      ],
    }),
  };
}

function panel(
  points: readonly Point[],
  field: 'machines' | 'compute',
  title: string,
  domain: readonly [number, number],
  values: readonly number[],
): Panel {
  const scales = seriesScales(SERIES);
  const isMachines = field === 'machines';
  const x = axis('devices', {
    title: 'devices that the layer is split over',
    domain: [1.5, 12.5],
    values: DEVICES,
    grid: false,
  });
  const y = axis(field, { title, domain, values, ...(isMachines ? {} : { format: '.2f' }) });
  const color = { field: 'series', type: 'nominal', scale: scales.color, legend: null } as const;
  const words = (series: (typeof SERIES)[number], devices: number, text: string, mark: Record<string, unknown>) => {
    const point = points.find(each => each.series === series && each.devices === devices)!;
    return label({ x: at(x, devices), y: at(y, point[field]) }, text, mark);
  };
  return {
    width: 310,
    height: 220,
    layer: [
      {
        data: { values: [...points] },
        mark: { type: 'line' },
        encoding: { x, y, color, strokeDash: { field: 'dash', type: 'nominal', scale: scales.dash, legend: null } },
      },
      {
        data: { values: [...points] },
        mark: { type: 'point', filled: true, size: 60, opacity: 1 },
        encoding: { x, y, color, shape: { field: 'series', type: 'nominal', scale: scales.shape, legend: null } },
      },
      isMachines
        ? words('2MR', 8, '2MR: one for each device', { align: 'right', dx: -10, dy: -4 })
        : label({ x: at(x, 7), y: at(y, 1.86) }, '2MR: everything twice', { align: 'center' }),
      isMachines
        ? words('CDC', 8, 'CDC: one, whatever their number', { align: 'center', dy: -14 })
        : label({ x: at(x, 8.5), y: at(y, 1.36) }, 'CDC: one block more', { align: 'center' }),
    ],
  };
}
