import assert from 'node:assert/strict';
import { KofnError } from '@kofn/core';
import { describe, it } from 'mocha';
import { parseConfig } from '../../src/failure/config/config.js';
import { planFaults } from '../../src/failure/fleet/fault-plan.js';
import { cellResult } from '../../src/failure/result/result.js';
import type { Repeat, RequestRecord } from '../../src/failure/run/run-repeat.js';
import { strategyOf } from '../../src/failure/run/strategies.js';
import { summarise, withRatios } from '../../src/failure/run/summarise.js';

const CONFIG = `
name: c
faults: { killed: { kind: kill, first: 10, lasts: 20 } }
cells:
  - { name: x, strategy: [uncoded, 2mr, cdc-1], fault: killed, requests: 100, device: { gflops: 1 } }
  - { name: other, strategy: uncoded, requests: 100 }
`;

const { cells } = parseConfig(CONFIG, 'c.yaml');
const cellOf = (name: string) => cells.find(cell => cell.name === name)!;

/** Each request takes `ms`, one after the other; request 10 is killed, and those up to 30 are lost or take `ms` more. */
function repeatOf(name: string, ms: number, isLost: boolean): Repeat {
  const cell = cellOf(name);
  const requests = Array.from({ length: 100 }, (_, i): RequestRecord => {
    const phase = i === 10 ? 'hit' : i > 10 && i < 30 ? 'degraded' : 'healthy';
    const answered = phase === 'healthy' ? ms : isLost ? null : 2 * ms;
    return { atMs: i * 100, phase, ms: answered, isWrong: i === 99 };
  });
  const events = planFaults(cell.fault.value, { requests: 100, workers: 4, seed: 1 });
  return {
    requests,
    faults: events.map(event => ({ event, atMs: event.request * 100, hit: true })),
    arrivals: [],
    recovered: { lost: 20, late: 5 },
    computedHere: 0,
    resent: 1,
    failures: isLost ? Array.from({ length: 20 }, () => new KofnError('NOT_ENOUGH_WORKERS', 'gone')) : [],
    traffic: { sent: 50_000, received: 10_000 },
    usage: { cpuMs: 300, busyMs: 1000 * ms },
    isComplete: true,
  };
}

function resultOf(name: string, ms: number, isLost: boolean) {
  const cell = cellOf(name);
  const repeats = [repeatOf(name, ms, isLost), repeatOf(name, ms, isLost)];
  return { cell, result: summarise({ cell, strategy: strategyOf(cell), repeats, planned: 2, seed: 1, hosts: [] }) };
}

describe('the summary of a cell', () => {
  const lossy = resultOf('x uncoded', 10, true).result;
  const sound = resultOf('x cdc-1', 5, false).result;

  it('fits its schema', () => {
    for (const result of [lossy, sound]) assert.deepEqual(cellResult.parse(result), result);
  });

  it('counts requests, and what became of them, over all repeats', () => {
    const { requests, answered, lost, wrong, recovered, resent, failures } = lossy;
    assert.deepEqual([requests, answered, lost, wrong, resent], [200, 160, 40, 2, 2]);
    assert.deepEqual(recovered, { lost: 40, late: 10 });
    assert.deepEqual(failures, [{ code: 'NOT_ENOUGH_WORKERS', count: 40, message: 'gone' }]);
  });

  it('divides bytes and time by all requests, the lost ones too', () => {
    assert.deepEqual(lossy.bytesPerRequest, { sent: 500, received: 100 });
    assert.deepEqual([lossy.cpuMsPerRequest, lossy.deviceMsPerRequest, lossy.busyMsPerRequest], [3, 100, 100]);
  });

  it('says how long after a fault the next answer came', () => {
    assert.deepEqual(sound.faults.map(({ repeat, request, nextAnswerMs }) => [repeat, request, nextAnswerMs]), [[0, 10, 10], [1, 10, 10]]); // prettier-ignore
    assert.deepEqual(lossy.faultToAnswerMs, { p50: 2010, max: 2010, unanswered: 0 });
  });

  it('tells requests that were hit from those before and after', () => {
    assert.deepEqual(Object.values(lossy.phases).map(({ requests, lost }) => [requests, lost]), [[160, 0], [2, 2], [38, 38]]); // prettier-ignore
    assert.equal(sound.phases.degraded.p50?.value, 10);
    assert.equal(sound.phases.hit.p50, null, 'two samples are too few for a median');
  });

  it('is whole only with all its repeats', () => {
    const cell = cellOf('x cdc-1');
    const part = { cell, strategy: strategyOf(cell), repeats: [repeatOf('x cdc-1', 5, false)], seed: 1, hosts: [] };
    assert.equal(summarise({ ...part, planned: 2 }).complete, false);
    assert.equal(summarise({ ...part, planned: 1 }).complete, true);
  });

  it('has ratios to the cells that differ in the strategy alone', () => {
    const runs = [resultOf('x uncoded', 10, true), resultOf('x 2mr', 8, false), resultOf('x cdc-1', 5, false), resultOf('other', 1, false)]; // prettier-ignore
    const [uncoded, twice, coded, other] = withRatios(runs);
    assert.equal(uncoded!.ratios.uncoded, null);
    assert.equal(uncoded!.ratios.replication?.cell, 'x 2mr');
    assert.deepEqual([coded!.ratios.uncoded?.cell, coded!.ratios.uncoded?.busy], ['x uncoded', 0.5]);
    assert.equal(coded!.ratios.uncoded?.p50?.value, 0.5);
    assert.equal(twice!.ratios.uncoded?.p50?.value, 0.8);
    assert.deepEqual(other!.ratios, { uncoded: null, replication: null });
  });
});
