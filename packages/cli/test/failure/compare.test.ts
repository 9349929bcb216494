import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, it } from 'mocha';
import { comparisonText } from '../../src/commands/bench-compare.js';
import { compareRuns, type Comparison, type Figure } from '../../src/failure/result/compare.js';
import type { CellResult, RunResult } from '../../src/failure/result/result.js';
import { main } from '../../src/main.js';
import { drawRun, type Drawn } from '../support/run-result.js';

const SMALL: Drawn = { requests: 300, bare: true, strategies: ['failover', 'cdc-r1'], faults: ['none'] };

const verdictsOf = ({ cells }: Comparison, figure: Figure) =>
  cells.map(({ figures }) => figures.find(each => each.figure === figure)!.verdict);

/** `run` with the first cell changed. */
function changed(run: RunResult, change: Partial<CellResult>): RunResult {
  const [first, ...rest] = run.cells;
  return { ...run, cells: [{ ...first!, ...change }, ...rest] };
}

describe('kofn bench compare', () => {
  it('finds no change between two draws of one distribution, in 95 % of seeds at least', () => {
    let found = 0;
    for (let seed = 0; seed < 40; seed++) {
      const { worse, better } = compareRuns(
        drawRun({ ...SMALL, seed: 2 * seed }),
        drawRun({ ...SMALL, seed: 2 * seed + 1 }),
      );
      if (worse + better > 0) found++;
    }
    assert.ok(found <= 2, `${found} of 40`);
  });

  it('finds a change of 30 %, and which way it goes', () => {
    const [slow, fast] = [drawRun({ ...SMALL, seed: 2, slower: 1.3 }), drawRun({ ...SMALL, seed: 1 })];
    assert.deepEqual(verdictsOf(compareRuns(fast, slow), 'p50'), ['worse', 'worse']);
    assert.deepEqual(verdictsOf(compareRuns(slow, fast), 'p50'), ['better', 'better']);
    assert.deepEqual(verdictsOf(compareRuns(fast, slow), 'p999'), ['not compared', 'not compared']);
  });

  it('a small change is none, and with one repeat a middling one is none either, which it says', () => {
    const at = (repeats: number, slower: number, seed: number) =>
      drawRun({ ...SMALL, strategies: ['cdc-r1'], requests: 4000, repeats, slower, seed });
    assert.deepEqual(verdictsOf(compareRuns(at(2, 1, 1), at(2, 1.01, 2)), 'p50'), ['same']);
    const two = compareRuns(at(2, 1, 1), at(2, 1.06, 2));
    assert.deepEqual([verdictsOf(two, 'p50'), two.warnings], [['worse'], []]);
    const one = compareRuns(at(2, 1, 1), at(1, 1.06, 2));
    assert.deepEqual(verdictsOf(one, 'p50'), ['same']);
    assert.match(one.warnings.join('\n'), /single repeat.*10 % on: all cells/);
  });

  it('wrong answers are never noise; lost ones by chance are', () => {
    const run = drawRun({ ...SMALL, requests: 100 });
    const verdicts = (change: Partial<CellResult>, figure: Figure) => [
      verdictsOf(compareRuns(run, changed(run, change)), figure)[0],
      verdictsOf(compareRuns(changed(run, change), run), figure)[0],
    ];
    assert.deepEqual(verdicts({ wrong: 1 }, 'wrong'), ['worse', 'better']);
    assert.deepEqual(verdicts({ lost: 1 }, 'lost'), ['same', 'same']);
    assert.deepEqual(verdicts({ lost: 20 }, 'lost'), ['worse', 'better']);
    assert.deepEqual(verdicts({ busyMsPerRequest: 190 }, 'busy'), ['same', 'same']);
    assert.deepEqual(verdicts({ busyMsPerRequest: 290 }, 'busy'), ['worse', 'better']);
    assert.deepEqual(verdicts({ bytesPerRequest: { sent: 74_000, received: 46_100 } }, 'bytes'), ['worse', 'better']);
  });

  it('says what only one has, and what makes it unfair', () => {
    const run = drawRun({ ...SMALL, requests: 100 });
    const other = changed(
      { ...run, environment: { ...run.environment, cores: 8 }, cells: run.cells.slice(0, 1) },
      { device: 'native', complete: false },
    );
    const comparison = compareRuns(run, other);
    assert.deepEqual([comparison.onlyBefore, comparison.onlyAfter], [[run.cells[1]!.name], []]);
    const text = comparisonText(comparison);
    for (const words of [
      /cores differs: 4 before, 8 after/,
      /the device differs/,
      /cut short/,
      /only before: .*cdc-r1/,
      /nothing changed/,
    ]) {
      assert.match(text, words);
    }
  });

  it('exits with 0, with 1 when something got worse, with 2 for bad input', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'kofn-compare-'));
    const run = drawRun({ ...SMALL, requests: 100 });
    const save = async (name: string, value: unknown) => {
      await writeFile(path.join(folder, name), JSON.stringify(value));
      return path.join(folder, name);
    };
    try {
      const before = await save('before.json', run);
      const worse = await save('worse.json', changed(run, { wrong: 1 }));
      const others = await save('others.json', { ...run, cells: [] });
      assert.equal((await quietly(['bench', 'compare', before, before])).exitCode, 0);
      const { exitCode, stdout } = await quietly(['bench', 'compare', before, worse, '--json']);
      assert.deepEqual([exitCode, (JSON.parse(stdout) as Comparison).worse], [1, 1]);
      for (const bad of [others, path.join(folder, 'none.json'), await save('bad.json', 'text')]) {
        assert.equal((await quietly(['bench', 'compare', before, bad])).exitCode, 2, bad);
      }
      assert.equal((await quietly(['bench', 'compare', before])).exitCode, 2);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

/** Runs a command line with what it prints kept. */
async function quietly(args: string[]): Promise<{ exitCode: number; stdout: string }> {
  const { stdout, stderr } = process;
  const [writeOut, writeError] = [stdout.write.bind(stdout), stderr.write.bind(stderr)];
  let printed = '';
  stdout.write = (text: string) => ((printed += text), true);
  stderr.write = () => true;
  try {
    return { exitCode: await main(args), stdout: printed };
  } finally {
    stdout.write = writeOut;
    stderr.write = writeError;
  }
}
