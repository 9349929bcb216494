// Commands in two lanes, each lane taking the next when it has ended one; and the suites that the tests make.
//
// Invariants
// 1. Every test file is in one suite: what no other takes is in the last.
// 2. A suite whose process does not end after its tests is ended, and does not fail for that; one that ends before its tests have has failed.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { clearInterval, setInterval } from 'node:timers';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), 'kofn-tests-'));
const children = new Set();
const LANES = 2;
/** As scripts/reporter.cjs counts. */
const NO_TESTS = { passes: 0, failures: 0, pending: 0, failed: [] };
/** scripts/left-open.cjs ends what a test kept alive well before. */
const EXIT_WAIT_MS = 60_000;

/**
 * In this order: beside the commands, which start many processes and wait for them, what only computes (`computes`); then the others, so that
 * both lanes end at about the same time.
 */
const SUITES = [
  { name: 'e2e', holds: /^test\/dist\/e2e\// },
  { name: 'compliance', holds: /^test\/dist\/compliance\/(?!engines|conformance|generated)/, computes: true },
  { name: 'engines', holds: /^test\/dist\/compliance\//, computes: true },
  { name: 'sim', holds: /^test\/dist\/sim\//, computes: true },
  { name: 'packages', holds: /^packages\/(?!master|worker|cli)/, computes: true },
  { name: 'cluster', holds: /^test\/dist\/cluster\// },
  { name: 'serve', holds: /^test\/dist\/serve\// },
  { name: 'chaos', holds: /^test\/dist\/chaos\// },
  { name: 'master, worker, cli', holds: /^packages\// },
  { name: 'others', holds: /./ },
];
const { require: required, reporter, timeout } = JSON.parse(readFileSync(path.join(root, '.mocharc.json'), 'utf8'));

process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    for (const child of children) child.kill(signal);
    process.exit(1);
  });
}

/** What `runAll` takes. `options` are mocha's. The long forms are of the files that have one (test/support/form.ts). */
export function suites({ isQuick = false, isLong = false, options = [] }) {
  const files = testFiles().filter(
    file => !isLong || /support\/form\.js/.test(readFileSync(path.join(root, file), 'utf8')),
  );
  const taken = new Set();
  return SUITES.flatMap(({ name, holds, computes = false }) => {
    const own = files.filter(file => !taken.has(file) && holds.test(file));
    for (const file of own) taken.add(file);
    if (own.length === 0 || (isQuick && !computes)) return [];
    const stats = path.join(folder, `${name}${isLong ? '-long' : ''}.json`);
    const env = { KOFN_TEST_STATS: stats, KOFN_TEST_FORM: isLong ? 'long' : 'short' };
    return [{ name: isLong ? `${name}, long` : name, command: mocha(own, options), env, stats }];
  });
}

/** Runs all `commands`, also when one fails. */
export async function runAll(commands) {
  const waiting = [...commands];
  const [results, lane] = [
    [],
    async () => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) results.push(await run(next));
    },
  ];
  await Promise.all(Array.from({ length: LANES }, lane));
  return {
    isGood: results.every(({ isGood }) => isGood),
    counts: results.map(({ counts }) => counts),
    failures: results.flatMap(({ failures }) => failures),
  };
}

/** What failed, and the line that CI reads. */
export function summary({ counts, failures }) {
  const sum = name => counts.reduce((total, each) => total + each[name], 0);
  const skipped = sum('pending') > 0 ? `, ${sum('pending')} skipped` : '';
  const said = failures.map(each => `  ${each}\n`).join('');
  return `\n${said && `failed:\n${said}\n`}${sum('passes')} passed, ${sum('failures')} failed${skipped}`;
}

/** The file that package `name` runs. */
export function bin(name) {
  const { bin: bins } = JSON.parse(readFileSync(path.join(root, 'node_modules', name, 'package.json'), 'utf8'));
  return path.join(root, 'node_modules', name, typeof bins === 'string' ? bins : bins[name]);
}

async function run({ name, command, env = {}, stats }) {
  const start = Date.now();
  console.error(`… ${name}`);
  const child = spawn(process.execPath, command, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  children.add(child);
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', text => (said += text));
  let isStuck = false;
  const watch = setInterval(() => {
    if (isStuck || !hasEnded(stats)) return;
    isStuck = true;
    said += `\nThe tests of ${name} have ended and process ${child.pid} has not; it is killed. Its threads:\n${threadsOf(child.pid)}`;
    child.kill('SIGKILL');
  }, 5_000);
  const code = await new Promise(resolve => child.once('close', resolve));
  clearInterval(watch);
  children.delete(child);
  process.stdout.write(said);
  console.error(`${code === 0 || isStuck ? '✔' : '✘'} ${name} (${Math.round((Date.now() - start) / 1000)} s)`);
  const isCounted = stats !== undefined && existsSync(stats);
  const { failed, ...counts } = isCounted ? JSON.parse(readFileSync(stats, 'utf8')) : NO_TESTS;
  const failures = failed.map(title => `${name}: ${title}`);
  if (stats !== undefined && !isCounted) failures.push(`${name} ended before its tests had (exit code ${code})`);
  else if (code !== 0 && !isStuck && failed.length === 0) failures.push(`${name} (exit code ${code})`);
  return { isGood: failures.length === 0, counts, failures };
}

/** mocha adds the files of its configuration to those that it is given, so it gets the rest of it as options. */
function mocha(files, options) {
  const all = ['--no-config', '--forbid-only', '--reporter', reporter, '--timeout', String(timeout)];
  return [bin('mocha'), ...all, ...required.flatMap(file => ['--require', file]), ...options, ...files];
}

/** What a build has made of the tests, relative to the root. */
function testFiles() {
  const packages = readdirSync(path.join(root, 'packages')).map(name => `packages/${name}/dist/test`);
  return ['test/dist', 'bench/dist', ...packages]
    .flatMap(from => {
      const found = readdirSync(path.join(root, from), { recursive: true });
      return found.filter(file => file.endsWith('.test.js')).map(file => path.posix.join(from, file));
    })
    .sort();
}

function hasEnded(stats) {
  const counted = stats === undefined ? undefined : statSync(stats, { throwIfNoEntry: false });
  return counted !== undefined && Date.now() - counted.mtimeMs > EXIT_WAIT_MS;
}

/** Where each thread of a process is: in an engine's own code, say. */
function threadsOf(pid) {
  try {
    const lines = readdirSync(`/proc/${pid}/task`).map(thread => {
      const about = ['comm', 'wchan'].map(file => readFileSync(`/proc/${pid}/task/${thread}/${file}`, 'utf8').trim());
      return `  ${thread} ${about.join(' in ')}\n`;
    });
    return lines.join('');
  } catch (error) {
    return `  unknown: ${error.message}\n`;
  }
}
