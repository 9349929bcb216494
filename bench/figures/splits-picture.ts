/** The picture of splits.ts: a row a split, a column a question. */
import { axis, framed, type Layer, type Panel } from './picture.js';
import type { SplitResult } from './splits.js';

const STEP = 34;
const BARS = 150;

export function splitsSpec({ splits, workers, rounds }: SplitResult) {
  const rows = splits.map(
    ({ layer, split, bytesIn, bytesOut, ms, msQuartiles: [low, high], wholeMs, isCodable, why }) => ({
      row: `${layer} ${split}`,
      layer,
      split,
      in: bytesIn / 1000,
      out: bytesOut / 1000,
      compute: ms / (wholeMs / workers),
      low: low! / (wholeMs / workers),
      high: high! / (wholeMs / workers),
      text: `${ms.toFixed(2)} ms`,
      codable: `${isCodable ? 'yes' : 'no'}:`,
      why,
    }),
  );
  const order = rows.map(({ row }) => row);
  const mostBytes = Math.max(...rows.flatMap(each => [each.in, each.out]));
  const mostCompute = Math.max(1, ...rows.map(({ high }) => high));
  const height = STEP * rows.length;
  const y = { field: 'row', type: 'nominal' as const, sort: order, axis: null };

  /** Bars with their figure behind them. */
  function bars(field: 'in' | 'out', title: string): Panel {
    const x = axis(field, { title, domain: [0, mostBytes * 1.3], grid: false });
    return {
      width: BARS,
      height,
      data: { values: rows },
      layer: [
        {
          mark: { type: 'bar', height: 13, color: '#56b4e9', stroke: '#1a1a1a', strokeWidth: 0.6 },
          encoding: { x, y },
        },
        {
          mark: { type: 'text', align: 'left', dx: 4, fontSize: 10 },
          encoding: { x, y, text: { field, type: 'quantitative', format: '.3~r' } },
        },
      ],
    };
  }

  const title = `compute / (whole layer / ${workers})`;
  const compute = axis('compute', { title, domain: [0, mostCompute * 1.5], grid: false });
  const text = (field: string, mark: object): Layer => ({
    data: { values: rows },
    mark: { type: 'text', align: 'left', fontSize: 10.5, ...mark },
    encoding: { x: { value: 0 }, y, text: { field, type: 'nominal' } },
  });
  return framed({
    name: 'splits',
    title: `Two layers of AlexNet, split over ${workers} workers in every way there is`,
    subtitle:
      'Each figure of the worker that has most of it. One parity block of the weights saves a lost worker only where all have the same input.',
    description: rows
      .map(
        row =>
          `${row.row}: ${row.in} kB in, ${row.out} kB out, compute ${row.compute.toFixed(2)}, codable by weights ${row.codable} ${row.why}`,
      )
      .join('; '),
    emulated: `Nothing is emulated: bytes follow from the shapes (float32, one image); compute is the sub-layer of one worker in ONNX Runtime on one thread of this machine, median and quartiles of ${rounds} runs.`,
    width: 1040,
    spacing: 18,
    panels: [
      {
        width: 170,
        height,
        view: { stroke: null },
        layer: [
          text('split', { fontWeight: 'bold', dy: -7 }),
          text('layer', { color: '#6b6b6b', fontSize: 10, dy: 7 }),
        ],
      },
      bars('in', 'kB to a worker'),
      bars('out', 'kB back from it'),
      {
        width: BARS,
        height,
        data: { values: rows },
        layer: [
          {
            data: { values: [{ one: 1 }] },
            mark: { type: 'rule', strokeDash: [3, 3], color: '#6b6b6b' },
            encoding: { x: { ...compute, field: 'one' } },
          },
          {
            mark: { type: 'rule', strokeWidth: 1.6 },
            encoding: { y, x: { ...compute, field: 'low' }, x2: { field: 'high' } },
          },
          {
            mark: { type: 'point', filled: true, size: 55, opacity: 1, color: '#0072b2' },
            encoding: { y, x: compute },
          },
          {
            mark: { type: 'text', align: 'left', dx: 8, fontSize: 10 },
            encoding: { y, x: { ...compute, field: 'high' }, text: { field: 'text', type: 'nominal' } },
          },
        ],
      },
      {
        width: 330,
        height,
        view: { stroke: null },
        title: { text: 'codable by weights?', fontSize: 11, fontWeight: 'normal', offset: 4 },
        layer: [text('codable', { fontWeight: 'bold' }), text('why', { dx: 28 })],
      },
    ],
  });
}
