/** What `kofn run` tells: the JSON object, and the same for people. */
import type { CodeName } from '@kofn/encoder';
import type {
  AuditCounts,
  Cluster,
  CodedModel,
  HedgeAfter,
  LayerPlan,
  Plan,
  Refusal,
  RunReport,
  SegmentChoice,
  SegmentPlan,
  VerifyChoice,
} from '@kofn/master';
import { allowedOf } from './compare.js';
import type { KillOutcome } from '../workers/kill-plan.js';
import type { Reference } from './reference.js';
import { formatBytes, formatError, formatMs, plural, table, verdict } from '../terminal/render.js';
import { roundMs } from './stats.js';
import { jsonNumber, type Tally } from './tally.js';

/** The object of `kofn run --json`. */
export interface RunSummary {
  readonly model: string;
  readonly requests: number;
  /** Requests without an answer. */
  readonly lost: number;
  /** Answers with an element that is off by more than is allowed; null without --compare. */
  readonly wrong: number | null;
  /** Data blocks computed from parity, over all layers and requests. */
  readonly recovered: { readonly lost: number; readonly late: number };
  /** Data blocks that the master computed itself. */
  readonly computedHere: number;
  /** Blocks that another worker computed in place of a lost one's. */
  readonly resent: number;
  /** Blocks that another worker was asked for because they were late. */
  readonly hedged: number;
  /** Answers of replicated segments, by who gave them. */
  readonly segmentsAnswered: { readonly workers: number; readonly master: number };
  /** As given: ms or "p95"; null for never. */
  readonly hedge: HedgeAfter | null;
  readonly segments: SegmentChoice;
  /** Requests by what became of their audit; null without --verify audit. */
  readonly audits: AuditCounts | null;
  /** null without --compare; "Infinity" where NaN or infinities do not match. */
  readonly maxRelError: number | string | null;
  readonly outputs: readonly {
    readonly name: string;
    readonly maxAbsError: number | string | null;
    readonly maxRelError: number | string | null;
    /** What the first request's output differs by between settings of ONNX Runtime itself, like maxRelError. */
    readonly referenceRelDifference: number | string | null;
    /** What the output may be off by, relative to its largest magnitude; null without --compare, and with --atol or --rtol. */
    readonly allowedRelError: number | string | null;
  }[];
  /** Settings of ONNX Runtime that were compared with the one that answers are compared with. */
  readonly referenceSettings: readonly string[];
  /** Of answered requests; null when there are none. */
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  /** Shard bytes that went to workers for this run; 0 when they had all of them. */
  readonly shardBytesSent: number;
  readonly codedLayers: readonly {
    readonly name: string;
    readonly k: number;
    readonly r: number;
    readonly code: CodeName;
  }[];
  readonly plan: {
    readonly speeds: Plan['speeds'];
    readonly layers: readonly LayerPlan[];
    readonly segments: readonly SegmentPlan[];
    readonly notes: readonly string[];
    /** Workers that did not take what the plan gives them. */
    readonly refusals: readonly Refusal[];
  };
  readonly kills: readonly KillOutcome[];
  readonly workers: readonly { readonly address: string; readonly state: string; readonly engine: string }[];
  readonly failures: readonly { readonly request: number; readonly code: string; readonly message: string }[];
}

export function runSummary(parts: {
  modelPath: string;
  coded: CodedModel;
  tally: Tally;
  kills: readonly KillOutcome[];
  cluster: Cluster;
  shardBytesSent: number;
  reference: Reference | undefined;
  asked: { hedge?: HedgeAfter; segments: SegmentChoice; verify: VerifyChoice; atol?: number; rtol?: number };
}): RunSummary {
  const { modelPath, coded, tally, kills, cluster, shardBytesSent, reference, asked } = parts;
  const isCalibrated = reference !== undefined && (asked.atol ?? asked.rtol) === undefined;
  return {
    model: modelPath,
    requests: tally.requests,
    lost: tally.lost,
    wrong: reference === undefined ? null : tally.wrong,
    recovered: tally.recovered,
    computedHere: tally.computedHere,
    resent: tally.resent,
    hedged: tally.hedged,
    segmentsAnswered: tally.segments,
    hedge: asked.hedge ?? null,
    segments: asked.segments,
    audits: asked.verify === 'audit' ? coded.audits : null,
    maxRelError: jsonNumber(tally.maxRelError),
    outputs: coded.outputs.map(({ name }) => {
      const errors = tally.outputErrors.get(name);
      const { maxAbsError = null, maxRelError = null } = errors ?? {};
      const difference = reference?.differences[name];
      return {
        name,
        maxAbsError: jsonNumber(maxAbsError),
        maxRelError: jsonNumber(maxRelError),
        referenceRelDifference: jsonNumber(difference ?? null),
        allowedRelError: isCalibrated ? jsonNumber(allowedOf(difference)) : null,
      };
    }),
    referenceSettings: reference?.settings ?? [],
    p50Ms: tally.ms(50),
    p99Ms: tally.ms(99),
    shardBytesSent,
    codedLayers: coded.plan.layers.flatMap(({ name, coded: how }) =>
      how === undefined ? [] : [{ name, k: how.k, r: how.r, code: how.code }],
    ),
    plan: coded.plan,
    kills: kills.map(kill => ({ ...kill, ms: roundMs(kill.ms) })),
    workers: cluster.workers.map(({ address, state, engine }) => ({ address, state, engine })),
    failures: tally.failures,
  };
}

/** `report` is that of the last answered request. */
export function runTables(summary: RunSummary, report: RunReport | undefined): string {
  const { requests, lost, wrong, recovered, computedHere, resent, p50Ms, p99Ms, kills, shardBytesSent } = summary;
  const { hedged, segments, segmentsAnswered, audits, plan } = summary;
  const rows = [
    ['requests', String(requests)],
    ['lost', verdict(String(lost), lost === 0)],
    ['wrong', wrong === null ? 'not compared (--compare)' : verdict(String(wrong), wrong === 0)],
    ...summary.outputs.map(output => [`error of "${output.name}"`, errorCell(output)]),
    ['blocks recovered from parity', `${recovered.lost} lost, ${recovered.late} late`],
    ...(computedHere > 0 ? [['blocks computed by the master', String(computedHere)]] : []),
    ...(resent > 0 ? [['blocks asked of other workers', String(resent)]] : []),
    ...(hedged > 0 ? [['late blocks asked of a second worker', String(hedged)]] : []),
    ...(segments === 'replicated'
      ? [['segments run by workers, master', `${segmentsAnswered.workers}, ${segmentsAnswered.master}`]]
      : []),
    ...(audits === null
      ? []
      : [
          [
            'audits',
            verdict(`${audits.passed} passed, ${audits.failed} failed, ${audits.skipped} skipped`, audits.failed === 0),
          ],
        ]),
    ['shards sent', formatBytes(shardBytesSent)],
    ...plan.refusals.map(({ worker, layers, code }) => [
      `not taken by worker ${worker}`,
      verdict(`shards of ${plural(layers.length, 'layer')} (${code})`, false),
    ]),
    ['p50 / p99', `${formatMs(p50Ms)} / ${formatMs(p99Ms)} ms`],
    ...kills.map(({ worker, request, hit, ms }) => [
      `worker ${worker} killed at request ${request}`,
      hit ? `hit; the request took ${formatMs(ms)} ms` : verdict('did not hit', false),
    ]),
  ];
  const parts = [table(['run', summary.model], rows)];
  if (report !== undefined && report.layers.length > 0) parts.push(layerTable(report));
  return parts.join('\n\n');
}

/** Both figures that the verdict rests on. Relative to the output's largest magnitude. */
function errorCell(output: RunSummary['outputs'][number]): string {
  const { maxRelError, maxAbsError, referenceRelDifference, allowedRelError } = output;
  if (maxRelError === null) return '-';
  if (allowedRelError === null)
    return `${formatError(maxRelError)} of its largest element, ${formatError(maxAbsError)} absolute`;
  const itself =
    referenceRelDifference === null ? '' : `ONNX Runtime from itself: ${formatError(referenceRelDifference)}; `;
  return `${formatError(maxRelError)} of its largest element (${itself}allowed: ${formatError(allowedRelError)})`;
}

function layerTable(report: RunReport): string {
  const rows = report.layers.map(layer => [
    layer.name,
    `${layer.code} ${layer.k}+${layer.r}`,
    formatMs(layer.ms),
    layer.arrivals.map(({ worker, ms }) => `${worker} (${formatMs(ms)})`).join(', '),
    layer.erasures.map(({ worker, code }) => `${worker} (${code})`).join(', ') || '-',
    layer.decodeSet.join(','),
    layer.errorGain.toPrecision(2),
    `${formatBytes(layer.bytesSent)} / ${formatBytes(layer.bytesReceived)}`,
  ]);
  const head = [
    'layer',
    'code k+r',
    'ms',
    'workers that answered (ms)',
    'failed',
    'decoded from',
    'error gain',
    'sent / received',
  ];
  return `request ${report.request}, layer by layer:\n${table(head, rows)}`;
}
