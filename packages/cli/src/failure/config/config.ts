/**
 * Reads a config (config-schema.ts) and makes of it the cells that it stands for.
 *
 * Invariants
 * 1. A field that is not known is refused by name, wherever it stands.
 * 2. Nothing is read but the file itself: whether this machine can do what it asks is checks.ts.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { KofnError } from '@kofn/core';
import { parseDocument } from 'yaml';
import type { z } from 'zod';
import {
  configSchema,
  type Claim,
  type Device,
  type Fault,
  type LinkConfig,
  type Load,
  type Workload,
} from './config-schema.js';
import { FAULTS, LINKS, WORKLOADS } from './presets.js';

/** One cell: every choice made. */
export interface Cell {
  readonly name: string;
  readonly strategy: string;
  readonly fault: Named<Fault>;
  readonly link: Named<LinkConfig>;
  readonly workload: Named<Workload>;
  readonly equal: 'workers' | 'compute';
  readonly workers: number;
  readonly requests: number;
  readonly warmUp: number;
  readonly load: Load;
  readonly deadlineMs: number;
  readonly device: Device;
  readonly arrivals: boolean;
  readonly failover: { readonly detectMs: number; readonly reloadMs: number };
}

export interface Named<T> {
  readonly name: string;
  readonly value: T;
}

export interface Config {
  readonly name: string;
  readonly description: string;
  readonly seed: number;
  readonly repeats: number;
  readonly cells: readonly Cell[];
  readonly claims: readonly Claim[];
}

/** Reads and checks `file`. Throws NOT_FOUND, or INVALID_ARGUMENT with every mistake in it. */
export async function readConfig(file: string): Promise<Config> {
  const text = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new KofnError('NOT_FOUND', `--config ${file}: cannot be read (${cause.code})`, { cause });
  });
  return parseConfig(text, file);
}

/** `text` of `file`, which messages name. Throws INVALID_ARGUMENT. */
export function parseConfig(text: string, file: string): Config {
  const folder = path.dirname(file);
  const document = parseDocument(text, { prettyErrors: true });
  const [broken] = document.errors;
  if (broken !== undefined) throw invalid(file, [broken.message.split('\n')[0]!]);
  const parsed = configSchema.safeParse(document.toJS({ maxAliasCount: 100 }));
  if (!parsed.success) throw invalid(file, parsed.error.issues.flatMap(issueText));
  const { name, description, seed, repeats, claims } = parsed.data;
  const problems: string[] = [];
  for (const link of Object.values(parsed.data.links))
    if (link.trace !== undefined) link.trace = path.resolve(folder, link.trace);
  for (const workload of Object.values(parsed.data.workloads)) {
    if (workload.onnx !== undefined) workload.onnx = path.resolve(folder, workload.onnx);
  }
  const cells = parsed.data.cells.flatMap((entry, index) => expand(entry, parsed.data, `cells[${index}]`, problems));
  const twice = cells.find((cell, at) => cells.findIndex(other => other.name === cell.name) !== at);
  if (twice !== undefined) problems.push(`cells: two are called "${twice.name}"; give one of them a name`);
  for (const [at, { of, to }] of claims.entries()) {
    for (const asked of [of, to]) {
      if (!cells.some(cell => cell.name === asked)) problems.push(`claims[${at}]: there is no cell "${asked}"`);
    }
  }
  if (problems.length > 0) throw invalid(file, problems);
  return { name, description, seed, repeats, cells, claims };
}

type Entry = z.infer<typeof configSchema>['cells'][number];

/** The cells that one entry stands for. */
function expand(entry: Entry, config: z.infer<typeof configSchema>, at: string, problems: string[]): Cell[] {
  const all = { ...config.defaults, ...entry };
  const {
    strategy: strategies = ['uncoded'],
    fault: faults = ['none'],
    link: links = ['loopback'],
    workload: workloads = ['fc-2000'],
    equal: equals = ['workers'],
    workers: counts = [5],
    requests = 100,
    warmUp = 10,
    load: how = { kind: 'closed' },
    deadlineMs = 10_000,
    device: on = 'native',
    arrivals = false,
    failover = { detectMs: 2_000, reloadMs: 0 },
  } = all;
  const found = <T>(
    kind: string,
    name: string,
    own: Readonly<Record<string, T>>,
    known: Readonly<Record<string, T>>,
  ) => {
    const value = Object.hasOwn(own, name) ? own[name] : Object.hasOwn(known, name) ? known[name] : undefined;
    if (value !== undefined) return { name, value };
    const names = [...Object.keys(own), ...Object.keys(known)].join(', ');
    problems.push(`${at}.${kind}: there is no ${kind} "${name}"; there are ${names}`);
    return undefined;
  };
  const cells: Cell[] = [];
  for (const workloadName of workloads) {
    for (const linkName of links) {
      for (const faultName of faults) {
        for (const equal of equals) {
          for (const workers of counts) {
            for (const strategy of strategies) {
              const chosen = {
                workload: found('workload', workloadName, config.workloads, WORKLOADS),
                link: found('link', linkName, config.links, LINKS),
                fault: found('fault', faultName, config.faults, FAULTS),
              };
              const { workload, link, fault } = chosen;
              if (workload === undefined || link === undefined || fault === undefined) return [];
              const varied = [
                ...(workloads.length > 1 ? [workloadName] : []),
                ...(links.length > 1 ? [linkName] : []),
                ...(faults.length > 1 ? [faultName] : []),
                ...(equals.length > 1 ? [`equal ${equal}`] : []),
                ...(counts.length > 1 ? [`${workers} workers`] : []),
                ...(strategies.length > 1 ? [strategy] : []),
              ];
              const base =
                entry.name ??
                [workloadName, linkName, faultName, ...(strategies.length > 1 ? [] : [strategy])].join(' ');
              const name =
                entry.name === undefined
                  ? [base, ...varied.filter(part => !base.includes(part))].join(' ')
                  : [base, ...varied].join(' ');
              cells.push({
                name,
                strategy,
                fault,
                link,
                workload,
                equal,
                workers,
                requests,
                warmUp,
                load: how,
                deadlineMs,
                device: on,
                arrivals,
                failover,
              });
            }
          }
        }
      }
    }
  }
  return cells;
}

function invalid(file: string, problems: readonly string[]): KofnError {
  const shown = problems.slice(0, 5);
  const more = problems.length > shown.length ? `; and ${problems.length - shown.length} more` : '';
  return new KofnError('INVALID_ARGUMENT', `--config ${file}: ${shown.join('; ')}${more}`);
}

/** `cells[2].fault: what is wrong`, an unknown field by its own name. */
export function issueText(issue: z.core.$ZodIssue): string[] {
  const at = issue.path
    .map((part, i) => (typeof part === 'number' ? `[${part}]` : `${i > 0 ? '.' : ''}${String(part)}`))
    .join('');
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map(key => `${at === '' ? '' : `${at}.`}${key}: there is no such field`);
  }
  if (issue.code === 'invalid_union') {
    // Of the ways that a value may be written, the one that fits best tells most.
    const [best] = issue.errors
      .map(issues => issues.flatMap(issueText))
      .sort((a, b) => b.join().length - a.join().length);
    return (best ?? ['is not valid']).map(text => `${at}${text.startsWith('[') || text === '' ? '' : '.'}${text}`);
  }
  return [at === '' ? issue.message : `${at}: ${issue.message}`];
}
