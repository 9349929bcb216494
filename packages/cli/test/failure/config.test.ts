import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { isKofnError } from '@kofn/core';
import { describe, it } from 'mocha';
import { parseConfig, readConfig } from '../../src/failure/config/config.js';
import { strategyOf } from '../../src/failure/run/strategies.js';

const SHIPPED = fileURLToPath(new URL('../../../../../bench/failure/', import.meta.url));

const MINIMAL = `
name: small
cells:
  - strategy: cdc-1
`;

function refusal(text: string): string {
  try {
    parseConfig(text, 'bad.yaml');
  } catch (error) {
    assert.ok(isKofnError(error, 'INVALID_ARGUMENT'));
    return error.message;
  }
  throw new Error('it was taken');
}

describe('the config of a failure benchmark', () => {
  it('has a default for everything but strategy', () => {
    const { cells, seed, repeats } = parseConfig(MINIMAL, 'small.yaml');
    assert.equal(cells.length, 1);
    const [cell] = cells;
    assert.deepEqual(
      { ...cell, fault: cell!.fault.name, link: cell!.link.name, workload: cell!.workload.value.fc, seed, repeats },
      {
        name: 'fc-2000 loopback none cdc-1',
        strategy: 'cdc-1',
        fault: 'none',
        link: 'loopback',
        workload: [2000, 2000],
        equal: 'workers',
        workers: 5,
        requests: 100,
        warmUp: 10,
        load: { kind: 'closed' },
        deadlineMs: 10_000,
        device: 'native',
        arrivals: false,
        failover: { detectMs: 2_000, reloadMs: 0 },
        seed: 1,
        repeats: 1,
      },
    );
  });

  it('makes the product of lists, each cell with a name of its own', () => {
    const { cells } = parseConfig(
      `{name: many, cells: [{name: x, strategy: [uncoded, cdc-1], link: [wifi, wired], workers: [4, 5]}]}`,
      'many.yaml',
    );
    assert.equal(new Set(cells.map(({ name }) => name)).size, 8);
    assert.ok(cells.some(({ name }) => name === 'x wifi 4 workers cdc-1'));
  });

  it('takes own links, faults and workloads before those that are built in', () => {
    const text = `
name: own
links: { wifi: { delayMs: 7 } }
faults: { late: { kind: stalls, rate: 0.5 } }
workloads: { tiny: { fc: [8, 4] } }
defaults: { requests: 3 }
cells: [{ strategy: uncoded, link: wifi, fault: late, workload: tiny }]
`;
    const [cell] = parseConfig(text, 'own.yaml').cells;
    assert.equal(cell!.link.value.delayMs, 7);
    assert.equal(cell!.fault.value.rate, 0.5);
    assert.deepEqual(cell!.workload.value.fc, [8, 4]);
    assert.equal(cell!.requests, 3);
  });

  it('takes files relative to itself', () => {
    const text = `
name: files
links: { lab: { trace: lab.csv } }
workloads: { mine: { onnx: models/m.onnx } }
cells: [{ strategy: uncoded, link: lab, workload: mine }]
`;
    const [cell] = parseConfig(text, '/some/where/config.yaml').cells;
    assert.equal(cell!.link.value.trace, path.resolve('/some/where/lab.csv'));
    assert.equal(cell!.workload.value.onnx, path.resolve('/some/where/models/m.onnx'));
  });

  const mistakes: readonly (readonly [string, string, RegExp])[] = [
    ['an unknown field', `{name: a, cells: [{strateyg: uncoded}]}`, /cells\[0\]\.strateyg: there is no such field/],
    ['an unknown field at the top', `{name: a, wifi: 1, cells: [{strategy: uncoded}]}`, /wifi: there is no such field/],
    [
      'an unknown field of a fault',
      `{name: a, faults: {f: {kind: kill, wen: between}}, cells: [{}]}`,
      /faults\.f\.wen: there is no such field/,
    ],
    ['an unknown strategy', `{name: a, cells: [{strategy: raid5}]}`, /cells\[0\]\.strategy.*is not one of uncoded/],
    ['an unknown fault', `{name: a, cells: [{fault: meteor}]}`, /there is no fault "meteor"; there are .*kill/],
    ['an unknown link', `{name: a, cells: [{link: carrier pigeon}]}`, /there is no link "carrier pigeon"/],
    ['a name that every object has', `{name: a, cells: [{link: constructor}]}`, /there is no link "constructor"/],
    ['a number out of range', `{name: a, cells: [{workers: 65}]}`, /cells\[0\]\.workers.*64/],
    [
      'a rate for a kill',
      `{name: a, faults: {f: {kind: kill, rate: 0.1}}, cells: [{}]}`,
      /faults\.f\.rate: is for stalls, loss, corrupt/,
    ],
    [
      'times without every',
      `{name: a, faults: {f: {kind: kill, times: 3}}, cells: [{}]}`,
      /faults\.f\.times: more than once takes/,
    ],
    [
      'two workloads in one',
      `{name: a, workloads: {w: {fc: [1, 1], onnx: m.onnx}}, cells: [{}]}`,
      /workloads\.w: give one of fc, conv/,
    ],
    ['no cells', `{name: a, cells: []}`, /cells/],
    ['two cells of one name', `{name: a, cells: [{name: x}, {name: x}]}`, /two are called "x"/],
    [
      'a claim of no cell',
      `{name: a, cells: [{name: x}], claims: [{what: p99, of: x, to: y, why: because}]}`,
      /claims\[0\]: there is no cell "y"/,
    ],
    ['what is no YAML', `{name: a`, /bad\.yaml/],
    ['no object', `- 1`, /bad\.yaml/],
  ];
  for (const [what, text, message] of mistakes) {
    it(`refuses ${what}, by name`, () => assert.match(refusal(text), message));
  }

  it('names every mistake at once', () => {
    const message = refusal(`{name: a, cells: [{link: a}, {fault: b}]}`);
    assert.match(message, /no link "a".*no fault "b"/);
  });

  it('says which file is not there', async () => {
    await assert.rejects(readConfig('/nowhere/config.yaml'), error => isKofnError(error, 'NOT_FOUND'));
  });

  for (const file of readdirSync(SHIPPED).filter(name => name.endsWith('.yaml'))) {
    it(`reads ${file}, whose strategies all find enough workers`, () => {
      const { cells } = parseConfig(readFileSync(path.join(SHIPPED, file), 'utf8'), file);
      for (const cell of cells) assert.ok(strategyOf(cell).k >= 1);
    });
  }

  it('has thirty named cells in full.yaml', () => {
    assert.equal(parseConfig(readFileSync(path.join(SHIPPED, 'full.yaml'), 'utf8'), 'full.yaml').cells.length, 30);
  });
});

describe('a strategy', () => {
  const of = (strategy: string, workers: number, equal: 'workers' | 'compute' = 'workers') =>
    strategyOf({ name: 'c', strategy, workers, equal });

  it('has so many workers, and fewer data blocks, at an equal number of workers', () => {
    const blocks = ['uncoded', 'failover', 'hedged', '2mr', 'cdc-1', 'cdc-2', 'cdc-1-2mr'].map(name => {
      const { n, k, r, speed } = of(name, 6);
      return [name, n, k, r, speed];
    });
    assert.deepEqual(blocks, [
      ['uncoded', 6, 6, 0, 1],
      ['failover', 6, 6, 0, 1],
      ['hedged', 6, 6, 0, 1],
      ['2mr', 6, 3, 3, 1],
      ['cdc-1', 6, 5, 1, 1],
      ['cdc-2', 6, 4, 2, 1],
      ['cdc-1-2mr', 6, 5, 1, 1],
    ]);
  });

  it('has so many data blocks, on machines that together are as fast, at equal compute', () => {
    for (const name of ['uncoded', '2mr', 'cdc-1', 'cdc-2']) {
      const { n, k, speed } = of(name, 4, 'compute');
      assert.equal(k, 4);
      assert.equal(n * speed, 4);
    }
  });

  it('leaves one worker out where two copies do not come out even', () => assert.equal(of('2mr', 5).n, 4));

  it('is refused with too few workers', () => {
    for (const [name, workers] of [
      ['cdc-2', 2],
      ['cdc-1', 1],
      ['2mr', 1],
      ['hedged', 1],
      ['cdc-0', 3],
    ] as const) {
      assert.throws(
        () => of(name, workers),
        error => isKofnError(error, 'INVALID_ARGUMENT') && error.message.includes('"c"'),
      );
    }
  });
});
