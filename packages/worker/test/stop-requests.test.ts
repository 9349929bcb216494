import assert from 'node:assert/strict';
import type { Clock } from '@kofn/core';
import { describe, it } from 'mocha';
import { StopRequests } from '../src/process/stop-requests.js';

/** What a process is told when these signals reach it at these times. */
function told(...signals: [name: 'SIGINT' | 'SIGTERM' | 'SIGHUP', atMs: number][]): string[] {
  let nowMs = 0;
  const clock: Clock = { now: () => nowMs, setTimer: () => ({ cancel: () => undefined }) };
  const heard: string[] = [];
  using _requests = new StopRequests(
    ({ reason, exitCode }) => heard.push(`first: ${reason}, ${exitCode}`),
    ({ reason, exitCode }) => heard.push(`one more: ${reason}, ${exitCode}`),
    clock,
  );
  for (const [name, atMs] of signals) {
    nowMs = atMs;
    process.emit(name);
  }
  return heard;
}

describe('requests to stop', () => {
  it('tells the first signal, and any later one as one more', () => {
    assert.deepEqual(told(['SIGTERM', 0]), ['first: SIGTERM, 143']);
    assert.deepEqual(told(['SIGHUP', 0]), ['first: SIGHUP, 129']);
    assert.deepEqual(told(['SIGINT', 0], ['SIGINT', 500]), ['first: SIGINT, 130', 'one more: SIGINT, 130']);
    assert.deepEqual(told(['SIGINT', 0], ['SIGTERM', 1]), ['first: SIGINT, 130', 'one more: SIGTERM, 143']);
  });

  it('takes a signal that comes twice at once for one', () => {
    assert.deepEqual(told(['SIGINT', 0], ['SIGINT', 0], ['SIGINT', 499]), ['first: SIGINT, 130']);
  });

  it('listens no longer once it is disposed of', () => {
    const before = process.listenerCount('SIGTERM');
    told(['SIGTERM', 0]);
    assert.equal(process.listenerCount('SIGTERM'), before);
  });
});
