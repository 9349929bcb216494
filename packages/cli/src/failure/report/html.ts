/**
 * A run as one page that opens anywhere: from a disk, from an archive, without a network, on a phone, printed, read aloud.
 *
 * Invariants
 * 1. Self-contained: no script runs, nothing is requested, and the page's own policy forbids both.
 * 2. Whatever comes from the result is escaped: names and messages come from files and machines of others.
 * 3. What makes the run less than it was to be stands before any figure.
 * 4. Headings are in order, tables have scopes, pictures have titles and descriptions; wide things scroll in their own box.
 * 5. The result itself is in the page, so that `kofn bench compare` reads it too (`embeddedJson`).
 */
import { plural } from '../../terminal/render.js';
import type { CellResult, RunResult } from '../result/result.js';
import { plotsOf, type Plot } from './plots.js';
import {
  columnsOf,
  commonOf,
  emulatedIn,
  estimateText,
  groupsOf,
  LEGEND,
  msOf,
  NONE,
  ratioText,
  shortfalls,
  type Column,
  type Group,
} from './rows.js';
import { STYLE } from './style.js';
import { strategyLines } from './table.js';
import { escapeXml as escape, withIds } from './theme.js';

/** Faults and messages of a cell that the page lists; the rest are in the JSON. */
const MOST_LISTED = 50;
const JSON_OPEN = '<script type="application/json" id="result">';
const JSON_CLOSE = '</script>';

export async function resultHtml(result: RunResult): Promise<string> {
  const plots = (await plotsOf(result)).map((plot, i) => ({ ...plot, svg: withIds(plot.svg, `p${i}-`) }));
  const groups = groupsOf(result);
  return [
    '<!DOCTYPE html>',
    '<html lang="en">',
    '<head>',
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">`,
    '<meta name="color-scheme" content="light dark">',
    `<title>${escape(result.name)}: kofn bench failure</title>`,
    `<style>${STYLE}</style>`,
    '</head>',
    '<body>',
    '<main>',
    ...headOf(result),
    ...claimsOf(result),
    '<h2 id="figures">Figures</h2>',
    ...paragraph(commonOf(result).length === 0 ? '' : `All cells: ${commonOf(result).join(' · ')}.`),
    ...(groups.length > 1 ? [contentsOf(groups)] : []),
    ...groups.flatMap((group, i) => groupOf(group, i, plots)),
    ...paragraph(LEGEND, 'note'),
    ...listOf('Strategies', strategyLines(result)),
    '<h2>Cells</h2>',
    ...result.cells.flatMap(cell => cellOf(cell, plots)),
    ...listOf('What is emulated', emulatedIn(result)),
    '<h2>Data</h2>',
    '<p>This page holds the whole result, every request of it: <code>kofn bench compare</code> reads the page as it reads ' +
      '<code>result.json</code>. Other programs find it in the element with the id <code>result</code>.</p>',
    '</main>',
    `${JSON_OPEN}${JSON.stringify(result).replace(/</g, '\\u003c')}${JSON_CLOSE}`,
    '</body>',
    '</html>',
    '',
  ].join('\n');
}

/** The JSON text that `resultHtml` put into a page; undefined where there is none. */
export function embeddedJson(html: string): string | undefined {
  const start = html.lastIndexOf(JSON_OPEN);
  const end = html.indexOf(JSON_CLOSE, start);
  return start === -1 || end === -1 ? undefined : html.slice(start + JSON_OPEN.length, end);
}

function headOf(result: RunResult): string[] {
  const { cpu, cores, memoryBytes, os, node, kofn, engine, hosts } = result.environment;
  const machine = `${cpu}, ${plural(cores, 'core')}, ${(memoryBytes / 1e9).toFixed(1)} GB, ${os}`;
  const facts: [string, string][] = [
    ['Command', `<code>${escape(result.command)}</code>`],
    ['Seed', String(result.seed)],
    [
      'Begun',
      `<time datetime="${escape(result.startedAt)}">${escape(result.startedAt)}</time>, took ${duration(result.seconds)}`,
    ],
    ['Machine', escape(machine)],
    ['Software', escape(`kofn ${kofn}, ${engine}, Node ${node}`)],
    ['Workers', hosts.length === 0 ? 'local processes' : escape(hosts.join(', '))],
  ];
  const warnings = shortfalls(result);
  return [
    '<header>',
    `<h1>${escape(result.name)}</h1>`,
    ...(warnings.length === 0
      ? []
      : [`<div class="alert" role="note">${warnings.flatMap(line => paragraph(line)).join('')}</div>`]),
    ...paragraph(result.description),
    `<dl>${facts.map(([name, value]) => `<div><dt>${name}</dt><dd>${value}</dd></div>`).join('')}</dl>`,
    '</header>',
  ];
}

function claimsOf({ claims }: RunResult): string[] {
  if (claims.length === 0) return [];
  const rows = claims.map(({ what, estimate, why }) => [
    escape(what),
    estimate === null ? 'cannot be said: too few samples, or a cell is missing' : ratioText(estimate),
    escape(why),
  ]);
  return ['<h2>Claims</h2>', htmlTable('Claims', ['claim', 'ratio (95 %)', 'why'], rows, 'words')];
}

function contentsOf(groups: readonly Group[]): string {
  const links = groups.map(({ title }, i) => `<li><a href="#group-${i}">${escape(title)}</a></li>`);
  return `<nav aria-label="Groups"><ul>${links.join('')}</ul></nav>`;
}

function groupOf(group: Group, index: number, plots: readonly Plot[]): string[] {
  const [name, answers, ...rest] = columnsOf(group);
  const pictures = plots.filter(({ kind, of }) => kind !== 'course' && of === group.title);
  return [
    `<section id="group-${index}">`,
    `<h3>${escape(group.title)}</h3>`,
    groupTable(`${group.title}: answers`, [name, ...answers!], group),
    groupTable(`${group.title}: ratios and cost`, [name, ...rest.flat()], group),
    ...(pictures.length === 0 ? [] : [`<div class="plots">${pictures.map(picture).join('')}</div>`]),
    '</section>',
  ];
}

function groupTable(caption: string, columns: readonly Column[], group: Group): string {
  const heads = columns.map(({ head, meaning }) => `<span title="${escape(meaning)}">${escape(head)}</span>`);
  const textOf = ({ text, bad }: Column, cell: CellResult) => {
    const escaped = escape(text(cell, group));
    return bad?.(cell) === true ? `<strong class="bad">${escaped}</strong>` : escaped;
  };
  return htmlTable(
    caption,
    heads,
    group.cells.map(cell => columns.map(column => textOf(column, cell))),
  );
}

function cellOf(cell: CellResult, plots: readonly Plot[]): string[] {
  const { name, what, workers, k, r, seed, repeats, requests, answered, lost, wrong, latencyMs } = cell;
  const summary = `p50 ${msOf(latencyMs.p50?.value ?? null)} · p99 ${msOf(latencyMs.p99?.value ?? null)} ms · ${lost} lost · ${wrong} wrong`;
  const facts: [string, string][] = [
    ['Strategy', `${what}; ${plural(workers, 'worker')}, k = ${k}, r = ${r}`],
    [
      'Requests',
      `${requests} in ${plural(repeats, 'repeat')}, seed ${seed}: ${answered} answered, ${lost} lost, ${wrong} wrong${cell.complete ? '' : '; cut short'}`,
    ],
    [
      'Latency, ms',
      (['p50', 'p90', 'p99', 'p999'] as const)
        .map(each => `${each.replace('p999', 'p99.9')} ${estimateText(latencyMs[each])}`)
        .join(', ') + `, longest ${msOf(latencyMs.max)}`,
    ],
    [
      'Blocks',
      `${cell.recovered.lost} recovered for lost ones, ${cell.recovered.late} for late ones, ${cell.computedHere} computed by the master, ${cell.resent} sent again`,
    ],
    [
      'Time per request, ms',
      `processor ${msOf(cell.cpuMsPerRequest)}, emulated devices ${msOf(cell.deviceMsPerRequest)}`,
    ],
    [
      'Added latency',
      `${ratioText(cell.addedLatency)} (median of the requests that were hit, over that of those with the worker gone)`,
    ],
  ];
  return [
    '<details>',
    `<summary><h3>${escape(name)}</h3> <span>${escape(summary)}</span></summary>`,
    `<dl>${facts.map(([fact, text]) => `<div><dt>${fact}</dt><dd>${escape(text)}</dd></div>`).join('')}</dl>`,
    ...plots.filter(({ kind, of }) => kind === 'course' && of === name).map(picture),
    ...phasesOf(cell),
    ...faultsOf(cell),
    ...failuresOf(cell),
    '</details>',
  ];
}

function phasesOf({ name, phases, faults }: CellResult): string[] {
  if (faults.length === 0) return [];
  const words = { healthy: 'healthy', hit: 'hit by a fault', degraded: 'begun while a fault was on' };
  const rows = (['healthy', 'hit', 'degraded'] as const).map(phase => {
    const { requests, lost, p50, p99 } = phases[phase];
    return [words[phase], String(requests), String(lost), estimateText(p50), estimateText(p99)];
  });
  return [
    '<h4>Phases</h4>',
    htmlTable(`Phases of ${name}`, ['requests that were', 'requests', 'lost', 'p50 ms', 'p99 ms'], rows),
  ];
}

function faultsOf({ name, faults }: CellResult): string[] {
  if (faults.length === 0) return [];
  const rows = faults
    .slice(0, MOST_LISTED)
    .map(({ repeat, request, kind, workers, atMs, hit, nextAnswerMs }) => [
      faults.at(-1)!.repeat > 0 ? `${request} of repeat ${repeat}` : String(request),
      escape(kind),
      workers.join(', ') || NONE,
      msOf(atMs),
      hit === null ? NONE : hit ? 'yes' : 'no',
      nextAnswerMs === null ? 'never' : msOf(nextAnswerMs),
    ]);
  const heads = ['request', 'fault', 'workers', 'at ms', 'hit it', 'next answer after ms'];
  const more = faults.length - rows.length;
  return [
    '<h4>Faults</h4>',
    htmlTable(`Faults of ${name}`, heads, rows),
    ...paragraph(more > 0 ? `And ${more} more.` : '', 'note'),
  ];
}

function failuresOf({ name, failures }: CellResult): string[] {
  if (failures.length === 0) return [];
  const rows = failures
    .slice(0, MOST_LISTED)
    .map(({ code, count, message }) => [escape(code), String(count), escape(message)]);
  return ['<h4>Failures</h4>', htmlTable(`Failures of ${name}`, ['code', 'requests', 'first message'], rows, 'words')];
}

/** Heads and cells are HTML; the first cell of a row is its head. In a box of its own, which scrolls, by keyboard too. */
function htmlTable(
  caption: string,
  heads: readonly string[],
  rows: readonly (readonly string[])[],
  kind = 'figures',
): string {
  const body = rows.map(
    ([first, ...rest]) => `<tr><th scope="row">${first}</th>${rest.map(text => `<td>${text}</td>`).join('')}</tr>`,
  );
  return [
    `<div class="scroll" role="region" tabindex="0" aria-label="${escape(caption)}"><table class="${kind}">`,
    `<thead><tr>${heads.map(head => `<th scope="col">${head}</th>`).join('')}</tr></thead>`,
    `<tbody>${body.join('\n')}</tbody>`,
    '</table></div>',
  ].join('\n');
}

function picture({ svg }: Plot): string {
  return `<figure class="scroll" tabindex="0">${svg}</figure>`;
}

function listOf(heading: string, lines: readonly string[]): string[] {
  return lines.length === 0
    ? []
    : [`<h2>${heading}</h2>`, `<ul>${lines.map(line => `<li>${escape(line)}</li>`).join('')}</ul>`];
}

function paragraph(text: string, kind?: string): string[] {
  return text === '' ? [] : [`<p${kind === undefined ? '' : ` class="${kind}"`}>${escape(text)}</p>`];
}

function duration(seconds: number): string {
  return seconds < 100
    ? `${seconds.toFixed(1)} s`
    : seconds < 6000
      ? `${(seconds / 60).toFixed(0)} min`
      : `${(seconds / 3600).toFixed(1)} h`;
}
