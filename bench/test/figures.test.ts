import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { readConfig, runResult } from 'kofn/measure';
import { describe, it } from 'mocha';
import { parse } from 'yaml';
import { meanRatio } from '../figures/mean-ratio.js';
import { FIGURES, figureFile } from '../figures/figures.js';
import { picturesOf } from '../figures/picture.js';
import { withTable } from '../figures/readme.js';
import { splitOf, wholeOf } from '../figures/split-layers.js';
import { splitsConfig } from '../figures/splits.js';

describe('figures of the papers', () => {
  for (const { name, draw } of FIGURES) {
    it(`${name}: its config can be read, and what was saved is of the same cells`, async () => {
      const saved: unknown = JSON.parse(await readFile(figureFile(`results/${name}.json`), 'utf8'));
      if (name === 'splits') {
        const { layers, workers } = splitsConfig.parse(parse(await readFile(figureFile('splits.yaml'), 'utf8')));
        for (const layer of layers) for (const kind of layer.splits) splitOf(layer, kind, workers);
        return;
      }
      const { cells, repeats } = await readConfig(figureFile(`${name}.yaml`));
      const result = runResult.parse(saved);
      assert.ok(result.complete);
      assert.deepEqual(
        result.cells.map(cell => [cell.name, cell.requests, cell.wrong]),
        cells.map(cell => [cell.name, repeats * cell.requests, 0]),
      );
    });

    it(`${name}: its picture is drawn from what was saved, and shows it with its command`, async () => {
      const saved: unknown = JSON.parse(await readFile(figureFile(`results/${name}.json`), 'utf8'));
      const { spec, rows } = draw(saved);
      const { svg, png } = await picturesOf(spec);
      assert.doesNotMatch(svg, /NaN|undefined|Infinity|\bnull\b/);
      assert.ok((svg.match(/<path/g) ?? []).length > 20, 'it has marks');
      assert.ok(svg.includes(`npm run figures -- ${name}`), 'its command stands in it');
      const [, width, height] = /<svg[^>]* width="(\d+)" height="(\d+)"/.exec(svg)!.map(Number);
      assert.ok(width! > 300 && width! < 1200 && height! > 150 && height! < 600, `${width} x ${height}`);
      const header = Buffer.from(png);
      assert.deepEqual([header.readUInt32BE(16), header.readUInt32BE(20)], [2 * width!, 2 * height!], 'PNG at 2x');
      assert.equal(await readFile(figureFile(`${name}.svg`), 'utf8'), svg, 'the picture is that of the result');
      for (const value of rows.flatMap(row => Object.values(row))) {
        assert.ok(value === null || typeof value === 'string' || Number.isFinite(value), String(value));
      }
    });

    it(`${name}: the README has the picture, its numbers and its command`, async () => {
      const readme = await readFile(figureFile('README.md'), 'utf8');
      assert.ok(readme.includes(`(${name}.svg)`) && readme.includes(`npm run figures -- ${name}`));
      assert.ok(existsSync(figureFile(`${name}.png`)));
      const { rows } = draw(JSON.parse(await readFile(figureFile(`results/${name}.json`), 'utf8')));
      const withoutSpace = (text: string) => text.replace(/\s+/g, '').replace(/-+/g, '-');
      assert.equal(
        withoutSpace(withTable(readme, name, rows)),
        withoutSpace(readme),
        'npm run figures -- --draw --save',
      );
    });
  }
});

describe('splits of a layer', () => {
  const fc = { name: 'fc', fc: [8, 12] as const };
  const conv = { name: 'conv', conv: { channels: [8, 4] as const, kernel: 3, size: 13 } };

  it('count what the worker with the most takes and gives', () => {
    const bytes = (layer: Parameters<typeof splitOf>[0], kind: string) => {
      const { bytesIn, bytesOut } = splitOf(layer, kind, 4);
      return [bytesIn / 4, bytesOut / 4];
    };
    assert.deepEqual(bytes(fc, 'output'), [12, 2]);
    assert.deepEqual(bytes(fc, 'input'), [3, 8]);
    assert.deepEqual(bytes(conv, 'channel'), [4 * 169, 2 * 169]);
    assert.deepEqual(bytes(conv, 'depth'), [169, 8 * 169]);
    // 13 rows are 4, 3, 3 and 3; four at the edge need one more, three in the middle two.
    assert.deepEqual(bytes(conv, 'space'), [4 * 5 * 13, 8 * 4 * 13]);
  });

  it('together compute what the layer does', () => {
    assert.deepEqual(wholeOf(fc).input, [1, 12]);
    assert.equal(splitOf(fc, 'output', 4).part.layer.units, 2);
    assert.equal(splitOf(fc, 'input', 4).part.layer.fanIn, 3);
    assert.deepEqual(splitOf(conv, 'space', 4).part.layer.conv?.pads, [1, 1, 0, 1]);
    assert.throws(() => splitOf({ name: 'fc', fc: [9, 12] }, 'output', 4), /evenly/);
    assert.throws(() => splitOf(fc, 'space', 4), /no split/);
  });
});

describe('ratio of means', () => {
  it('holds the ratio in its interval, the same each time', () => {
    const values = Array.from({ length: 300 }, (_, i) => 10 + (i % 7));
    const twice = values.map(value => 2 * value);
    const found = meanRatio([twice, twice], [values]);
    assert.ok(Math.abs(found.value - 2) < 1e-9 && found.low < 2 && found.high > 2 && found.high - found.low < 0.2);
    assert.deepEqual(meanRatio([twice, twice], [values]), found);
    assert.deepEqual(meanRatio([[6, 6, 6]], [[3, 3], [3]]), { value: 2, low: 2, high: 2 });
  });
});
