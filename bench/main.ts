/**
 * The benchmarks of the hot path: `npm run bench`, with --help for the rest. Each runs in a process of its own, so that none
 * meets what another left in the heap or taught the compiler, with the heap of the kofn commands (docs/adr/0004-heap.md), which the
 * processes of the baselines have, too.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { HEAP, openProgress, toolOptions } from 'kofn/measure';
import type { Bench } from './bench.js';
import { BENCHES } from './benches.js';
import { missed, resultOf, resultsFolder, tableOf, writeResult, writeTable, type Result } from './results.js';

const names = BENCHES.map(({ name, what }) => `  ${name.padEnd(18)} ${what}`).join('\n');
const HELP = `Usage: npm run bench -- [NAME...] [options]

What a coded request costs over the bare transport and the bare engine: each figure a ratio against a baseline that is measured in
turn with it. Results go to bench/local/results/, which git ignores. A NAME may be a group, as transport.

${names}

Options:
  --save     write the results to bench/results/, where bench/README.md has its figures from
  --check    exit with 1 when a target is missed, and list those
  --profile  print where the time goes instead of the figures (layer)
  --json     print the results as JSON
  --help     print this

For example:
  npm run bench -- transport/gather layer
  npm run bench -- layer --profile
`;

const { values: flags, positionals } = options();
if (process.send !== undefined) await runHere(BENCHES.find(({ name }) => name === positionals[0])!);
else await runAll();

function options() {
  let positional: string[] = [];
  const values = toolOptions(HELP, () => {
    const parsed = parseArgs({
      allowPositionals: true,
      options: {
        save: { type: 'boolean' },
        check: { type: 'boolean' },
        profile: { type: 'boolean' },
        json: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    });
    positional = parsed.positionals;
    return parsed.values;
  });
  return { values, positionals: positional };
}

async function runAll(): Promise<void> {
  const isAsked = ({ name }: Bench, asked: string) => name === asked || name.startsWith(`${asked}/`);
  const unknown = positionals.find(asked => !BENCHES.some(bench => isAsked(bench, asked)));
  if (unknown !== undefined) {
    console.error(`there is no benchmark ${unknown}; --help lists them`);
    process.exit(2);
  }
  const chosen = BENCHES.filter(
    bench =>
      (positionals.length === 0 || positionals.some(asked => isAsked(bench, asked))) &&
      (flags.profile !== true || bench.profile !== undefined),
  );
  const folder = resultsFolder(flags.save === true);
  const results: Result[] = [];
  for (const bench of chosen) {
    const outcome = await inChild(bench);
    if ('lines' in outcome) console.log(outcome.lines.join('\n'));
    else {
      results.push(outcome);
      writeResult(folder, outcome);
    }
  }
  if (results.length === 0) return;
  writeTable(folder, BENCHES);
  if (flags.json) console.log(JSON.stringify(results));
  else console.log(tableOf(results));
  const misses = missed(results);
  if (misses.length > 0) console.error(`\nmissed:\n${misses.map(miss => `  ${miss}`).join('\n')}`);
  if (flags.check && misses.length > 0) process.exitCode = 1;
}

type FromChild = { readonly progress: [number, number] } | { readonly outcome: Result | { readonly lines: string[] } };

async function inChild(bench: Bench): Promise<Result | { lines: string[] }> {
  const child = fork(new URL(import.meta.url), [bench.name, ...(flags.profile ? ['--profile'] : [])], {
    execArgv: ['--expose-gc', ...HEAP],
  });
  using progress = openProgress(` ${bench.name} {bar} {percentage} %`, 100);
  let outcome: Result | { lines: string[] } | undefined;
  child.on('message', (message: FromChild) => {
    if ('outcome' in message) outcome = message.outcome;
    else progress.update((100 * message.progress[0]) / message.progress[1]);
  });
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code === 0 && outcome !== undefined) return outcome;
  console.error(`${bench.name} ended with ${code}`);
  return process.exit(1);
}

async function runHere(bench: Bench): Promise<void> {
  process.on('disconnect', () => process.exit(1)); // its parent is gone
  const send = (message: FromChild) => process.send!(message);
  let last = -1;
  const progress = (done: number, total: number) => {
    const percent = Math.floor((100 * done) / total);
    if (percent !== last) send({ progress: [done, total] });
    last = percent;
  };
  const outcome = flags.profile
    ? { lines: await bench.profile!({ progress }) }
    : resultOf(bench, await bench.run({ progress }));
  process.removeAllListeners('disconnect');
  await new Promise<void>(resolve => process.send!({ outcome } satisfies FromChild, () => resolve()));
  process.disconnect();
}
