/**
 * layer: one coded layer from input to answer, engine included. `codedLayer().run()` on five workers, four of which it needs,
 * against the same shards opened by bare ONNX Runtime behind bare grpc-js in as many processes. Beside it: how long the event
 * loops of master and workers are held up meanwhile.
 */
import { codedLayer, type RunReport, type Spans } from 'kofn';
import { figure, type Bench, type BenchContext, type Figure } from './bench.js';
import { BareClients } from './harness/bare.js';
import { BareEngines } from './harness/bare-engines.js';
import { LAYERS, specOf, type MeasuredLayer } from './harness/layers.js';
import { loopGapMsP99, watchLoop } from './harness/loop-gaps.js';
import { randomTensors } from './harness/random.js';
import { Workers } from './harness/workers.js';
import { interleaved, settled, timed } from './statistics.js';

const WORKERS = 5;
const PARITY = 1;
const ROUNDS = 100;
const WARM_UP = 20;
/** What keepalives, cancellations and health questions may wait for the event loop. */
const GAP_LIMIT_MS = 20;

export const layer: Bench = {
  name: 'layer',
  what: 'one coded layer, 4 of 5 workers, engine included; event-loop gaps meanwhile',
  baseline: 'the same shards in bare ONNX Runtime behind bare grpc-js; for gaps, a limit of 20 ms',
  async run(context) {
    await using workers = await Workers.start(WORKERS);
    await using engines = await BareEngines.start(WORKERS);
    const figures: Figure[] = [];
    const gaps = { master: 0, worker: 0 };
    for (const [index, one] of LAYERS.entries()) {
      const progress: BenchContext['progress'] = (done, total) =>
        context.progress(index * total + done, LAYERS.length * total);
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
    for (const [index, one] of LAYERS.entries()) {
      lines.push(...(await profileOf(one, workers)));
      progress(index + 1, LAYERS.length);
    }
    return lines;
  },
};

async function profileOf({ name, weights, input: shape }: MeasuredLayer, { cluster }: Workers): Promise<string[]> {
  const random = randomTensors(1);
  await using layer = await codedLayer(specOf(random(weights)), { cluster, parity: PARITY });
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
  { name, weights, input: inputShape }: MeasuredLayer,
  workers: Workers,
  engines: BareEngines,
  progress: BenchContext['progress'],
): Promise<{ figure: Figure; gaps: { master: number; worker: number } }> {
  const random = randomTensors(1);
  const spec = specOf(random(weights));
  const input = random(inputShape);
  await using layer = await codedLayer(spec, { cluster: workers.cluster, parity: PARITY });
  await engines.open(workers, [inputShape]);
  using bare = new BareClients(engines.addresses);
  const message = Buffer.from(input.data.buffer);
  const samples = await interleaved(
    {
      value: settled(
        timed(() => layer.run(input)),
        () => workers.settle(),
      ),
      baseline: settled(
        timed(() => bare.gather(message, WORKERS - PARITY)),
        () => bare.idle(),
      ),
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
