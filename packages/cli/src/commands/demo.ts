/**
 * `kofn demo`: a trained network on five workers of this machine, one killed while it holds a request. Twice: coded (4 data
 * blocks, 1 parity block), and uncoded (5 data blocks, no recovery), which is what splitting a network over machines is
 * without a code.
 */
import type { Tensors } from '@kofn/core';
import { loadDemoData, type DemoData } from '../demo/demo-data.js';
import { DEMO_WORKERS, demoPass, KILLED_WORKER, type DemoFigures } from '../demo/demo-pass.js';
import { EXIT_FAILED, EXIT_OK } from '../terminal/exit.js';
import { note, openProgress } from '../terminal/progress.js';
import { Reference } from '../answers/reference.js';
import { formatError, formatMs, table, verdict } from '../terminal/render.js';

export interface DemoArguments {
  readonly requests: number;
  readonly json?: boolean;
}

/** Returns the exit code: 1 when the coded pass lost or changed an answer, or the kill did not hit. */
export async function demo({ requests, json }: DemoArguments, signal: AbortSignal): Promise<number> {
  const data = await loadDemoData();
  note(`Classifying ${requests} Fashion-MNIST pictures on ${DEMO_WORKERS} worker processes;`);
  note(`worker ${KILLED_WORKER} is killed (SIGKILL) while it holds request ${Math.floor(requests / 3)}.`);
  const expected = await uncodedLogits(data, requests, signal);
  const shared = { requests, data, expected, signal };
  note(`1/2 coded: any 4 of ${DEMO_WORKERS} answers are enough`);
  const coded = await demoPass({ ...shared, label: 'coded  ', parity: 1, onLoss: 'local' });
  note(`2/2 uncoded, no recovery: all ${DEMO_WORKERS} answers are needed`);
  const uncoded = await demoPass({ ...shared, label: 'uncoded', parity: 0, onLoss: 'fail' });
  const good = coded.lost === 0 && coded.wrong === 0 && coded.kill.hit;
  process.stdout.write(json ? `${JSON.stringify({ ...coded, coded, uncoded })}\n` : `${demoTable(coded, uncoded)}\n`);
  if (!good) note('The coded pass lost or changed an answer, or the kill did not hit: this should not be.');
  return good ? EXIT_OK : EXIT_FAILED;
}

/** What ONNX Runtime answers to each picture with the model as it is. */
async function uncodedLogits(data: DemoData, requests: number, signal: AbortSignal): Promise<Tensors[]> {
  await using reference = await Reference.open(data.modelPath, { signal });
  using progress = openProgress(' uncoded answers to compare with {bar} {value}/{total}', requests);
  const expected: Tensors[] = [];
  for (let request = 0; request < requests; request++) {
    expected.push(await reference.run(data.inputs(request)));
    progress.update(request + 1);
  }
  return expected;
}

function demoTable(coded: DemoFigures, uncoded: DemoFigures): string {
  const row = (name: string, cell: (figures: DemoFigures) => string) => [name, cell(coded), cell(uncoded)];
  const beforeAfter = ({ before, after }: DemoFigures['p50Ms']) => `${formatMs(before)} / ${formatMs(after)}`;
  const rows = [
    row('blocks k + r', ({ k, r }) => `${k} + ${r}`),
    row('requests', ({ requests }) => String(requests)),
    row('lost', ({ lost }) => verdict(String(lost), lost === 0)),
    row('wrong (against ONNX Runtime)', ({ wrong }) => verdict(String(wrong), wrong === 0)),
    row('largest relative error', ({ maxRelError }) => formatError(maxRelError)),
    row('accuracy over all requests', ({ accuracy }) => `${(accuracy * 100).toFixed(1)} %`),
    row('blocks recovered, lost / late', ({ recovered }) => `${recovered.lost} / ${recovered.late}`),
    row('p50 ms, before / after the kill', ({ p50Ms }) => beforeAfter(p50Ms)),
    row('p99 ms, before / after the kill', ({ p99Ms }) => beforeAfter(p99Ms)),
    row('the killed request, ms', ({ killedRequestMs }) =>
      killedRequestMs === null ? 'lost' : formatMs(killedRequestMs),
    ),
    row('worker died holding its request', ({ kill }) => (kill.hit ? 'yes' : verdict('no', false))),
  ];
  return table(
    [`worker ${coded.kill.worker} killed at request ${coded.kill.request}`, 'coded', 'uncoded, no recovery'],
    rows,
  );
}
