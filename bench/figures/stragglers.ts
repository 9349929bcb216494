/** What waiting for k of n gains over waiting for all, as stalls become more frequent, and where it stops to. */
import { answeredOf, percentile, ratioOf, seriesScales, type RunResult } from 'kofn/measure';
import { cellOf, figureOfRun, rounded, type Drawing, type Row } from './figure.js';
import { mean, meanRatio, type Interval } from './mean-ratio.js';
import { at, axis, framed, label, type Layer, type Panel } from './picture.js';

const RATES = [0.1, 0.3, 1, 2, 5, 10];
const SERIES = ['mean latency', '95th percentile'] as const;
const WIDTH = 520;

export const stragglers = figureOfRun({
  name: 'stragglers',
  what: 'waiting for 4 of 5 against waiting for 5, over the rate of stalls',
  minutes: 7,
  draw,
});

interface Point {
  /** Percent of messages. */
  readonly rate: number;
  readonly gain: Readonly<Record<(typeof SERIES)[number], Interval | null>>;
}

function draw(result: RunResult): Drawing {
  const points: Point[] = [];
  const rows: Row[] = [];
  for (const rate of RATES) {
    const [uncoded, coded] = ['uncoded', 'cdc-1'].map(strategy => cellOf(result, `stalls ${rate} % ${strategy}`));
    const [all, some] = [answeredOf(uncoded!), answeredOf(coded!)];
    const gain = { 'mean latency': meanRatio(all, some), '95th percentile': ratioOf(all, some, 95) };
    points.push({ rate, gain });
    rows.push({
      'stalls, % of messages': rate,
      'uncoded mean ms': rounded(mean(all.flat())),
      'CDC mean ms': rounded(mean(some.flat())),
      'gain of the mean': intervalText(gain['mean latency']),
      'uncoded p95 ms': rounded(percentile(all.flat(), 95)!),
      'CDC p95 ms': rounded(percentile(some.flat(), 95)!),
      'gain of p95': intervalText(gain['95th percentile']),
    });
  }
  return {
    rows,
    spec: framed({
      name: 'stragglers',
      title: 'Waiting for four of five against waiting for all five',
      subtitle: 'Latency uncoded over latency with one parity block, on as many machines. Above 1 the code wins.',
      description: `Gain of a code over the share of messages that stall. ${rows
        .map(row => `${row['stalls, % of messages']} %: mean ${row['gain of the mean']}, p95 ${row['gain of p95']}`)
        .join('; ')}.`,
      emulated:
        'Emulated: devices of 0.05 Gflop/s that do no arithmetic, a fully connected layer 1000→1000; a stalled machine’s link is silent for 25-50 ms, and requests come every 60 ms. Bars: 95 % intervals.',
      width: WIDTH + 90,
      panels: [panel(points)],
    }),
  };
}

function intervalText(interval: Interval | null): string {
  if (interval === null) return '–';
  const [value, low, high] = [interval.value, interval.low, interval.high].map(edge => edge.toFixed(2));
  return `${value} (${low}–${high})`;
}

function panel(points: readonly Point[]): Panel {
  const scales = seriesScales(SERIES);
  const values = SERIES.flatMap((series, i) =>
    points.flatMap(({ rate, gain }) => {
      const interval = gain[series];
      // A little apart, so that bars do not cover each other.
      return interval === null ? [] : [{ rate: rate * (i === 0 ? 0.97 : 1.03), ...interval, series, dash: series }];
    }),
  );
  const most = Math.max(...values.map(({ high }) => high)) * 1.3;
  const least = Math.min(0.6, ...values.map(({ low }) => low * 0.8));
  const domain = [0.08, 12.5] as const;
  const x = axis('rate', {
    title: 'messages that stall, % (log)',
    domain,
    isLog: true,
    values: RATES,
    format: '~g',
    grid: false,
  });
  const y = axis('value', {
    title: 'latency uncoded / coded (log)',
    domain: [least, most],
    isLog: true,
    values: [0.5, 0.7, 1, 1.4, 2, 3, 4, 6],
    format: '~g',
  });
  const color = { field: 'series', type: 'nominal', scale: scales.color, legend: null } as const;
  const place = (rate: number, gain: number) => ({ x: at(x, rate), y: at(y, gain) });
  const crossing = crossingOf(points);
  return {
    width: WIDTH,
    height: 280,
    layer: [
      {
        data: { values: [{ from: domain[0], to: domain[1], low: least, high: 1 }] },
        mark: { type: 'rect', color: '#efefef' },
        encoding: { x: { ...x, field: 'from' }, x2: { field: 'to' }, y: { ...y, field: 'low' }, y2: { field: 'high' } },
      },
      ...(crossing === null ? [] : crossed(crossing)),
      {
        data: { values },
        mark: { type: 'rule', strokeWidth: 1.4 },
        encoding: { x, color, y: { ...y, field: 'low' }, y2: { field: 'high' } },
      },
      {
        data: { values },
        mark: { type: 'line' },
        encoding: { x, y, color, strokeDash: { field: 'dash', type: 'nominal', scale: scales.dash, legend: null } },
      },
      {
        data: { values },
        mark: { type: 'point', filled: true, size: 60, opacity: 1 },
        encoding: { x, y, color, shape: { field: 'series', type: 'nominal', scale: scales.shape, legend: null } },
      },
      ...SERIES.flatMap(series => {
        const last = values.findLast(value => value.series === series);
        const other = values.findLast(value => value.series !== series);
        // Apart, where they end near each other.
        const isNear =
          other !== undefined && Math.abs(Math.log(other.value / last!.value)) < 0.07 * Math.log(most / least);
        const dy = isNear ? (last!.value > other.value ? -7 : 7) : 0;
        return last === undefined ? [] : [label(place(last.rate, last.value), series, { dx: 16, dy })];
      }),
      label(place(0.085, least), 'the code costs: blocks of a quarter, not a fifth', { dy: -9 }),
      label(place(domain[1], most), ['two of five stall at once', 'more and more often'], {
        align: 'right',
        dx: -8,
        dy: 12,
      }),
    ],
  };

  /** Where the mean passes 1. */
  function crossed(rate: number): Layer[] {
    return [
      {
        data: { values: [{ rate, low: least, high: 1 }] },
        mark: { type: 'rule', color: '#6b6b6b', strokeDash: [2, 3] },
        encoding: { x, y: { ...y, field: 'low' }, y2: { field: 'high' } },
      },
      label(place(rate, least), ['it pays in the mean', `from ${rounded(rate, 2)} %`], {
        align: 'right',
        dx: -6,
        dy: -42,
      }),
    ];
  }
}

/** From where on the gain of the mean is above 1, between the rates that were measured; null where it is nowhere, or everywhere. */
function crossingOf(points: readonly Point[]): number | null {
  const gainOf = (point: Point) => point.gain['mean latency']!.value;
  const last = points.findLastIndex(point => gainOf(point) < 1);
  const [before, after] = [points[last], points[last + 1]];
  if (before === undefined || after === undefined) return null;
  const share = (1 - gainOf(before)) / (gainOf(after) - gainOf(before));
  return before.rate * (after.rate / before.rate) ** share;
}
