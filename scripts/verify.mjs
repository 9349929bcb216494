// What CI runs: lint, formatting and every test. In two lanes side by side, for the gate has two cores and most tests keep one busy:
// what only computes (on virtual time, or for long), with lint; and what starts processes and waits for them. What the second says
// is shown as it comes, what the first says when it has ended. Options are mocha's (`npm run verify -- --forbid-pending`). The last
// line, `N passed, N failed[, N skipped]` over both lanes, is what CI reads. Exit code 1 when anything failed.
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { clearInterval, setInterval } from 'node:timers';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), 'kofn-verify-'));
const children = new Set();
const stuck = new Set();
/** scripts/left-open.cjs ends what a test kept alive well before. */
const EXIT_WAIT_MS = 60_000;

/** Tests that only compute, and long ones that keep a core busy; all others wait. */
const COMPUTING = [
  'test/dist/{sim,compliance}/**/*.test.js',
  'test/dist/e2e/large-models.test.js',
  'test/dist/e2e/package.test.js',
  'bench/dist/**/*.test.js',
  'packages/{core,graph,encoder,engine,wire,dashboard}/dist/test/**/*.test.js',
];
/** What `npm test` runs, and how. */
const {
  spec: ALL,
  require: required,
  reporter,
  timeout,
} = JSON.parse(readFileSync(path.join(root, '.mocharc.json'), 'utf8'));

process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    for (const child of children) child.kill(signal);
    process.exit(1);
  });
}

const lanes = await Promise.all([
  lane('computing', { shows: false }, [[bin('eslint'), '.'], [bin('prettier'), '--check', '.'], mocha(COMPUTING)]),
  lane('waiting', { shows: true }, [mocha(ALL, { ignored: COMPUTING })]),
]);
const stats = ['computing', 'waiting'].map(statsOf);
const sum = name => stats.reduce((total, each) => total + each[name], 0);
const skipped = sum('pending') > 0 ? `, ${sum('pending')} skipped` : '';
console.log(`\n${sum('passes')} passed, ${sum('failures')} failed${skipped}`);
process.exitCode = lanes.every(Boolean) && sum('failures') === 0 ? 0 : 1;

/** Runs `commands` one after the other, all of them; whether all succeeded. */
async function lane(name, { shows }, commands) {
  let isGood = true;
  let kept = '';
  for (const command of commands) {
    const stdio = shows ? 'inherit' : ['ignore', 'pipe', 'pipe'];
    const env = { ...process.env, KOFN_TEST_STATS: statsFile(name) };
    const child = spawn(process.execPath, command, { cwd: root, stdio, env });
    children.add(child);
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', text => (kept += text));
    }
    const watch = setInterval(() => endStuck(child, name), 5_000);
    const code = await new Promise(resolve => child.once('close', resolve));
    clearInterval(watch);
    children.delete(child);
    if (code !== 0 && !stuck.has(child)) {
      isGood = false;
      kept += `\n${path.basename(command[0])} failed (${code})\n`;
    }
  }
  process.stdout.write(kept);
  // mocha only warns of it, and braces alone are no pattern to it.
  if (kept.includes('Cannot find any files matching pattern')) isGood = false;
  return isGood;
}

/** mocha adds the files of its configuration to those that it is given, so it gets the rest of it as options. */
function mocha(files, { ignored = [] } = {}) {
  const options = ['--no-config', '--forbid-only', '--reporter', reporter, '--timeout', String(timeout)];
  const all = [...required.flatMap(file => ['--require', file]), ...ignored.flatMap(pattern => ['--ignore', pattern])];
  return [bin('mocha'), ...options, ...all, ...process.argv.slice(2), ...files];
}

function bin(name) {
  const { bin: bins } = JSON.parse(readFileSync(path.join(root, 'node_modules', name, 'package.json'), 'utf8'));
  return path.join(root, 'node_modules', name, typeof bins === 'string' ? bins : bins[name]);
}

function statsFile(name) {
  return path.join(folder, `${name}.json`);
}

/** Ends a child whose tests are counted and whose process does not exit, and says where its threads are: in an engine's own code, say. */
function endStuck(child, name) {
  const counted = statSync(statsFile(name), { throwIfNoEntry: false });
  if (counted === undefined || Date.now() - counted.mtimeMs < EXIT_WAIT_MS || stuck.has(child)) return;
  stuck.add(child);
  console.error(`\nThe tests of lane ${name} have ended and process ${child.pid} has not; it is killed. Its threads:`);
  try {
    for (const thread of readdirSync(`/proc/${child.pid}/task`)) {
      const about = ['comm', 'wchan'].map(file =>
        readFileSync(`/proc/${child.pid}/task/${thread}/${file}`, 'utf8').trim(),
      );
      console.error(`  ${thread} ${about.join(' in ')}`);
    }
  } catch (error) {
    console.error(`  unknown: ${error.message}`);
  }
  child.kill('SIGKILL');
}

/** What scripts/reporter.cjs counted; a lane whose tests never ran has failed by its exit code. */
function statsOf(name) {
  try {
    return JSON.parse(readFileSync(statsFile(name), 'utf8'));
  } catch {
    return { passes: 0, failures: 0, pending: 0 };
  }
}
