/**
 * `kofn replan MODEL`: a plan for the workers that are there now in the place of the one that an earlier program left on them. What stands
 * is in the workers' inventories alone, so no master is asked; the next one of the same `id` finds the new plan there and sends nothing.
 */
import { KofnError } from '@kofn/core';
import {
  modelName,
  planModel,
  refusalWords,
  replanStanding,
  standingOn,
  type Replanned,
  type StandingModel,
} from '@kofn/master';
import { EXIT_OK } from '../terminal/exit.js';
import { planTotals, planWords } from '../terminal/plan-table.js';
import { note } from '../terminal/progress.js';
import { formatBytes, plural, table } from '../terminal/render.js';
import { codeOptions, openDeployBar, Workers, type DeployBar } from '../workers/session.js';
import type { SharedArguments } from '../workers/shared-options.js';
import { sampleInputsOf } from './plan.js';

export interface ReplanArguments extends SharedArguments {
  readonly workers: readonly string[];
  readonly name?: string;
  readonly dryRun?: boolean;
  readonly keepOld?: boolean;
}

/** So many of what stands there are named when none of it is meant. */
const NAMED = 5;

/** Returns the exit code. Throws what is wrong with the arguments before any worker is asked. */
export async function replan(modelPath: string, args: ReplanArguments, signal: AbortSignal): Promise<number> {
  const { dryRun = false, keepOld = false } = args;
  const { sampleInputs, assumed } = await sampleInputsOf(modelPath, args);
  const options = { ...codeOptions(args), sampleInputs, signal };
  await planModel(modelPath, { ...options, workerCount: args.workers.length });
  await using workers = await Workers.open(args, [], signal);
  const { cluster } = workers;
  const standing = chosen(standingOn(cluster), args.name ?? modelName(modelPath), args.id);
  const replanned = await withBar(onProgress =>
    replanStanding(modelPath, { ...options, cluster, standing, dryRun, keepOld, onProgress }),
  );
  if (assumed !== undefined) note(assumed);
  for (const line of replanned.plan.notes) note(line);
  process.stdout.write(
    args.json === true
      ? `${JSON.stringify(replanObject(modelPath, standing, replanned, args))}\n`
      : replanText(standing, replanned, args),
  );
  return EXIT_OK;
}

async function withBar<T>(work: (onProgress: DeployBar['onProgress']) => Promise<T>): Promise<T> {
  using bar = openDeployBar();
  return await work(bar.onProgress);
}

/** The model that is meant. Throws NOT_FOUND and INVALID_ARGUMENT, naming what is there. */
function chosen(all: readonly StandingModel[], name: string, id: string | undefined): StandingModel {
  const found = all.filter(({ model, cluster }) => model === name && (id === undefined || cluster === id));
  if (found.length === 1) return found[0]!;
  const named = (some: readonly StandingModel[]) =>
    some
      .slice(0, NAMED)
      .map(({ model, cluster }) => `"${model}" of ${cluster}`)
      .join(', ') + (some.length > NAMED ? ', …' : '');
  if (found.length > 1) {
    const message = `${found.length} clusters have a model "${name}" on these workers: ${named(found)}; say whose with --id`;
    throw new KofnError('INVALID_ARGUMENT', message);
  }
  const whose = id === undefined ? '' : ` of ${id}`;
  const there =
    all.length === 0 ? 'nobody claims a shard on them' : `there are ${named(all)}: --name and --id say which`;
  throw new KofnError(
    'NOT_FOUND',
    `no model "${name}"${whose} stands on these workers; ${there}. A program deploys it first`,
  );
}

function replanObject(modelPath: string, standing: StandingModel, replanned: Replanned, args: ReplanArguments) {
  const { cluster, version, workers, shards, bytes } = standing;
  const { plan, needs, missingBytes } = replanned;
  return {
    model: modelPath,
    name: replanned.model,
    id: cluster,
    dryRun: args.dryRun === true,
    version: replanned.version,
    before: { version, workers, shards, bytes },
    workers: needs,
    missingBytes,
    totals: planTotals(plan),
    layers: plan.layers,
    segments: plan.segments,
    notes: plan.notes,
    refusals: plan.refusals,
  };
}

function replanText(standing: StandingModel, { plan, needs, ...replanned }: Replanned, args: ReplanArguments): string {
  const of = ({ shards, bytes }: { shards: number; bytes: number }) =>
    shards === 0 ? '-' : `${shards}, ${formatBytes(bytes)}`;
  const rows = needs.map(need => [
    String(need.worker),
    need.address,
    of(need.standing),
    of(need.planned),
    of(need.missing),
    `${formatBytes(need.diskBytes)} of ${formatBytes(need.diskLimitBytes)}`,
    `${formatBytes(need.memoryBytes)} of ${formatBytes(need.memoryLimitBytes)}`,
  ]);
  const head = [
    'worker',
    'address',
    'stands now',
    'planned',
    args.dryRun === true ? 'to send' : 'sent',
    'disk, both',
    'memory, both',
  ];
  const before = `version ${standing.version} stood on ${plural(standing.workers.length, 'worker')}`;
  const bytes = formatBytes(replanned.missingBytes);
  const outcome =
    args.dryRun === true
      ? `Nothing was changed (--dry-run): ${before} and still does; ${bytes} would be sent.`
      : `"${replanned.model}" of ${standing.cluster} stands on ${plural(needs.length, 'worker')} as version ${replanned.version}, ` +
        `${bytes} were sent; ${before} and ${args.keepOld === true ? 'stays until its leases end' : 'was given up'}.`;
  const refused = plan.refusals.map(
    refusal => `${refusalWords(refusal)}; the plan stands without it until the next program puts it there.`,
  );
  return [table(head, rows), planWords(plan, args.layers)[0], ...refused, outcome, ''].join('\n');
}
