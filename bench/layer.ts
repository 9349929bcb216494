/**
 * layer: one coded layer from input to answer, engine included. `codedLayer().run()` on five workers, four of which it needs,
 * against the same shards opened by bare ONNX Runtime behind bare grpc-js in as many processes. Beside it: how long the event
 * loops of master and workers are held up meanwhile.
 */
import { codedLayer, type ConvLayer, type DenseLayer, type RunReport, type Spans } from 'kofn';
import { figure, type Bench, type BenchContext, type Figure } from './bench.js';
import { BareClients } from './harness/bare.js';
import { BareEngines } from './harness/bare-engines.js';
import { loopGapMsP99, watchLoop } from './harness/loop-gaps.js';
import { randomTensors } from './harness/random.js';
import { Workers } from './harness/workers.js';
import { interleaved, timed } from './statistics.js';

const WORKERS = 5;
const PARITY = 1;
const ROUNDS = 100;
const WARM_UP = 20;
/** What keepalives, cancellations and health questions may wait for the event loop. */
const GAP_LIMIT_MS = 20;

interface Case {
  readonly name: string;
  readonly layer: Pick<DenseLayer, 'type'> | Pick<ConvLayer, 'type' | 'pads'>;
  readonly weights: readonly number[];
  readonly input: readonly number[];
}

/** Of AlexNet (fc6, fc7, conv4) and ResNet18 (layer1). */
const CASES: readonly Case[] = [
  { name: 'FC 9216→4096', layer: { type: 'dense' }, weights: [4096, 9216], input: [1, 9216] },
  { name: 'FC 4096→4096', layer: { type: 'dense' }, weights: [4096, 4096], input: [1, 4096] },
  {
    name: 'conv 3x3 256→384, 13x13',
    layer: { type: 'conv', pads: [1, 1, 1, 1] },
    weights: [384, 256, 3, 3],
    input: [1, 256, 13, 13],
  },
  {
    name: 'conv 3x3 64→64, 56x56',
    layer: { type: 'conv', pads: [1, 1, 1, 1] },
    weights: [64, 64, 3, 3],
    input: [1, 64, 56, 56],
  },
];

export const layer: Bench = {
  name: 'layer',
  what: 'one coded layer, 4 of 5 workers, engine included; event-loop gaps meanwhile',
  baseline: 'the same shards in bare ONNX Runtime behind bare grpc-js; for gaps, a limit of 20 ms',
  async run(context) {
    await using workers = await Workers.start(WORKERS);
    await using engines = await BareEngines.start(WORKERS);
    const figures: Figure[] = [];
    const gaps = { master: 0, worker: 0 };
    for (const [index, one] of CASES.entries()) {
      const progress: BenchContext['progress'] = (done, total) =>
        context.progress(index * total + done, CASES.length * total);
      const measured = await measure(one, workers, engines, progress);
      figures.push(measured.figure);
      gaps.master = Math.max(gaps.master, measured.gaps.master);
      gaps.worker = Math.max(gaps.worker, measured.gaps.worker);
    }
    return [...figures, gapFigure('master', gaps.master), gapFigure('worker', gaps.worker)];
  },
  /** The critical path to the arrival that completed the decode set, from the reports. */
  async profile({ progress }) {
    await using workers = await Workers.start(WORKERS);
    const lines: string[] = [];
    for (const [index, one] of CASES.entries()) {
      lines.push(...(await profileOf(one, workers)));
      progress(index + 1, CASES.length);
    }
    return lines;
  },
};

async function profileOf({ name, layer: kind, weights, input: shape }: Case, { cluster }: Workers): Promise<string[]> {
  const random = randomTensors(1);
  await using layer = await codedLayer({ ...kind, weights: random(weights) }, { cluster, parity: PARITY });
  const input = random(shape);
  const reports: RunReport[] = [];
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    const { report } = await layer.run(input);
    if (round >= 0) reports.push(report);
  }
  const names = Object.keys(reports[0]!.spans) as (keyof Spans)[];
  const mean = (of: (report: RunReport) => number) => reports.reduce((sum, each) => sum + of(each), 0) / reports.length;
  const cells = names.map(span => mean(({ spans }) => spans[span]));
  const wall = mean(({ ms }) => ms);
  const sum = cells.reduce((total, ms) => total + ms, 0);
  const row = (values: readonly string[]) => `| ${values.join(' | ')} |`;
  return [
    `${name}, mean of ${ROUNDS}, ms`,
    row([...names, 'together', 'wall']),
    row([...cells, sum, wall].map(ms => ms.toFixed(2))),
    '',
  ];
}

async function measure(
  { name, layer: kind, weights, input: inputShape }: Case,
  workers: Workers,
  engines: BareEngines,
  progress: BenchContext['progress'],
): Promise<{ figure: Figure; gaps: { master: number; worker: number } }> {
  const random = randomTensors(1);
  const spec = { ...kind, weights: random(weights) };
  const input = random(inputShape);
  await using layer = await codedLayer(spec, { cluster: workers.cluster, parity: PARITY });
  await engines.open(workers, [inputShape]);
  using bare = new BareClients(engines.addresses);
  const message = Buffer.from(input.data.buffer);
  const codedRound = timed(() => layer.run(input));
  const bareRound = timed(() => bare.gather(message, WORKERS - PARITY));
  const samples = await interleaved(
    {
      value: async () => {
        const ms = await codedRound();
        await workers.settle();
        return ms;
      },
      baseline: async () => {
        const ms = await bareRound();
        await bare.idle();
        return ms;
      },
    },
    { rounds: ROUNDS, warmUp: WARM_UP, progress },
  );
  await workers.watchLoops();
  watchLoop();
  for (let round = 0; round < ROUNDS; round++) await layer.run(input);
  const gaps = { master: loopGapMsP99(), worker: await workers.loopGapMsP99() };
  return { figure: figure({ name, unit: 'ms', target: { atMost: 1.25 } }, samples), gaps };
}

/** Of the layer with the longest gaps. */
function gapFigure(whose: string, ms: number): Figure {
  return figure(
    { name: `${whose}'s event-loop gap p99`, unit: 'ms', target: { atMost: 1 } },
    { value: [ms], baseline: [GAP_LIMIT_MS] },
  );
}
