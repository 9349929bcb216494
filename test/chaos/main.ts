/**
 * npm run chaos -- [--requests 2000] [--seed S] [--json]: the long form of chaos.test.ts. Prints the seed first, which replays
 * the run's faults (run.ts); exits 1 when a check fails.
 */
import { parseArgs } from 'node:util';
import { formatBytes, formatMs, note, openProgress, toolOptions } from 'kofn/measure';
import { runChaos, type ChaosResult } from './run.js';

const MAX_REQUESTS = 1_000_000;

const HELP = `Usage: npm run chaos -- [options]

Runs the demo's network on real workers behind links of its own, under load, while faults drawn from a seed strike one worker
after another: SIGKILL and restart, SIGSTOP, a link that swallows, resets, corrupts, drips or delays; a worker lost for good, back
with an empty disk or a full one, or wrong in every answer; and the master's event loop stands still. Checks: none lost, none wrong,
all by their deadline, every worker used again, none blamed that is honest, the model whole again, nothing piles up.

Options:
  --requests N  how many requests (default 2000)
  --seed S      faults of an earlier run (default: drawn, and printed first)
  --json        print one JSON object
  --help        print this

Exits with 0 when everything holds, 1 when something does not, 2 for a wrong option. For example:
  npm run chaos -- --requests 500 --seed 7
`;

const flags = toolOptions(
  HELP,
  () =>
    parseArgs({
      options: {
        requests: { type: 'string' },
        seed: { type: 'string' },
        json: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    }).values,
);
const requests = whole('--requests', flags.requests ?? '2000', 1, MAX_REQUESTS);
const seed = whole('--seed', flags.seed ?? `${Date.now() % 2 ** 31}`, 0, 2 ** 31);
note(`chaos: seed ${seed}; again with: npm run chaos -- --requests ${requests} --seed ${seed}`);
const result = await withProgress();
if (flags.json) console.log(JSON.stringify(result));
else print(result);
if (!result.holds) process.exitCode = 1;

async function withProgress(): Promise<ChaosResult> {
  let bar: ReturnType<typeof openProgress> | undefined;
  const format = ' chaos {bar} fault {value}/{total} | {requests} requests, lost {lost} | {fault}';
  try {
    return await runChaos({
      ...{ requests, seed },
      onProgress({ faults, of, ...about }) {
        bar ??= openProgress(format, of, { requests: '0', lost: '0', fault: '' });
        bar.update(faults, () => ({
          ...{ requests: String(about.requests), lost: String(about.lost), fault: about.fault },
        }));
      },
    });
  } finally {
    bar?.[Symbol.dispose]();
  }
}

function print({ growth, failures, left, ...run }: ChaosResult): void {
  const faults = Object.entries(run.faults).map(([kind, count]) => `${kind} ${count}`);
  console.log(
    '| requests | lost | wrong | late | unhealed | false alarms | misjudged | p50, ms | p99, ms | worst, ms | s |',
  );
  console.log('|---|---|---|---|---|---|---|---|---|---|---|');
  const times = [run.p50Ms, run.p99Ms, run.maxMs].map(formatMs);
  const cells = [
    run.requests,
    run.lost,
    run.wrong,
    run.late,
    run.unhealed,
    run.falseAlarms,
    run.misjudged,
    ...times,
    run.seconds,
  ];
  console.log(`| ${cells.join(' | ')} |`);
  console.log(
    `\nfaults: ${faults.join(', ')}; workers given up and used again ${run.losses} times; ` +
      `${run.healed} blocks healed, margin ${run.margin} at the end; event loop stopped ${run.blocks} times\n`,
  );
  console.log('| process | what | second quarter | last quarter | flat |\n|---|---|---|---|---|');
  for (const { process: name, figure, second, last, flat } of growth) {
    const [a, b] = [second, last].map(value => (figure === 'rssBytes' ? formatBytes(value) : String(value)));
    console.log(`| ${name} | ${figure} | ${a} | ${b} | ${flat ? '✓' : '✗'} |`);
  }
  if (left.length > 0) console.log(`\nleft open at the end: ${left.join(', ')}`);
  for (const failure of failures) console.log(failure);
}

function whole(option: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  console.error(`${option} ${text}: must be a whole number from ${min} to ${max}`);
  process.exit(2);
}
