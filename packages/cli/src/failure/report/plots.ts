/**
 * The pictures of a run. Of each group of cells that can be compared: how many requests took how long, and the 99th percentile with its
 * interval; of each cell that had faults: latency over time. What is drawn is in series.ts, how it looks in theme.ts.
 */
import type { CellResult, Estimate, RunResult } from '../result/result.js';
import { PERCENTILE_NAMES } from '../result/statistics.js';
import { groupsOf, msOf, seriesName, type Group } from './rows.js';
import { courseOf, tailMarks, tailOf } from './series.js';
import { INK, PALE, seriesScales, toSvg, type TopLevelSpec } from './theme.js';

export interface Plot {
  readonly kind: 'tail' | 'percentile' | 'course';
  /** The title of the group, or the name of the cell. */
  readonly of: string;
  readonly svg: string;
}

const WIDTH = 400;
const PERCENT_WORDS = { p50: 'median', p90: '90th percentile', p99: '99th percentile', p999: '99.9th percentile' };

/** All pictures of `result`, in the order of its tables. */
export async function plotsOf(result: RunResult): Promise<Plot[]> {
  // The same strategy looks the same in every picture.
  const strategies = [...new Set(groupsOf(result).flatMap(group => group.cells.map(cell => seriesName(cell, group))))];
  const plots: Plot[] = [];
  for (const group of groupsOf(result)) {
    const drawn: [Plot['kind'], string, TopLevelSpec | null][] = [
      ['percentile', group.title, percentileSpec(group, strategies)],
      ['tail', group.title, tailSpec(group, strategies)],
      ...group.cells.map((cell): [Plot['kind'], string, TopLevelSpec | null] => [
        'course',
        cell.name,
        courseSpec(cell),
      ]),
    ];
    for (const [kind, of, spec] of drawn) if (spec !== null) plots.push({ kind, of, svg: await toSvg(spec) });
  }
  return plots;
}

/** One line a strategy; null where no request was answered. */
export function tailSpec(group: Group, strategies: readonly string[]): TopLevelSpec | null {
  const of = (points: typeof tailOf) =>
    group.cells.flatMap(cell => {
      const strategy = seriesName(cell, group);
      return points(cell).map((point, order) => ({ ...point, order, strategy, dash: strategy }));
    });
  const points = of(tailOf);
  if (points.length === 0) return null;
  const present = presentOf(group, strategies);
  const least = Math.min(0.5, ...points.map(({ share }) => share));
  const scales = seriesScales(strategies);
  const axes = {
    x: logAxis('ms', 'latency, ms (log)', around(points.map(({ ms }) => ms))),
    y: {
      ...logAxis('share', 'share of requests that took longer (log)', [least, 1]),
      axis: { title: 'share of requests that took longer (log)', values: powersDownTo(least), format: '~%' },
    },
    color: {
      field: 'strategy',
      type: 'nominal' as const,
      scale: scales.color,
      legend: { values: present, title: null },
    },
  } as const;
  return {
    title: { text: 'How many requests took how long', subtitle: group.title },
    description:
      `Share of all requests that took longer than a latency, by strategy; lost requests count as slower than any. ` +
      group.cells.map(cell => `${seriesName(cell, group)}: ${summaryOf(cell)}`).join('; '),
    width: WIDTH,
    height: 300,
    layer: [
      {
        data: { values: points },
        mark: { type: 'line', interpolate: 'step-before' },
        encoding: {
          ...axes,
          order: { field: 'order', type: 'quantitative' },
          // The legend shows the shapes, which stand on the lines: a dash is too long for it. A field of its own keeps it out.
          strokeDash: { field: 'dash', type: 'nominal', scale: scales.dash, legend: null },
        },
      },
      {
        data: { values: of(tailMarks) },
        mark: { type: 'point', filled: true, size: 55, opacity: 1 },
        encoding: {
          ...axes,
          shape: { field: 'strategy', type: 'nominal', scale: scales.shape, legend: { values: present, title: null } },
        },
      },
    ],
  };
}

/** A dot and its interval a strategy, of the 99th percentile, or the highest that any cell has samples enough for. */
export function percentileSpec(group: Group, strategies: readonly string[]): TopLevelSpec | null {
  const name = PERCENTILE_NAMES.slice(0, 3).findLast(each => group.cells.some(cell => cell.latencyMs[each] !== null));
  if (name === undefined) return null;
  const values = group.cells.flatMap(cell => {
    const estimate: Estimate | null = cell.latencyMs[name];
    return estimate === null ? [] : [{ ...estimate, strategy: seriesName(cell, group), text: msOf(estimate.value) }];
  });
  const scales = seriesScales(strategies);
  const y = {
    field: 'strategy',
    type: 'nominal',
    sort: presentOf(group, strategies),
    axis: { title: null, domain: false, ticks: false },
  } as const;
  const color = { field: 'strategy', type: 'nominal', scale: scales.color, legend: null } as const;
  const [least, most] = around(values.flatMap(({ low, high }) => [low, high])) as [number, number];
  // Room for the figure behind the last interval.
  const domain = [least, most * (most / least) ** 0.12];
  const x = logAxis('value', 'ms (log), with the 95 % interval', domain);
  return {
    title: { text: `Latency, ${PERCENT_WORDS[name]}`, subtitle: group.title },
    description:
      `The ${PERCENT_WORDS[name]} of answered requests by strategy, with its 95 % interval. ` +
      values
        .map(({ strategy, value, low, high }) => `${strategy}: ${msOf(value)} ms (${msOf(low)} to ${msOf(high)})`)
        .join('; '),
    width: WIDTH,
    height: { step: 26 },
    data: { values },
    layer: [
      {
        mark: { type: 'rule', strokeWidth: 2 },
        encoding: { y, color, x: { ...x, field: 'low' }, x2: { field: 'high' } },
      },
      ...['low', 'high'].map(field => ({
        mark: { type: 'tick' as const, thickness: 2, size: 9 },
        encoding: { y, color, x: { ...x, field } },
      })),
      {
        mark: { type: 'point', filled: true, size: 70, opacity: 1 },
        encoding: { y, color, x, shape: { field: 'strategy', type: 'nominal', scale: scales.shape, legend: null } },
      },
      {
        mark: { type: 'text', dx: 7, align: 'left', fontSize: 10, color: INK },
        encoding: { y, x: { ...x, field: 'high' }, text: { field: 'text', type: 'nominal' } },
      },
    ],
  };
}

/** Latency over time with what happened in it; null of a cell without faults or answers. */
export function courseSpec(cell: CellResult): TopLevelSpec | null {
  const { moments, lost, faults, starts, seconds } = courseOf(cell);
  if (faults.length === 0 || moments.length === 0) return null;
  const [lowest, highest] = around(
    moments.flatMap(({ low, high }) => [low, high]),
    1.15,
  ) as [number, number];
  const at = {
    field: 'at',
    type: 'quantitative' as const,
    scale: { domain: [0, seconds], nice: false },
    axis: { title: `seconds${starts.length > 0 ? ', the repeats one after the other' : ''}`, grid: false },
  };
  const y = (field: string) => logAxis(field, 'latency, ms (log)', [lowest, highest]);
  const kinds = [...new Set(faults.map(({ kind }) => kind))];
  const labels = [...kinds, ...(lost.length > 0 ? ['lost request'] : [])];
  return {
    title: { text: 'Latency over time', subtitle: cell.name },
    description: `Latency over time: the median of each moment as a line, its fastest and slowest request as a band, ${cell.faults.length} faults as upright rules, ${cell.lost} lost requests as crosses. ${summaryOf(cell)}`,
    width: WIDTH + 200,
    height: 190,
    resolve: { scale: { color: 'independent', shape: 'independent', strokeDash: 'independent' } },
    layer: [
      { data: { values: starts }, mark: { type: 'rule', color: PALE, strokeWidth: 3 }, encoding: { x: at } },
      {
        data: { values: moments },
        mark: { type: 'area', color: '#c4c4c4', opacity: 1, line: false },
        encoding: {
          x: at,
          y: y('low'),
          y2: { field: 'high' },
          detail: { field: 'run', type: 'nominal' },
        },
      },
      {
        data: { values: faults },
        mark: { type: 'rule', color: '#d55e00', strokeWidth: 1.2 },
        encoding: {
          x: at,
          strokeDash: {
            field: 'kind',
            type: 'nominal',
            scale: {
              domain: kinds,
              range: kinds.map(
                (_, i) =>
                  [
                    [4, 3],
                    [1, 2],
                    [8, 2, 2, 2],
                    [1, 0],
                    [12, 3],
                  ][i % 5]!,
              ),
            },
            legend: { title: 'fault', symbolStrokeColor: '#d55e00' },
          },
        },
      },
      {
        data: { values: moments },
        mark: { type: 'line', color: INK, strokeWidth: 1.4 },
        encoding: { x: at, y: y('mid'), detail: { field: 'run', type: 'nominal' } },
      },
      ...(lost.length === 0 ? [] : [crosses()]),
    ],
  };

  function crosses() {
    return {
      data: { values: lost.map(each => ({ ...each, ms: highest, what: labels.at(-1)! })) },
      mark: { type: 'point' as const, color: INK, filled: false, size: 46, strokeWidth: 1.8, opacity: 1, yOffset: 7 },
      encoding: {
        x: at,
        y: y('ms'),
        shape: {
          field: 'what',
          type: 'nominal' as const,
          scale: { range: ['M-1,-1L1,1M-1,1L1,-1'] },
          legend: { title: null, symbolStrokeColor: INK },
        },
      },
    };
  }
}

const presentOf = (group: Group, strategies: readonly string[]) =>
  strategies.filter(name => group.cells.some(cell => seriesName(cell, group) === name));

function summaryOf({ latencyMs: { p50, p99, max }, lost }: CellResult): string {
  return `median ${msOf(p50?.value ?? null)}, p99 ${msOf(p99?.value ?? null)}, longest ${msOf(max)} ms, ${lost} lost`;
}

/** A position on a logarithmic axis, in plain figures. */
function logAxis(field: string, title: string, domain: number[]) {
  return {
    field,
    type: 'quantitative' as const,
    scale: { type: 'log' as const, domain, nice: false },
    axis: { title, format: '~g', labelOverlap: true, tickCount: 6 },
  };
}

/** A domain for a log axis that holds `values` with some room; never empty, even when all are alike. */
function around(values: readonly number[], room = 1.05): number[] {
  const positive = values.filter(value => value > 0);
  const least = positive.reduce((a, b) => Math.min(a, b), Infinity);
  return Number.isFinite(least) ? [least / room, positive.reduce((a, b) => Math.max(a, b)) * room] : [0.1, 1];
}

function powersDownTo(least: number): number[] {
  const powers = [1, 0.5];
  for (let power = 0.1; power >= least * 0.999; power /= 10) powers.push(Number(power.toPrecision(1)));
  return powers;
}
