/** `kofn plan MODEL`: what would be coded and why; measured on workers when there are any. */
import { loadModel } from '@kofn/graph';
import { planModel, type Plan } from '@kofn/master';
import { KofnError } from '@kofn/core';
import type { Tensors } from '@kofn/core';
import { EXIT_OK } from '../exit.js';
import { openInputs, takenInputs } from '../inputs.js';
import { nothingPays, planTable, planTotals, planWords, segmentWords } from '../plan-table.js';
import { codeOptions, workerCount, Workers } from '../session.js';
import type { SharedArguments } from '../shared-options.js';

/** Planned for when no workers are given. */
export const ASSUMED_WORKERS = 5;

/** Returns the exit code. Throws what is wrong with the arguments before any process starts. */
export async function plan(modelPath: string, args: SharedArguments, signal: AbortSignal): Promise<number> {
  const count = workerCount(args);
  const sampleInputs = await sampleInputsOf(modelPath, args);
  const options = { ...codeOptions(args), ...(sampleInputs === undefined ? {} : { sampleInputs }), signal };
  // Without workers this is the answer; with them it finds every mistake before one is started.
  let made = await planModel(modelPath, { ...options, workerCount: count ?? ASSUMED_WORKERS });
  if (count !== undefined) {
    await using workers = await Workers.open(args, [], signal);
    made = await planModel(modelPath, { ...options, cluster: workers.cluster });
  }
  process.stdout.write(
    args.json ? `${JSON.stringify(planObject(modelPath, made, count, args))}\n` : planText(made, count, args),
  );
  return EXIT_OK;
}

function planObject(modelPath: string, made: Plan, count: number | undefined, { layers }: SharedArguments) {
  return {
    model: modelPath,
    workers: count ?? ASSUMED_WORKERS,
    speeds: made.speeds,
    totals: planTotals(made),
    layers: made.layers,
    segments: made.segments,
    suggestion: nothingPays(made, layers) ? '--layers all' : null,
  };
}

function planText(made: Plan, count: number | undefined, { layers }: SharedArguments): string {
  const workers =
    count === undefined
      ? [`No workers were given: planned for ${ASSUMED_WORKERS}. With --workers or --local N the figures are measured.`]
      : [];
  return [planTable(made), ...planWords(made, layers), ...segmentWords(made), ...workers, ''].join('\n');
}

/** Inputs to profile with; undefined for zeros, which only a model with fixed sizes (but the first) can take. */
export async function sampleInputsOf(modelPath: string, args: SharedArguments): Promise<Tensors | undefined> {
  const { mean, std, scale, layout, random: seed, input: files = [], checkFinite = false } = args;
  const expected = takenInputs(await loadModel(modelPath), files);
  if (files.length > 0 || seed !== undefined) {
    const inputs = await openInputs(expected, { files, seed, image: { mean, std, scale, layout }, checkFinite });
    return inputs.forRequest(0);
  }
  const open = expected.find(({ shape }) => shape.slice(1).some(size => typeof size !== 'number'));
  if (open === undefined) return undefined;
  throw new KofnError(
    'INVALID_ARGUMENT',
    `input "${open.name}" has the open shape [${open.shape.join(',')}]; give an example of it, ` +
      `--input ${open.name}=FILE, or --random SEED, which takes 1 for each open size`,
  );
}
