/**
 * npm run soak -- [--minutes 30] [--seed S] [--json]: the long form of soak.test.ts (run.ts). Ctrl-C ends it with the report of what was
 * until then; exits 1 when a check fails.
 */
import { parseArgs } from 'node:util';
import { formatBytes, formatMs, Interrupt, note, openProgress, toolOptions } from 'kofn/measure';
import { ALLOWANCES } from './judge.js';
import { runSoak, type SoakResult } from './run.js';

const MAX_MINUTES = 10_000;

const HELP = `Usage: npm run soak -- [options]

Runs the demo's network on six real workers, one of them a spare, under load for a long time, while workers are told to stop,
killed, and started again, and what a lost one held is put to the spare. Checks: no request lost, wrong or late; all whole after
each; and what the master (memory, open files, sockets, handles, timers) and each worker (memory, open files, sockets) hold does
not grow: the last quarter of the run against the first, without the warm-up (a fifth of the run, 20 s to 5 minutes), may be
${Math.round(100 * (ALLOWANCES.rssBytes.times - 1))} % and ${formatBytes(ALLOWANCES.rssBytes.plus)} more of memory, ${ALLOWANCES.files.plus} files, ${ALLOWANCES.sockets.plus} sockets, ${ALLOWANCES.handles.plus} handles, ${ALLOWANCES.timers.plus} timers.

Options:
  --minutes N  how long (default 30; 0.5 is half a minute)
  --seed S     which worker, and what, of an earlier run (default: drawn, and printed first)
  --json       print one JSON object
  --help       print this

Ctrl-C ends it with the report so far. Exits with 0 when everything holds, 1 when something does not, 2 for a wrong option, 130
when it was interrupted. For example:
  npm run soak -- --minutes 5 --seed 7
`;

const flags = toolOptions(
  HELP,
  () =>
    parseArgs({
      options: {
        minutes: { type: 'string' },
        seed: { type: 'string' },
        json: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    }).values,
);
const minutes = Number(flags.minutes ?? '30');
if (!(minutes > 0 && minutes <= MAX_MINUTES))
  wrong(`--minutes ${flags.minutes}: must be a number above 0, up to ${MAX_MINUTES}`);
const seed = Number(flags.seed ?? Date.now() % 2 ** 31);
if (!Number.isInteger(seed) || seed < 0) wrong(`--seed ${flags.seed}: must be a whole number from 0`);
note(`soak: seed ${seed}; again with: npm run soak -- --minutes ${minutes} --seed ${seed}`);
using interrupt = new Interrupt();
const result = await withProgress();
if (flags.json) console.log(JSON.stringify(result));
else print(result);
process.exitCode = interrupt.exitCode ?? (result.holds ? 0 : 1);

async function withProgress(): Promise<SoakResult> {
  const seconds = Math.ceil(60 * minutes);
  using bar = openProgress(' soak {bar} {value}/{total} s | {requests} requests, lost {lost} | {done}', seconds, {
    requests: '0',
    lost: '0',
    done: '',
  });
  return await runSoak({
    ...{ minutes, seed, signal: interrupt.signal },
    onProgress: ({ ms, requests, lost, done }) =>
      bar.update(Math.min(seconds, Math.floor(ms / 1000)), () => ({
        requests: String(requests),
        lost: String(lost),
        done: counted(done),
      })),
  });
}

function print({ growth, failures, left, warmUpSeconds, done, ...run }: SoakResult): void {
  console.log(
    '| requests | lost | wrong | late | p50, ms | p99, ms | worst, ms | s |\n|---|---|---|---|---|---|---|---|',
  );
  const times = [run.p50Ms, run.p99Ms, run.maxMs].map(formatMs);
  console.log(`| ${[run.requests, run.lost, run.wrong, run.late, ...times, run.seconds].join(' | ')} |`);
  console.log(`\n${counted(done)}${run.isInterrupted ? '; interrupted' : ''}\n`);
  if (growth.length === 0) console.log(`too short to tell growth: the first ${warmUpSeconds} s are warm-up`);
  else console.log('| process | what | start | end | allowed | |\n|---|---|---|---|---|---|');
  for (const { process: name, figure, start, end, allowed, holds } of growth) {
    const cells = [start, end, allowed].map(value => (figure === 'rssBytes' ? formatBytes(value) : String(value)));
    console.log(`| ${name} | ${figure} | ${cells.join(' | ')} | ${holds ? '✓' : '✗'} |`);
  }
  if (left.length > 0) console.log(`\nleft open at the end: ${left.join(', ')}`);
  for (const failure of failures) console.log(failure);
}

function counted(done: SoakResult['done']): string {
  return Object.entries(done)
    .map(([kind, count]) => `${kind} ${count}`)
    .join(', ');
}

function wrong(message: string): never {
  console.error(message);
  process.exit(2);
}
