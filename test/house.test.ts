/** The scripts of this repository: what a build leaves, and where benchmarks write. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { after, describe, it } from 'mocha';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

describe('the house', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'kofn-test-house-'));
  after(() => rmSync(folder, { recursive: true }));

  it('a build removes what it made of sources that are gone, and nothing else', async () => {
    const script = pathToFileURL(path.join(ROOT, 'scripts', 'stale.mjs')).href;
    const { removeStale } = (await import(script)) as { removeStale: (root: string) => void };
    const write = (file: string, text = '') => {
      mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
      writeFileSync(path.join(folder, file), text);
    };
    write('tsconfig.json', '{"references": [{"path": "packages/a"}, {"path": "test"}, {"path": "unbuilt"}]}');
    for (const project of ['packages/a', 'unbuilt']) write(`${project}/tsconfig.json`, '{"include": ["src", "test"]}');
    write('test/tsconfig.json', '{"include": ["**/*.ts"]}');
    for (const source of ['packages/a/src/view.tsx', 'packages/a/test/kept.test.ts', 'test/sim/kept.test.ts'])
      write(source);
    const ends = ['.js', '.js.map', '.d.ts', '.d.ts.map'];
    for (const end of ends) {
      for (const made of ['packages/a/dist/src/view', 'packages/a/dist/test/kept.test', 'test/dist/sim/kept.test'])
        write(made + end);
      for (const stale of ['packages/a/dist/test/gone.test', 'test/dist/sim/gone.test', 'test/dist/gone.test'])
        write(stale + end);
    }
    const others = [
      'packages/a/dist/page/assets.js',
      'packages/a/dist/tsconfig.tsbuildinfo',
      'test/dist/sim/data.json',
    ];
    for (const other of others) write(other);
    removeStale(folder);
    const left = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter(name => name.includes('dist/'));
    assert.deepEqual(
      left.filter(name => name.includes('gone')),
      [],
    );
    assert.deepEqual(
      [left.filter(name => /kept|view/.test(name)).length, others.every(name => left.includes(name))],
      [12, true],
    );
  });

  it('a benchmark writes where git does not look, unless it is told to save', () => {
    const ignored = [
      'bench/local/results/table.md',
      'bench/local/figures/results/death.json',
      'kofn-bench/result.json',
    ];
    const found = execFileSync('git', ['check-ignore', '--no-index', ...ignored], { cwd: ROOT, encoding: 'utf8' });
    assert.deepEqual(found.trim().split('\n'), ignored);
    const drawn = path.join(ROOT, 'bench', 'local', 'figures', 'cost.svg');
    rmSync(drawn, { force: true });
    const status = () => execFileSync('git', ['status', '--porcelain', 'bench'], { cwd: ROOT, encoding: 'utf8' });
    const before = status();
    execFileSync(process.execPath, [path.join(ROOT, 'bench', 'dist', 'figures', 'main.js'), 'cost', '--draw'], {
      stdio: 'pipe',
    });
    assert.deepEqual(
      readdirSync(path.dirname(drawn)).filter(name => name.startsWith('cost')),
      ['cost.md', 'cost.png', 'cost.svg'],
    );
    assert.equal(status(), before);
  });
});
