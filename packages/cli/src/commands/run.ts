/** `kofn run MODEL`: validate everything, start or reach the workers, deploy, run, compare, tell. */
import { loadModel, type ValueInfo } from '@kofn/graph';
import { planModel, type CodedModel, type OnLoss, type RunReport } from '@kofn/master';
import { KofnError } from '@kofn/core';
import type { Tensors } from '@kofn/core';
import type { Kill } from '../options/arguments.js';
import { calibrated, compareOutputs, type ToleranceOf } from '../answers/compare.js';
import { EXIT_FAILED, EXIT_OK } from '../terminal/exit.js';
import { openInputs, takenInputs, type InputSource } from '../io/inputs.js';
import { checkKills } from '../workers/kill-plan.js';
import { OutputFolder } from '../io/output.js';
import { noteDecision } from '../terminal/plan-table.js';
import { note, openProgress } from '../terminal/progress.js';
import { Reference } from '../answers/reference.js';
import { formatMs, plural } from '../terminal/render.js';
import { runRequests } from '../answers/requests.js';
import { runSummary, runTables } from '../answers/run-summary.js';
import { codeOptions, workerCount, Workers } from '../workers/session.js';
import type { SharedArguments } from '../workers/shared-options.js';
import { Tally } from '../answers/tally.js';

export interface RunArguments extends SharedArguments {
  readonly requests: number;
  readonly deadline?: number;
  readonly onLoss: OnLoss;
  readonly compare?: boolean;
  readonly atol?: number;
  readonly rtol?: number;
  readonly output?: string;
  readonly kill?: readonly Kill[];
}

/** Returns the exit code. Throws what is wrong with the arguments before any process starts. */
export async function run(modelPath: string, args: RunArguments, signal: AbortSignal): Promise<number> {
  const { outputs, inputs } = await validate(modelPath, args, signal);
  const { requests, kill: kills = [] } = args;
  const output = args.output === undefined ? undefined : await OutputFolder.open(args.output, outputs, requests > 1);

  await using reference =
    args.compare === true
      ? await Reference.open(modelPath, { ...args, sample: inputs.forRequest(0), signal })
      : undefined;
  await using workers = await Workers.open(args, kills, signal);
  // Not disposed: the workers keep the shards for the next run, until their leases end.
  const coded = await workers.deploy(modelPath, {
    ...codeOptions(args),
    onLoss: args.onLoss,
    sampleInputs: inputs.forRequest(0),
    signal,
  });
  if (inputs.assumed !== undefined) note(inputs.assumed);
  noteDecision(coded.plan, args.layers);

  const { tally, lastReport } = await answerAll(coded, { args, inputs, output, reference, workers, signal });
  for (const { request, message } of tally.failures.slice(0, 3)) note(`request ${request} was lost: ${message}`);
  if (tally.failures.length > 3) note(`… and ${plural(tally.failures.length - 3, 'more request')} lost`);
  const { outcomes } = workers.kills;
  for (const { worker, request, hit, layer } of outcomes) {
    if (hit) continue;
    const why =
      layer === null ? 'no call of that request went to it (is a layer coded? --layers all)' : 'it had answered';
    note(`the kill of worker ${worker} at request ${request} did not hit: ${why}`);
  }
  const summary = runSummary({
    modelPath,
    coded,
    tally,
    kills: outcomes,
    cluster: workers.cluster,
    shardBytesSent: workers.sentBytes,
    reference,
    asked: args,
  });
  process.stdout.write(args.json ? `${JSON.stringify(summary)}\n` : `${runTables(summary, lastReport)}\n`);
  return tally.lost > 0 || tally.wrong > 0 || outcomes.some(({ hit }) => !hit) ? EXIT_FAILED : EXIT_OK;
}

/** Finds every mistake that can be found without a worker. Planning at assumed speeds checks parity, code, layers and the model. */
async function validate(
  modelPath: string,
  args: RunArguments,
  signal: AbortSignal,
): Promise<{ outputs: readonly ValueInfo[]; inputs: InputSource }> {
  if (args.compare !== true && (args.atol ?? args.rtol) !== undefined) {
    throw new KofnError('INVALID_ARGUMENT', '--atol and --rtol say how --compare judges: give it too');
  }
  const count = workerCount(args);
  if (count === undefined) {
    throw new KofnError('INVALID_ARGUMENT', 'no workers: give --workers HOST:PORT,HOST:PORT,… or --local N');
  }
  checkKills(args.kill ?? [], args.local, args.requests);
  const model = await loadModel(modelPath);
  const { mean, std, scale, layout } = args;
  const inputs = await openInputs(takenInputs(model, args.input), {
    files: args.input ?? [],
    seed: args.random,
    shapes: args.shape,
    image: { mean, std, scale, layout },
    checkFinite: args.checkFinite === true,
  });
  await planModel(modelPath, {
    ...codeOptions(args),
    workerCount: count,
    sampleInputs: inputs.forRequest(0),
    signal,
  });
  return { outputs: model.outputs, inputs }; // not the model: its weights would stay in memory
}

interface Answering {
  readonly args: RunArguments;
  readonly inputs: InputSource;
  readonly output: OutputFolder | undefined;
  readonly reference: Reference | undefined;
  readonly workers: Workers;
  readonly signal: AbortSignal;
}

async function answerAll(
  coded: CodedModel,
  { args, inputs, output, reference, workers, signal }: Answering,
): Promise<{ tally: Tally; lastReport: RunReport | undefined }> {
  const { requests, deadline: deadlineMs } = args;
  const tally = new Tally(requests);
  let lastReport: RunReport | undefined;
  let expected: Tensors | undefined;
  const toleranceOf = toleranceFor(args, reference);
  const audits: Promise<unknown>[] = [];
  using progress = openProgress(' running {bar} {value}/{total} | p50 {p50} ms', requests, { p50: '-' });
  const options = { count: requests, inputs: inputs.forRequest, deadlineMs, signal, kills: workers.kills };
  for await (const outcome of runRequests(coded, options)) {
    const { request } = outcome;
    if ('error' in outcome) tally.failed(request, outcome.error);
    else {
      const { outputs, report } = outcome.result;
      lastReport = report;
      if (outcome.result.audit !== undefined) audits.push(outcome.result.audit);
      tally.answered(report, request);
      await output?.write(request, outputs);
      if (reference !== undefined) {
        // Between requests, so that it takes no time of theirs. The same inputs need asking only once.
        if (inputs.drawn || expected === undefined) expected = await reference.run(inputs.forRequest(request));
        tally.compare(compareOutputs(outputs, expected, toleranceOf));
      }
    }
    progress.update(request + 1, () => ({ p50: formatMs(tally.recentP50Ms()) }));
  }
  await Promise.all(audits); // the last ones may still wait for replies
  return { tally, lastReport };
}

/** As asked for, or calibrated by what ONNX Runtime differs from itself. */
function toleranceFor({ atol, rtol }: RunArguments, reference: Reference | undefined): ToleranceOf {
  if (atol === undefined && rtol === undefined) return calibrated(reference?.differences ?? {});
  const asked = { atol: atol ?? 0, rtol: rtol ?? 0 };
  return () => asked;
}
