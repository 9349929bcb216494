/** When the replies of four workers come that each have a quarter of every layer of AlexNet, and how late the last of four is. */
import { percentile, seriesScales, type RunResult } from 'kofn/measure';
import { cellOf, figureOfRun, rounded, type Drawing, type Row } from './figure.js';
import { axis, framed, type Panel } from './picture.js';

const WORKERS = 4;
const CONVOLUTIONS = 5;
const LAYERS = 8;
const BIN_MS = 50;
const PARTS = ['fully connected layers', 'convolutions'] as const;
const ORDERS = ['each reply', 'the third of the four', 'the last of the four'] as const;

export const arrivals = figureOfRun({
  name: 'arrivals',
  what: 'when replies come, four workers, AlexNet on Wi-Fi',
  minutes: 2.5,
  draw,
});

function draw(result: RunResult): Drawing {
  const all = callsOf(result, 'all layers');
  const dense = callsOf(result, 'fully connected');
  const isConvolution = (call: number) => call % LAYERS < CONVOLUTIONS;
  const parts = {
    convolutions: all.filter((_, call) => isConvolution(call)).flat(),
    'fully connected layers': all.filter((_, call) => !isConvolution(call)).flat(),
  };
  const byOrder = {
    'each reply': dense.flat(),
    'the third of the four': dense.map(call => call[WORKERS - 2]!),
    'the last of the four': dense.map(call => call[WORKERS - 1]!),
  };
  const rows = [
    rowOf('whole network: convolutions', parts.convolutions),
    rowOf('whole network: fully connected', parts['fully connected layers']),
    ...ORDERS.map(order => rowOf(`fully connected alone: ${order}`, byOrder[order])),
  ];
  const [replies, , last] = ORDERS.map(order => percentile(byOrder[order], 99)!);
  return {
    rows,
    spec: framed({
      name: 'arrivals',
      title: 'When replies arrive: four workers, a quarter of every layer each, without a code',
      subtitle:
        'Who waits for all four waits for the slowest. Left: every layer. Right: the fully connected layers alone, many requests.',
      description:
        `Left, a histogram of arrival times of ${all.length * WORKERS} replies; right, the share of replies of the fully connected layers that came ` +
        `later than a time, on logarithmic axes: one in a hundred replies is later than ${rounded(replies!)} ms, one in a hundred of the last of four later than ${rounded(last!)} ms.`,
      emulated:
        "Emulated: 802.11n, 20 Mbit/s shared by all in both directions, 5 ms each way + lognormal jitter, 2 % of frames stall 50-500 ms in bursts; devices of 5 Gflop/s. AlexNet's shapes, random weights.",
      width: 780,
      panels: [histogram(parts), tail(byOrder)],
    }),
  };
}

/** Of each layer of each request in order, the arrivals of its replies, ascending. */
function callsOf(result: RunResult, name: string): number[][] {
  const ms = cellOf(result, name).arrivals?.ms ?? [];
  if (ms.length === 0 || ms.length % WORKERS !== 0) throw new Error(`the cell "${name}" has ${ms.length} arrivals`);
  return Array.from({ length: ms.length / WORKERS }, (_, call) =>
    ms.slice(call * WORKERS, (call + 1) * WORKERS).sort((a, b) => a - b),
  );
}

function rowOf(what: string, values: readonly number[]): Row {
  const at = (percent: number) => Math.round(percentile(values, percent)!);
  return {
    arrivals: what,
    count: values.length,
    'p50 ms': at(50),
    'p90 ms': at(90),
    'p99 ms': at(99),
    'max ms': at(100),
  };
}

function histogram(parts: Readonly<Record<(typeof PARTS)[number], readonly number[]>>): Panel {
  const count = PARTS.reduce((sum, part) => sum + parts[part].length, 0);
  const values = PARTS.flatMap((part, order) => {
    const bins = new Map<number, number>();
    for (const ms of parts[part]) bins.set(Math.floor(ms / BIN_MS), (bins.get(Math.floor(ms / BIN_MS)) ?? 0) + 1);
    return [...bins].map(([bin, found]) => ({
      from: bin * BIN_MS,
      to: (bin + 1) * BIN_MS,
      share: found / count,
      part,
      order,
    }));
  });
  return {
    width: 350,
    height: 240,
    data: { values },
    mark: { type: 'bar', stroke: '#1a1a1a', strokeWidth: 0.6, binSpacing: 0 },
    encoding: {
      x: {
        field: 'from',
        type: 'quantitative',
        bin: { binned: true, step: BIN_MS },
        axis: { title: 'ms after the layer was sent out', grid: false, tickCount: 8 },
      },
      x2: { field: 'to' },
      y: {
        field: 'share',
        type: 'quantitative',
        stack: 'zero',
        axis: { title: 'share of replies', format: '~%', grid: false },
      },
      order: { field: 'order', type: 'quantitative' },
      color: {
        field: 'part',
        type: 'nominal',
        scale: { domain: [...PARTS], range: ['#0072b2', '#f5d9a8'] },
        legend: {
          title: null,
          orient: 'none',
          legendX: 190,
          legendY: 10,
          labelLimit: 300,
          symbolType: 'square',
          symbolStrokeColor: '#1a1a1a',
          symbolStrokeWidth: 0.6,
        },
      },
    },
  };
}

function tail(byOrder: Readonly<Record<(typeof ORDERS)[number], readonly number[]>>): Panel {
  const scales = seriesScales(ORDERS);
  const points = ORDERS.flatMap(series => {
    const sorted = [...byOrder[series]].sort((a, b) => a - b);
    return sorted.map((ms, index) => ({ ms, share: (sorted.length - index) / sorted.length, series, dash: series }));
  });
  const least = Math.min(...points.map(({ share }) => share));
  const most = Math.max(...points.map(({ ms }) => ms));
  const fewest = Math.min(...points.map(({ ms }) => ms));
  const x = axis('ms', {
    title: 'ms after the layer was sent out (log)',
    domain: [fewest * 0.95, most * 1.05],
    isLog: true,
    format: '~g',
    values: [20, 50, 100, 200, 500, 1000, 2000],
    grid: false,
  });
  const y = axis('share', {
    title: 'share that came later (log)',
    domain: [least, 1],
    isLog: true,
    values: [1, 0.1, 0.01, 0.001, 0.0001],
    format: '~%',
  });
  const legend = { title: null, orient: 'none', legendX: 205, legendY: 5, labelLimit: 300 } as const;
  const color = { field: 'series', type: 'nominal', scale: scales.color, legend } as const;
  const marks = ORDERS.flatMap(series =>
    [0.5, 0.1, 0.01].map(share => ({ ms: percentile(byOrder[series], 100 * (1 - share))!, share, series })),
  );
  return {
    width: 350,
    height: 240,
    layer: [
      {
        data: { values: points },
        mark: { type: 'line', interpolate: 'step-before' },
        encoding: {
          x,
          y,
          order: { field: 'ms', type: 'quantitative' },
          color,
          strokeDash: { field: 'dash', type: 'nominal', scale: scales.dash, legend: null },
        },
      },
      {
        data: { values: marks },
        mark: { type: 'point', filled: true, size: 55, opacity: 1 },
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
