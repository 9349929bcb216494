import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { systemClock } from '@kofn/core';
import type { RunReport } from '@kofn/master';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { KillPlan } from '../src/workers/kill-plan.js';

/** A report of two layers; `answered` are the workers that answered in the first. */
function report(answered: readonly number[]): RunReport {
  const arrivals = (workers: readonly number[]) => workers.map(worker => ({ block: worker, worker, ms: 1 }));
  const [serialise, send, queue, engine, worker, receive, verify, decode, local] = [0, 0, 0, 1, 0, 0, 0, 0, 0];
  const spans = { serialise, send, queue, engine, worker, receive, verify, decode, local };
  const layer = {
    code: 'sum',
    k: 1,
    r: 1,
    startMs: 0,
    ms: 1,
    spans,
    erasures: [],
    unanswered: [],
    rejected: [],
    decodeSet: [],
    computedHere: [],
    resent: [],
    hedged: [],
  } as const;
  const rest = { recovered: { lost: [], late: [] }, errorGain: 1, bytesSent: 0, bytesReceived: 0 };
  return {
    request: 3,
    ms: 12,
    spans,
    layers: [
      { ...layer, ...rest, name: 'first', arrivals: arrivals(answered) },
      { ...layer, ...rest, name: 'second', arrivals: arrivals([0, 1]) },
    ],
    segments: [],
  };
}

describe('a kill that hits', () => {
  let victim: ChildProcess;
  let plan: KillPlan;
  beforeEach(async () => {
    victim = spawn(process.execPath, ['-e', 'console.log("up"); setInterval(() => {}, 1000)']);
    await once(victim.stdout!, 'data');
    plan = new KillPlan([{ worker: 1, request: 3 }], worker => (worker === 1 ? victim.pid : undefined), systemClock);
  });
  afterEach(async () => {
    if (victim.exitCode === null && victim.signalCode === null) {
      victim.kill('SIGKILL');
      await once(victim, 'exit');
    }
  });
  const call = { request: 3, layer: 'first', worker: 1 };

  it('stops the worker before its frame is written and kills it after', async () => {
    const exit = once(victim, 'exit');
    plan.hooks.beforeSend!(call);
    if (process.platform === 'linux') {
      assert.match(readFileSync(`/proc/${victim.pid}/stat`, 'latin1'), /\) T /);
    }
    plan.hooks.afterWrite!(call);
    assert.deepEqual(await exit, [null, 'SIGKILL']);
    plan.requestEnded(3, report([0]));
    assert.deepEqual(plan.outcomes, [{ worker: 1, request: 3, hit: true, ms: 12, layer: 'first' }]);
  });

  it('leaves other workers, requests and layers alone', () => {
    for (const other of [
      { ...call, worker: 0 },
      { ...call, request: 2 },
    ]) {
      plan.hooks.beforeSend!(other);
      plan.hooks.afterWrite!(other);
    }
    assert.equal(victim.exitCode ?? victim.signalCode, null);
    plan.hooks.afterWrite!(call);
    assert.equal(victim.signalCode, null, 'nothing is killed that was not stopped first');
    plan.requestEnded(2, report([0]));
    assert.deepEqual(plan.outcomes, [{ worker: 1, request: 3, hit: false, ms: null, layer: null }]);
  });

  it('does not count when the report shows that the worker answered', () => {
    plan.hooks.beforeSend!(call);
    plan.hooks.afterWrite!(call);
    plan.requestEnded(3, report([0, 1]));
    assert.equal(plan.outcomes[0]!.hit, false);
  });

  it('counts when the request was lost with the worker, and not when no call went to it', () => {
    plan.requestEnded(3, undefined);
    assert.equal(plan.outcomes[0]!.hit, false);
    plan.hooks.beforeSend!(call);
    plan.hooks.afterWrite!(call);
    plan.requestEnded(3, undefined);
    assert.deepEqual(plan.outcomes, [{ worker: 1, request: 3, hit: true, ms: null, layer: 'first' }]);
  });

  it('hooks into nothing when nothing is to be killed', () => {
    assert.deepEqual(new KillPlan([], () => 1, systemClock).hooks, {});
  });
});
