/**
 * `npm run sim`: many seeds, one after another, and what the checkers say of each.
 *
 * Invariants
 * 1. What goes to stdout is a function of the options alone, but for the figures of speed.
 * 2. Ctrl-C ends it after the seed that runs, with the summary of those that ran.
 */
import { parseArgs } from 'node:util';
import { isKofnError, KofnError, systemClock } from '@kofn/core';
import { createHash } from 'node:crypto';
import { FLEETS, simulateFleet, WARM_UP, type ScaleResult } from './scale.js';
import { simulate, type Outcome } from './simulate.js';

const HELP = `Usage: npm run sim -- [options]

Runs kofn's master and workers, their own code, on virtual time and a simulated network through faults drawn from a seed,
and checks: answers are exact, deadlines hold, none is lost while at most r workers fail, beyond r each request ends
exactly or with one typed error, nothing is left pending, no worker exceeds its memory, the master knows at any time which workers
are there, what stands on them is whole again a while after the last fault, a master that begins sends nothing that stands, every
worker that answers wrong is found out, and no other is put aside.

Options:
  --seed S     first seed, a whole number (default 0)
  --seeds N    how many seeds to run, one after another (default 1000)
  --scale      instead: fleets of 10, 100 and 1000 workers, each layer on ten of them, through 1,000 requests a layer, with
               workers killed and paused meanwhile; says what a request costs in each
  --trace      print what happened in every seed, not only in the first that fails
  --json       print one JSON object
  --help       print this

Exits with 0 when nothing was found, 1 when something was, 2 for a wrong option, 130 after Ctrl-C. A seed replays byte for
byte: npm run sim -- --seed S --seeds 1 --trace
`;

interface Options {
  readonly seed: number;
  readonly seeds: number;
  readonly scale: boolean;
  readonly trace: boolean;
  readonly json: boolean;
}

interface Summary {
  readonly seed: number;
  readonly ran: number;
  readonly failures: readonly Outcome[];
  readonly events: number;
  readonly requests: number;
  /** Masters that died, and blocks that were put to another worker, or again. */
  readonly restarts: number;
  readonly healed: number;
  /** Wrong replies that were not believed. */
  readonly caught: number;
  readonly hash: string;
  readonly seconds: number;
  readonly wasInterrupted: boolean;
}

/** Throws INVALID_ARGUMENT; undefined when help was asked for. */
function parse(args: readonly string[]): Options | undefined {
  let values;
  try {
    ({ values } = parseArgs({
      args: [...args],
      options: {
        seed: { type: 'string', default: '0' },
        seeds: { type: 'string', default: '1000' },
        scale: { type: 'boolean', default: false },
        trace: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }));
  } catch (error) {
    throw KofnError.from(error, 'INVALID_ARGUMENT');
  }
  if (values.help) return undefined;
  const whole = (name: 'seed' | 'seeds', least: number, most: number): number => {
    const value = Number(values[name]);
    if (/^\d+$/.test(values[name]) && value >= least && value <= most) return value;
    throw new KofnError(
      'INVALID_ARGUMENT',
      `--${name} ${values[name]}: must be a whole number from ${least} to ${most}`,
    );
  };
  const { scale, trace, json } = values;
  return { seed: whole('seed', 0, 2 ** 48), seeds: whole('seeds', 1, 1e9), scale, trace, json };
}

async function run({ seed, seeds, trace, json }: Options, interrupt: AbortSignal): Promise<Summary> {
  const hash = createHash('sha256');
  const failures: Outcome[] = [];
  const startMs = systemClock.now();
  const seconds = () => (systemClock.now() - startMs) / 1000;
  let [ran, events, requests, restarts, healed, caught] = [0, 0, 0, 0, 0, 0];
  for (; ran < seeds && !interrupt.aborted; ran++) {
    const outcome = await simulate(seed + ran);
    hash.update(outcome.hash);
    events += outcome.events;
    requests += outcome.requests;
    restarts += outcome.restarts;
    healed += outcome.healed;
    for (const count of outcome.caught.values()) caught += count;
    if (outcome.violations.length > 0) failures.push(outcome);
    const isFirstFailure = failures.length === 1 && outcome === failures[0];
    if (!json) report(outcome, trace || isFirstFailure);
    if (ran % 20 === 0) {
      progress(`${ran} of ${seeds} seeds, ${failures.length} failed, ${Math.round(ran / seconds())} a second `);
    }
  }
  progress('');
  const wasInterrupted = ran < seeds;
  const counts = { seed, ran, failures, events, requests, restarts, healed, caught };
  return { ...counts, hash: hash.digest('hex'), seconds: seconds(), wasInterrupted };
}

function report({ seed, violations, trace, hash }: Outcome, withTrace: boolean): void {
  if (violations.length > 0 || withTrace) progress('');
  if (violations.length > 0) {
    console.log(`seed ${seed} failed; replay it with: npm run sim -- --seed ${seed} --seeds 1 --trace`);
    for (const violation of violations) console.log(`  ${violation}`);
  }
  if (withTrace && trace.length > 0) console.log(`${trace.join('\n')}\nseed ${seed}: ${hash}\n`);
}

function sum({ seed, ran, failures, hash, seconds, ...counts }: Summary): string {
  const { events, requests, restarts, healed, caught } = counts;
  const rates = `${Math.round(ran / seconds)} seeds and ${Math.round(events / seconds)} events a second`;
  return (
    `seeds ${seed} to ${seed + ran - 1}: ${failures.length} failed; ${requests} requests, ${events} events, ` +
    `${seconds.toFixed(1)} s (${rates})\n${restarts} masters died, ${healed} blocks were healed, ${caught} wrong replies caught\n` +
    `traces: ${hash}`
  );
}

function toJson({ failures, seconds, ...rest }: Summary): string {
  const failed = failures.map(({ seed, violations, hash }) => ({ seed, violations, hash }));
  return JSON.stringify({ ...rest, seconds, eventsPerSecond: rest.events / seconds, failures: failed });
}

/** One fleet after another; fails when a request was lost or wrong. */
async function scale({ seed, json }: Options, interrupt: AbortSignal): Promise<number> {
  const results: ScaleResult[] = [];
  progress('warming up ');
  await simulateFleet(seed, WARM_UP, { signal: interrupt });
  for (const fleet of FLEETS) {
    const result = await simulateFleet(seed, fleet, {
      signal: interrupt,
      onProgress: done => {
        if (done % 500 === 0) progress(`${fleet.workers} workers: ${done} of ${fleet.requests} requests `);
      },
    });
    progress('');
    if (result === undefined) return 130;
    results.push(result);
    if (!json) console.log(describeFleet(result));
  }
  if (json) console.log(JSON.stringify({ seed, fleets: results }));
  return results.some(({ lost, wrong }) => lost + wrong > 0) ? 1 : 0;
}

function describeFleet(result: ScaleResult): string {
  const { workers, layers, requests, lost, wrong, kills, pauses, events, cpuMicros, gcMicros, seconds } = result;
  return (
    `${workers} workers, ${layers} layers: ${requests} requests, ${lost} lost, ${wrong} wrong; ${kills} kills, ${pauses} pauses; ` +
    `a request: ${(events / requests).toFixed(1)} events, ${Math.round(cpuMicros)} µs of processor (${Math.round(gcMicros)} of ` +
    `them garbage collection); ${seconds.toFixed(1)} s`
  );
}

/** Replaces the line on the terminal. */
function progress(line: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${line}`);
}

async function main(): Promise<number> {
  const options = parse(process.argv.slice(2));
  if (options === undefined) {
    process.stdout.write(HELP);
    return 0;
  }
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort()); // a second one ends the process at once
  if (options.scale) return scale(options, interrupt.signal);
  const summary = await run(options, interrupt.signal);
  if (summary.ran > 0) console.log(options.json ? toJson(summary) : sum(summary));
  if (summary.wasInterrupted) return 130;
  return summary.failures.length > 0 ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!isKofnError(error)) throw error;
  process.stderr.write(`${error.message}; --help shows the options\n`);
  process.exitCode = 2;
}
