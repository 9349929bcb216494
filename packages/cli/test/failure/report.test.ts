import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { isKofnError } from '@kofn/core';
import { describe, it } from 'mocha';
import { resultHtml } from '../../src/failure/report/html.js';
import { plotsOf } from '../../src/failure/report/plots.js';
import { groupsOf } from '../../src/failure/report/rows.js';
import { courseOf, tailOf } from '../../src/failure/report/series.js';
import { resultMarkdown, resultTables } from '../../src/failure/report/table.js';
import { readResult, writeResult } from '../../src/failure/report/write.js';
import type { CellResult, RunResult } from '../../src/failure/result/result.js';
import { wellFormed } from '../support/markup.js';
import { drawRun } from '../support/run-result.js';

const ESCAPE = '\u001b';
const EVIL = `<script>alert(1)</script> & "quoted" 'so' | \`code\` ${ESCAPE}[31m]]> {{x}}`;

/** With hostile words wherever a config or a machine could put them. */
function hostile(run: RunResult): RunResult {
  const cells = run.cells.map((cell, i): CellResult => ({
    ...cell,
    name: `${EVIL} ${i}`,
    what: EVIL,
    fault: EVIL,
    link: EVIL,
    device: EVIL,
    emulated: [EVIL],
    failures: [{ code: 'UNAVAILABLE', count: 1, message: `${EVIL}\nsecond line` }],
    faults: cell.faults.map(fault => ({ ...fault, kind: EVIL })),
    ratios: { uncoded: null, replication: null },
  }));
  const claims = [{ what: EVIL, estimate: null, why: EVIL }];
  return { ...run, name: EVIL, description: EVIL, command: `kofn ${EVIL}`, claims, cells };
}

describe('report of a failure benchmark', () => {
  const run = drawRun({ requests: 1000, strategies: ['uncoded', '2mr', 'cdc-r1'], faults: ['none', 'kill'] });
  const few = drawRun({ requests: 120, strategies: ['uncoded', 'cdc-r1'], faults: ['kill'], repeats: 1 });

  it('a table has a row a strategy, with – for what there is no figure of, and what is lost in words', () => {
    const text = resultTables(run, 200);
    assert.equal(groupsOf(run).length, 2);
    for (const strategy of ['uncoded', '2mr', 'cdc-r1'])
      assert.ok(text.match(new RegExp(`^│ ${strategy} `, 'gm'))!.length >= 2, strategy);
    assert.match(text, /│ uncoded +│ +16 of 1000 +│/);
    assert.match(text, /p99 of cdc-r1 over failover, killed: 0\.31 \(0\.27–0\.36\)\. What coding is for\./);
    assert.equal(text.match(/Each worker computes for as long/g)?.length, 1, 'said once');
    const row = text.split('\n').find(line => line.startsWith('│ 2mr'))!;
    assert.equal(row.split('│')[7]?.trim(), '–', 'p99.9 of 1,000 requests');
  });

  it('tables are no wider than the terminal', () => {
    for (const width of [110, 140, 200]) {
      const tables = resultTables(run, width)
        .split('\n')
        .filter(line => /^[│┌]/.test(line));
      assert.ok(Math.max(...tables.map(({ length }) => length)) <= width, String(width));
    }
  });

  it('Markdown tables have as many cells in each row, and nothing of a name is markup', () => {
    for (const text of [resultMarkdown(run), resultMarkdown(hostile(few))]) {
      const blocks = text.split('\n\n').filter(block => block.startsWith('|'));
      assert.ok(blocks.length >= 2);
      for (const block of blocks) {
        const counts = block.split('\n').map(line => line.match(/(?<!\\)\|/g)!.length);
        assert.deepEqual(new Set(counts).size, 1, block);
      }
      assert.doesNotMatch(text.replace(/(`+)[^\n]*?\1/g, ''), /(?<!\\)</);
      assert.ok(!text.includes(ESCAPE));
    }
  });

  it('what cuts a run short stands first, in every form', async () => {
    const cut: RunResult = {
      ...few,
      complete: false,
      cells: few.cells.map(cell => ({ ...cell, complete: false, wrong: 1 })),
    };
    assert.match(resultTables(cut).split('\n')[0]!, /The run is not whole/);
    for (const text of [resultMarkdown(cut), await resultHtml(cut)]) {
      const at = text.indexOf('The run is not whole');
      assert.ok(at > 0 && at < text.indexOf('p50 ms'));
      assert.match(text, /Wrong answers: /);
      assert.match(text, /cut short/);
    }
  });

  it('the tail keeps the slowest requests exactly, in 300 points, and counts the lost as slower', () => {
    const [cell] = drawRun({ bare: true, requests: 5000, strategies: ['uncoded'], faults: ['kill'] }).cells;
    const points = tailOf(cell!);
    assert.ok(points.length <= 300 && points.length > 250, String(points.length));
    const slowest = cell!.samples
      .flatMap(({ ms }) => ms)
      .filter(value => value !== null)
      .sort((a, b) => a - b);
    assert.deepEqual(
      points.slice(-100).map(({ ms }) => ms),
      slowest.slice(-100),
    );
    assert.equal(points.at(-1)!.share, (cell!.lost + 1) / 5000);
    assert.equal(points[0]!.share, 1);
    for (let i = 1; i < points.length; i++) {
      assert.ok(points[i]!.share < points[i - 1]!.share && points[i]!.ms >= points[i - 1]!.ms);
    }
  });

  it('the course shows the slowest request, each moment that lost one, and faults when they came', () => {
    const [cell] = drawRun({ bare: true, requests: 400, strategies: ['uncoded'], faults: ['kill'] }).cells;
    const { moments, lost, faults, starts } = courseOf(cell!);
    const all = cell!.samples.flatMap(({ ms }) => ms).filter(value => value !== null);
    assert.equal(Math.max(...moments.map(({ high }) => high)), Math.max(...all));
    assert.equal(lost.length, cell!.lost);
    assert.equal(faults.length, cell!.faults.length);
    assert.equal(faults[0]!.at, cell!.faults[0]!.atMs / 1000);
    assert.equal(starts.length, 1);
  });

  it('plots are SVG with a title, without NaN or requests; the same again byte for byte', async () => {
    const plots = await plotsOf(run);
    assert.deepEqual(
      plots.map(({ kind }) => kind),
      ['percentile', 'tail', 'percentile', 'tail', 'course', 'course', 'course'],
    );
    for (const { svg } of plots) {
      wellFormed(svg);
      assert.match(
        svg,
        /^<svg role="img" aria-labelledby="title desc"[^>]*><title id="title">[^<]+<\/title><desc id="desc">[^<]+</,
      );
      assert.ok((svg.match(/<path/g)?.length ?? 0) > 5);
      assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
      assert.doesNotMatch(svg.replace(/ xmlns(:\w+)?="[^"]*"/g, ''), /https?:|href/);
    }
    const again = await plotsOf({ ...run, cells: run.cells.slice(0, 3) });
    assert.deepEqual(again[0]!.svg, plots[0]!.svg);
  });

  it('cells without an answer, of one request, or all alike are drawn or left out, not broken', async () => {
    const [cell] = few.cells;
    const with1 = (name: string, ms: (number | null)[]): CellResult => ({
      ...cell!,
      name,
      strategy: name,
      latencyMs: { p50: { value: 5, low: 5, high: 5 }, p90: null, p99: null, p999: null, max: 5 },
      samples: [{ repeat: 0, atMs: ms.map((_, i) => i * 10), ms }],
    });
    const odd = {
      ...few,
      cells: [
        with1('none', []),
        with1('lost', [null]),
        with1('one', [5]),
        with1('alike', [5, 5, 5]),
        with1('zero', [0]),
      ],
    };
    for (const { svg } of await plotsOf(odd)) assert.doesNotMatch(svg, /NaN|Infinity/);
    wellFormed(await resultHtml({ ...few, cells: [] }));
    assert.match(resultTables({ ...few, cells: [] }), /Claims/);
  });

  it('the page is well-formed, asks for nothing, runs nothing, and escapes what comes from the result', async () => {
    const page = await resultHtml(hostile(few));
    const { ids, headings } = wellFormed(page);
    assert.equal(new Set(ids).size, ids.length, 'each id once');
    for (const [i, level] of headings.entries()) assert.ok(level <= (headings[i - 1] ?? 0) + 1, `h${level} in order`);
    assert.equal(page.match(/<script/g)?.length, 1, 'only the JSON');
    assert.match(page, /<script type="application\/json"/);
    const shown = page.slice(0, page.indexOf('<script type='));
    assert.doesNotMatch(shown.replace(/ xmlns(:\w+)?="[^"]*"/g, ''), /https?:|\bsrc=|@import|url\((?!#)| on\w+=/);
    assert.ok(!page.includes(ESCAPE));
    assert.equal(page.match(/<th(?! scope=)[ >]/g), null);
    for (const reference of page.matchAll(/aria-labelledby="([^"]*)"/g)) {
      for (const id of reference[1]!.split(' ')) assert.ok(ids.includes(id), id);
    }
  });

  describe('files', () => {
    let folder = '';
    beforeEach(async () => void (folder = await mkdtemp(path.join(tmpdir(), 'kofn-report-'))));
    afterEach(() => rm(folder, { recursive: true, force: true }));
    const rejects = (
      work: Promise<unknown>,
      code: 'NOT_FOUND' | 'INVALID_ARGUMENT' | 'STORAGE' | 'INTERNAL',
      words: RegExp,
    ) => assert.rejects(work, error => isKofnError(error, code) && words.test(error.message));

    it('are read again as they were, from the JSON, the page or the folder', async () => {
      const result = hostile(few);
      const into = path.join(folder, 'new', 'run');
      const { json, html } = await writeResult(result, into);
      assert.deepEqual((await readdir(into)).sort(), ['report.html', 'report.md', 'result.json']);
      for (const file of [json, html, into]) assert.deepEqual(await readResult(file), result);
    });

    it('a result that does not fit its schema is not written, and a folder that cannot be made says why', async () => {
      await rejects(writeResult({ ...few, seconds: NaN }, folder), 'INTERNAL', /seconds: /);
      assert.deepEqual(await readdir(folder), []);
      await writeFile(path.join(folder, 'file'), '');
      await rejects(writeResult(few, path.join(folder, 'file')), 'STORAGE', /there is a file of that name/);
      await mkdir(path.join(folder, 'result.json'));
      await rejects(writeResult(few, folder), 'STORAGE', /result\.json: cannot be written/);
      assert.deepEqual((await readdir(folder)).sort(), ['file', 'result.json'], 'no temporary file');
    });

    it('what is no result is refused by what is wrong with it', async () => {
      const file = path.join(folder, 'some.json');
      await rejects(readResult(file), 'NOT_FOUND', /there is no such result/);
      const reading = async (text: string) => (await writeFile(file, text), readResult(file));
      await rejects(reading('{'), 'INVALID_ARGUMENT', /no JSON/);
      await rejects(reading('[]'), 'INVALID_ARGUMENT', /no field "schema"/);
      await rejects(reading('<html></html>'), 'INVALID_ARGUMENT', /without a result/);
      await rejects(
        reading('{"schema": "kofn-failure-bench/9"}'),
        'INVALID_ARGUMENT',
        /"kofn-failure-bench\/9".*reads kofn-failure-bench\/1/,
      );
      const [cell] = few.cells;
      const broken = { ...few, cells: [{ ...cell, latencyMs: { ...cell!.latencyMs, p50: 'fast' } }] };
      await rejects(reading(JSON.stringify(broken)), 'INVALID_ARGUMENT', /cells\[0\]\.latencyMs\.p50: /);
      assert.match(await readFile(file, 'utf8'), /fast/, 'left as it was');
    });
  });
});
