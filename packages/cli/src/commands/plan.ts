/** `kofn plan MODEL`: what would be coded and why; measured on workers when there are any. */
import { loadModel } from '@kofn/graph';
import { planModel, zeroInputs, type Plan } from '@kofn/master';
import { formatShape, KofnError, type Tensors } from '@kofn/core';
import { EXIT_OK } from '../terminal/exit.js';
import { assumedSizes, openInputs, shapeExample, takenInputs, withShapes } from '../io/inputs.js';
import { nothingPays, planTable, planTotals, planWords, segmentWords } from '../terminal/plan-table.js';
import { note } from '../terminal/progress.js';
import { codeOptions, workerCount, Workers } from '../workers/session.js';
import type { SharedArguments } from '../workers/shared-options.js';

/** Planned for when no workers are given. */
export const ASSUMED_WORKERS = 5;

/** Returns the exit code. Throws what is wrong with the arguments before any process starts. */
export async function plan(modelPath: string, args: SharedArguments, signal: AbortSignal): Promise<number> {
  const count = workerCount(args);
  const { sampleInputs, assumed } = await sampleInputsOf(modelPath, args);
  const options = { ...codeOptions(args), sampleInputs, signal };
  // Without workers this is the answer; with them it finds every mistake before one is started.
  let made = await planModel(modelPath, { ...options, workerCount: count ?? ASSUMED_WORKERS });
  if (count !== undefined) {
    await using workers = await Workers.open(args, [], signal);
    made = await planModel(modelPath, { ...options, cluster: workers.cluster });
  }
  if (assumed !== undefined) note(assumed);
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
    notes: made.notes,
    suggestion: nothingPays(made, layers) ? '--layers all' : null,
  };
}

function planText(made: Plan, count: number | undefined, { layers }: SharedArguments): string {
  const workers =
    count === undefined
      ? [`No workers were given: planned for ${ASSUMED_WORKERS}. With --workers or --local N the figures are measured.`]
      : [];
  return [planTable(made), ...planWords(made, layers), ...segmentWords(made), ...made.notes, ...workers, ''].join('\n');
}

export interface SampleInputs {
  readonly sampleInputs: Tensors;
  /** Sizes that nobody gave, in a line for the user. */
  readonly assumed: string | undefined;
}

/** Inputs to profile with: those that are given, or zeros, which only a model with fixed sizes (but the first) can take. */
export async function sampleInputsOf(modelPath: string, args: SharedArguments): Promise<SampleInputs> {
  const { mean, std, scale, layout, random: seed, shape: shapes, input: files = [], checkFinite = false } = args;
  const expected = takenInputs(await loadModel(modelPath), files);
  if (files.length > 0 || seed !== undefined) {
    const image = { mean, std, scale, layout };
    const { forRequest, assumed } = await openInputs(expected, { files, seed, shapes, image, checkFinite });
    return { sampleInputs: forRequest(0), assumed };
  }
  const shaped = withShapes(expected, shapes);
  const open = shaped.find(({ shape }) => shape.slice(1).some(size => typeof size !== 'number'));
  if (open === undefined) {
    const sampleInputs = zeroInputs(shaped);
    return { sampleInputs, assumed: assumedSizes(shaped, sampleInputs) };
  }
  throw new KofnError(
    'INVALID_ARGUMENT',
    `input "${open.name}" has the open shape ${formatShape(open.shape)}; give its sizes, ` +
      `--shape ${open.name}=${shapeExample(open)}, or an example, --input ${open.name}=FILE`,
  );
}
