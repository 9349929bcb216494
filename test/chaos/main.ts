/**
 * npm run chaos -- [--requests 2000] [--seed S] [--json]: the long form of chaos.test.ts. Prints the seed first, which replays
 * the run's faults (run.ts); exits 1 when a check fails.
 */
import { parseArgs } from 'node:util';
import { formatBytes, formatMs, note, openProgress } from 'kofn/measure';
import { runChaos, type ChaosResult } from './run.js';

const MAX_REQUESTS = 1_000_000;

const { values: flags } = parseArgs({
  options: { requests: { type: 'string' }, seed: { type: 'string' }, json: { type: 'boolean' } },
});
const requests = whole('--requests', flags.requests ?? '2000', 1, MAX_REQUESTS);
const seed = whole('--seed', flags.seed ?? `${Date.now() % 2 ** 31}`, 0, 2 ** 31);
note(`chaos: seed ${seed}; again with: npm run chaos -- --requests ${requests} --seed ${seed}`);
const result = await withProgress();
if (flags.json) console.log(JSON.stringify(result));
else print(result);
if (!result.holds) process.exitCode = 1;

async function withProgress(): Promise<ChaosResult> {
  const format = ' chaos {bar} {value}/{total} | lost {lost} | {fault}';
  using progress = openProgress(format, requests, { lost: '0', fault: '' });
  return await runChaos({
    ...{ requests, seed },
    onProgress: (done, fault, lost) => progress.update(done, () => ({ fault, lost: String(lost) })),
  });
}

function print({ growth, failures, ...run }: ChaosResult): void {
  const faults = Object.entries(run.faults).map(([kind, count]) => `${kind} ${count}`);
  console.log('| requests | lost | wrong | late | unhealed | p50, ms | p99, ms | worst, ms | s |');
  console.log('|---|---|---|---|---|---|---|---|---|');
  const times = [run.p50Ms, run.p99Ms, run.maxMs].map(formatMs);
  const cells = [run.requests, run.lost, run.wrong, run.late, run.unhealed, ...times, run.seconds];
  console.log(`| ${cells.join(' | ')} |`);
  console.log(`\nfaults: ${faults.join(', ')}; event loop stopped ${run.blocks} times\n`);
  console.log('| process | what | second quarter | last quarter | flat |\n|---|---|---|---|---|');
  for (const { process: name, figure, second, last, flat } of growth) {
    const [a, b] = [second, last].map(value => (figure === 'rssBytes' ? formatBytes(value) : String(value)));
    console.log(`| ${name} | ${figure} | ${a} | ${b} | ${flat ? '✓' : '✗'} |`);
  }
  for (const failure of failures) console.log(failure);
}

function whole(option: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  console.error(`${option} ${text}: must be a whole number from ${min} to ${max}`);
  process.exit(2);
}
