// Installs and builds what is missing, once: `npm test` and `npm run demo` call it, so each works as the first
// command after `git clone`. Uses nothing but Node. Everything it says goes to stderr: stdout is the command's own.
//   --force-build   build even when nothing seems to have changed
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import { removeStale } from './stale.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const at = (...parts) => path.join(root, ...parts);

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 15) || major === 21 || (major === 22 && minor < 2)) {
  fail(
    `kofn needs Node 20.15, or 22.2 or newer; this is ${process.version}. Install a newer one and run the command again.`,
  );
}
if (process.platform === 'win32') fail('kofn runs on Linux (x64, arm64) and macOS; use WSL on Windows.');

install();
build();

function install() {
  const stamp = at('node_modules', '.kofn-lock');
  const lock = createHash('sha256')
    .update(readFileSync(at('package-lock.json')))
    .digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === lock) return;
  console.error('kofn: installing dependencies (once) …');
  // ignore-scripts stands in .npmrc too; said here again for an npm that is told to use another configuration.
  run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { ONNXRUNTIME_NODE_INSTALL: 'skip' });
  writeFileSync(stamp, lock);
}

function build() {
  const args = [at('node_modules', 'typescript', 'bin', 'tsc'), '-b', root];
  const built = existsSync(at('packages', 'cli', 'dist', 'src', 'index.js'));
  if (!built) console.error('kofn: building (once) …');
  if (process.argv.includes('--force-build')) args.push('--force');
  run(process.execPath, args);
  removeStale(root);
  buildPage();
  // Files that packages read at run time and that live at the root of the repository.
  copy(at('protos'), at('packages', 'wire', 'protos'));
  copy(at('bench', 'failure'), at('packages', 'cli', 'configs'), file => /(failure|\.yaml)$/.test(file));
  copy(at('models'), at('packages', 'cli', 'models'), file => !/(\.py|check-fashion-cnn\.mjs)$/.test(file));
}

/** The web page, when what it is made of has changed. */
function buildPage() {
  const folder = at('packages', 'dashboard');
  const sources = [
    at('package-lock.json'),
    ...['index.html', 'package.json', 'vite.config.js'].map(name => path.join(folder, name)),
    ...readdirSync(path.join(folder, 'src'), { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile())
      .map(({ parentPath, name }) => path.join(parentPath, name)),
    ...['images', 'labels'].map(name => at('models', `fashion-test-${name}.npy`)),
  ];
  const hash = createHash('sha256');
  for (const source of sources) hash.update(source.slice(root.length)).update(readFileSync(source));
  const digest = hash.digest('hex');
  const stamp = path.join(folder, 'dist', '.page');
  const isBuilt = existsSync(stamp) && readFileSync(stamp, 'utf8') === digest;
  if (isBuilt && !process.argv.includes('--force-build')) return;
  run(process.execPath, [at('node_modules', 'vite', 'bin', 'vite.js'), 'build', folder]);
  writeFileSync(stamp, digest);
}

function copy(from, to, filter = () => true) {
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to, { recursive: true });
  cpSync(from, to, { recursive: true, filter });
}

function run(command, args, env = {}) {
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 2, 2],
    env: { ...process.env, ...env },
  });
  if (result.error) fail(`${command}: ${result.error.message}`);
  if (result.status !== 0) fail(`\`${path.basename(command)} ${args.join(' ')}\` failed; its messages are above.`);
}

function fail(message) {
  console.error(`kofn: ${message}`);
  process.exit(1);
}
