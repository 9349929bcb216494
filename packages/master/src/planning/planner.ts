/**
 * Decides what is coded. A layer is coded when it was chosen and can be; with `layers: 'auto'` also only when it pays:
 *
 *   local ms > round trip + bytes / rate + shard ms
 *
 * where bytes are the input to n workers and k replies (they share the master's link), and a shard takes 1/k of the
 * layer's time (blocks padded to equal size), scaled by a worker's speed beside the master's: that of the slowest of the k fastest,
 * for so many answers are needed (measure.ts).
 */
import { elementCount, KofnError, type Shape, type Tensor, type Tensors } from '@kofn/core';
import { createCode, partition } from '@kofn/encoder';
import type { Engine } from '@kofn/engine';
import { cutModel, findCodable, profile, type CodableReport, type Cut, type SegmentStep } from '@kofn/graph';
import type { Clock } from '@kofn/core';
import { checkInputs, zeroInputs } from '../contract/inputs.js';
import { measureLayerMs } from './measure.js';
import type { LayerChoice, ResolvedCode, SegmentChoice, HedgeAfter } from '../contract/options.js';
import type { Costs, LayerPlan, Plan, SegmentPlan, Speeds } from '../contract/plan.js';
import type { PreparedModel } from './prepare.js';

export interface Planning {
  readonly plan: Plan;
  /** The layers to code, in topological order. */
  readonly coded: readonly Extract<CodableReport, { codable: true }>[];
  /** The model, cut at those. */
  readonly cut: Cut;
  /** Type and rank of every value that crosses between steps, from a run of the model. */
  readonly types: Readonly<Record<string, { dtype: Tensor['dtype']; rank: number }>>;
}

export interface PlanContext {
  readonly engine: Engine;
  readonly threads: number;
  readonly clock: Clock;
  readonly code: ResolvedCode;
  readonly choice: LayerChoice;
  readonly hedge: HedgeAfter | undefined;
  readonly segments: SegmentChoice;
  /** Numbers of the workers that hold the model, among those that it was given, in the order of their blocks. */
  readonly workers: readonly number[];
  readonly sampleInputs: Tensors | undefined;
  readonly speeds: Speeds;
}

/** Throws NOT_FOUND or UNSUPPORTED (a chosen name that does not exist or cannot be coded), else what a run throws. */
export async function planLayers(prepared: PreparedModel, context: PlanContext): Promise<Planning> {
  const { model } = prepared;
  const { code, choice, speeds } = context;
  const reports = findCodable(model);
  const reasons = new Map(reports.map(report => [report.node, whyLocal(report, code.k)]));
  if (choice !== 'all' && choice !== 'auto') checkNames(choice, reports, reasons);

  const codable = reports.filter(report => report.codable);
  const values = new Set(codable.flatMap(report => [report.dataInput, report.output]));
  const able = codable.filter(report => reasons.get(report.node) === undefined);
  for (const step of cutModel(
    model,
    able.map(report => report.node),
  ).steps) {
    for (const name of step.kind === 'segment' ? [...step.inputs, ...step.outputs] : []) values.add(name);
  }
  const probed = await probe(prepared, [...values], context);
  const shapes = Object.fromEntries(Object.entries(probed).map(([name, value]) => [name, value.shape]));
  const profiles = new Map(profile(model, shapes).map(layer => [layer.node, layer]));

  const layers: LayerPlan[] = [];
  for (const report of reports) {
    const base = { name: report.node, operator: report.operator };
    if (!report.codable) {
      layers.push({ ...base, decision: 'local', reason: report.reason });
      continue;
    }
    const { macs, weightBytes, inputBytes, outputBytes } = profiles.get(report.node)!;
    const inputShape = shapes[report.dataInput]!;
    const outputShape = shapes[report.output]!;
    const about = { ...base, inputShape, outputShape, macs, weightBytes, inputBytes, outputBytes };
    const unable = reasons.get(report.node);
    if (unable !== undefined) {
      layers.push({ ...about, decision: 'local', reason: unable });
      continue;
    }
    const localMs =
      speeds.source === 'assumed'
        ? (2 * macs) / speeds.localGflops / 1e6
        : await measureLayerMs(context.engine, context.threads, report.layer(), inputShape, context.clock);
    const coded = codedPart(report, context, inputShape, outputShape);
    const costs = costsOf(localMs, coded, code, report, context);
    const { chosen, reason } = decide(report.node, choice, costs, code);
    layers.push({ ...about, decision: chosen ? 'coded' : 'local', reason, costs, ...(chosen ? { coded } : {}) });
  }
  const place = new Map(prepared.fileOrder.map((name, index) => [name, index]));
  layers.sort((a, b) => (place.get(a.name) ?? Infinity) - (place.get(b.name) ?? Infinity));
  const decided = new Set(layers.filter(layer => layer.decision === 'coded').map(layer => layer.name));
  const types = Object.fromEntries(
    Object.entries(probed).map(([name, value]) => [name, { dtype: value.dtype, rank: value.shape.length }]),
  );
  const cut = cutModel(model, [...decided], types);
  const runs = cut.steps.filter(step => step.kind === 'segment');
  const segments = planSegments(runs, types, context);
  return {
    plan: { layers, segments, notes: prepared.notes, speeds, refusals: [] },
    coded: codable.filter(report => decided.has(report.node)),
    cut,
    types,
  };
}

/** Why the node cannot be coded with k data blocks, or undefined. */
function whyLocal(report: CodableReport, k: number): string | undefined {
  if (!report.codable) return report.reason;
  const perGroup = report.units / report.groups;
  if (perGroup >= k) return undefined;
  const what = report.operator === 'Conv' ? 'output channels' : 'output rows';
  return `${perGroup} ${what}${report.groups > 1 ? ' a group' : ''} cannot be cut into ${k} blocks`;
}

function checkNames(
  names: readonly string[],
  reports: readonly CodableReport[],
  reasons: ReadonlyMap<string, string | undefined>,
): void {
  for (const name of names) {
    if (!reasons.has(name)) {
      const known = reports.map(report => report.node).join(', ');
      throw new KofnError('NOT_FOUND', `layers: the model has no linear layer "${name}"; it has ${known || 'none'}`);
    }
    const reason = reasons.get(name);
    if (reason !== undefined) throw new KofnError('UNSUPPORTED', `layers: "${name}" cannot be coded: ${reason}`);
  }
}

/** Runs the model once here and returns its `values`. */
async function probe({ model, probe: open }: PreparedModel, values: string[], context: PlanContext): Promise<Tensors> {
  const given = Object.entries(context.sampleInputs ?? zeroInputs(model.inputs));
  // Values in the place of the model's own do not change a shape.
  const inputs = Object.fromEntries(given.filter(([name]) => model.overridable.every(own => own.name !== name)));
  checkInputs(model.inputs, inputs);
  await using session = await open(values, context.threads);
  return { ...inputs, ...(await session.run(inputs)) };
}

/** The s-th segment that workers can run is for the 2s-th and 2s+1-th worker, counted around: all have as many, but for one. */
function planSegments(
  steps: readonly SegmentStep[],
  types: Planning['types'],
  { segments, workers }: PlanContext,
): SegmentPlan[] {
  let replicated = 0;
  return steps.map(({ name, nodes, inputs, outputs }): SegmentPlan => {
    const local = (reason: string): SegmentPlan => {
      return { name, nodes: nodes.length, decision: 'local', reason, workers: [] };
    };
    if (segments === 'local') return local('segments run on the master');
    if (inputs.length === 0) return local('it depends on no input');
    const unknown = [...inputs, ...outputs].find(value => types[value] === undefined);
    if (unknown !== undefined) return local(`the type of its value ${unknown} is not known`);
    const first = 2 * replicated++;
    return {
      name,
      nodes: nodes.length,
      decision: 'replicated',
      reason: 'on two workers, the master when both fail',
      workers: [first, first + 1].map(at => workers[at % workers.length]!),
    };
  });
}

function codedPart(
  report: Extract<CodableReport, { codable: true }>,
  { code: { code, k, r, n }, hedge, workers }: PlanContext,
  inputShape: Shape,
  outputShape: Shape,
): NonNullable<LayerPlan['coded']> {
  const { subBlocks } = createCode(code, { k, r });
  const { units, groups, fanIn, hasBias } = report;
  const { blockUnits } = partition({ units, groups, k, subBlocks });
  return {
    code,
    k,
    r,
    axis: report.operator === 'Conv' ? 'channels' : 'rows',
    workers: workers.slice(0, n),
    ...(hedge === undefined
      ? {}
      : { others: Array.from({ length: k }, (_, block) => workers[(block + 1) % workers.length]!) }),
    shardBytes: (hedge === undefined ? 4 : 8) * groups * blockUnits * (fanIn + (hasBias ? 1 : 0)),
    inputBytes: 4 * elementCount(inputShape),
    replyBytes: (4 * elementCount(outputShape) * groups * blockUnits) / units,
  };
}

function costsOf(
  localMs: number,
  coded: NonNullable<LayerPlan['coded']>,
  { k, n }: ResolvedCode,
  report: Extract<CodableReport, { codable: true }>,
  { speeds, hedge }: PlanContext,
): Costs {
  const bytes = n * coded.inputBytes + k * coded.replyBytes;
  const transferMs = (bytes * 8) / (speeds.megabitsPerSecond * 1000);
  const share =
    coded.shardBytes / ((hedge === undefined ? 4 : 8) * report.units * (report.fanIn + (report.hasBias ? 1 : 0)));
  const shardMs = localMs * share * (speeds.localGflops / speeds.workerGflops);
  const { roundTripMs } = speeds;
  return { localMs, roundTripMs, transferMs, shardMs, codedMs: roundTripMs + transferMs + shardMs };
}

function decide(
  name: string,
  choice: LayerChoice,
  { localMs, codedMs }: Costs,
  { code, k, r }: ResolvedCode,
): { chosen: boolean; reason: string } {
  const coded = `coded ${code} (k = ${k}, r = ${r})`;
  if (choice === 'all') return { chosen: true, reason: `${coded}: all layers were chosen` };
  if (choice !== 'auto') {
    const chosen = choice.includes(name);
    return { chosen, reason: chosen ? `${coded}: chosen by name` : 'not among the chosen layers' };
  }
  const sides = `${localMs.toPrecision(3)} ms here, ${codedMs.toPrecision(3)} ms coded`;
  return localMs > codedMs
    ? { chosen: true, reason: `${coded}: ${sides}` }
    : { chosen: false, reason: `does not pay: ${sides}` };
}
