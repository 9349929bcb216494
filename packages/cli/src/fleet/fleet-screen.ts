/** What `kofn fleet` shows to people: at most 100 columns, and on one screen however many layers there are. */
import type { FleetObject, WorkerObject } from './fleet-object.js';
import type { StandingModel } from './fleet-models.js';
import { dim, formatBytes, formatCount, formatMs, plural, table, verdict } from '../terminal/render.js';

const EVENTS = 8;
/** Of names of layers, in a cell. */
const NAMES_CHARS = 34;
/** A worker below this part of the median speed stands out. */
const SLOW = 0.5;

export function fleetScreen({ workers, models, events }: FleetObject): string {
  const silent = workers.filter(({ state }) => state === 'unreachable');
  const duplicates = workers.filter(({ state }) => state === 'duplicate');
  const answered = workers.length - silent.length - duplicates.length;
  return [
    workerTable(workers),
    ...(models.length === 0 ? ['Nobody claims a shard on them.'] : [modelTable(models)]),
    ...layerTable(models),
    ...silent.map(({ worker, address, reason }) => `worker ${worker} (${address}) does not answer: ${reason}`),
    ...duplicates.map(({ worker, address, reason }) => `worker ${worker} (${address}) counts once: ${reason}`),
    ...events
      .slice(-EVENTS)
      .map(({ worker, ageMs, text }) => `${dim(age(ageMs).padStart(10))}  worker ${worker}: ${text}`),
    `${answered} of ${plural(workers.length, 'worker')} answered.`,
    '',
  ].join('\n');
}

function workerTable(workers: readonly WorkerObject[]): string {
  const speeds = workers.flatMap(({ macsPerSecond }) => macsPerSecond ?? []).sort((a, b) => a - b);
  const usual = speeds[Math.floor(speeds.length / 2)] ?? 0;
  const rows = workers.map(each => [
    String(each.worker),
    each.address,
    verdict(each.state, each.state === 'ready'),
    each.macsPerSecond === null ? '-' : emphasised(formatCount(each.macsPerSecond), each.macsPerSecond < SLOW * usual),
    formatMs(each.roundTripMs),
    each.bytesPerSecond === null ? '-' : formatMs(each.bytesPerSecond / 1e6),
    each.cores === null ? '-' : String(each.cores),
    each.shards === null ? '-' : String(each.shards),
    each.diskUsedBytes === null ? '-' : formatBytes(each.diskUsedBytes),
  ]);
  return table(['#', 'address', 'state', 'MAC/s', 'rtt ms', 'MB/s', 'cores', 'shards', 'disk'], rows);
}

/** One row for each version of each model. */
function modelTable(models: readonly StandingModel[]): string {
  const rows = models.map(({ model, version, cluster, shards, bytes, workers, margin }) => [
    shortened(model, 24),
    String(version),
    shortened(cluster, 18),
    String(shards),
    formatBytes(bytes),
    shortened(workers.join(' '), 16),
    marginText(margin),
  ]);
  return table(['model', 'version', 'owner', 'shards', 'bytes', 'on workers', 'margin'], rows);
}

/** One row for all layers of a model that stand alike. */
function layerTable(models: readonly StandingModel[]): string[] {
  const rows = models.flatMap(({ model, version, layers }) => {
    const alike = new Map<string, { names: string[]; cells: string[] }>();
    for (const { layer, code, k, r, blocks, margin } of layers) {
      const cells = [`${code} ${k}+${r}`, `${blocks.length} of ${k + r}`, marginText(margin)];
      const row = alike.get(cells.join()) ?? { names: [], cells };
      alike.set(cells.join(), row);
      row.names.push(layer);
    }
    return [...alike.values()].map(({ names, cells }) => [
      shortened(`${model} ${version}`, 24),
      layerNames(names),
      ...cells,
    ]);
  });
  return rows.length === 0 ? [] : [table(['of model', 'layers', 'code', 'blocks ready', 'margin'], rows)];
}

function layerNames(names: readonly string[]): string {
  const text = names.join(', ');
  return text.length <= NAMES_CHARS ? text : `${plural(names.length, 'layer')}: ${shortened(text, NAMES_CHARS - 12)}`;
}

function marginText(margin: number | null): string {
  return margin === null ? '-' : verdict(String(margin), margin > 0);
}

function emphasised(text: string, isBad: boolean): string {
  return isBad ? verdict(text, false) : text;
}

function shortened(text: string, chars: number): string {
  return text.length <= chars ? text : `${text.slice(0, chars - 1)}…`;
}

function age(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 100) return `${Math.round(seconds)} s ago`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 48 * 3600 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86_400)} d ago`;
}
