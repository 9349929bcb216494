import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import { alongCriticalPath, localSpans, spansOf, type Spans, type StepTimes } from '../src/contract/spans.js';

const sum = (spans: Spans) => (Object.values(spans) as number[]).reduce((total, ms) => total + ms, 0);

describe('spans', () => {
  const worker = { queueMs: 2, engineMs: 5, workerMs: 8 };

  it('add up to the time of the layer', () => {
    const spans = spansOf({ sentAt: 101, writtenAt: 103, repliedAt: 120, verifiedAt: 121, worker }, 100, 124);
    assert.deepEqual(spans, {
      serialise: 1,
      send: 2,
      queue: 2,
      engine: 5,
      worker: 1,
      receive: 9,
      verify: 1,
      decode: 3,
      local: 0,
    });
    assert.equal(sum(spans), 24);
  });

  it('add up when a worker tells nothing, and when the news of a frame that was written comes late', () => {
    const call = { sentAt: 101, repliedAt: 120, verifiedAt: 121 };
    const silent = spansOf({ ...call, writtenAt: 102, worker: undefined }, 100, 124);
    assert.deepEqual([silent.engine, silent.receive, sum(silent)], [0, 18, 24]);
    for (const writtenAt of [undefined, 125]) {
      const late = spansOf({ ...call, writtenAt, worker }, 100, 124);
      assert.deepEqual([late.send, late.receive, sum(late)], [11, 0, 24]);
    }
  });

  it('of a request follow the input that each step waited for', () => {
    const step = (inputs: string, outputs: string, endedAt: number, ms: number): StepTimes => ({
      inputs: inputs.split(' '),
      outputs: outputs.split(' '),
      endedAt,
      spans: localSpans(ms),
    });
    const steps = [
      step('x', 'a b', 10, 10),
      step('a', 'c', 15, 5), // waited for by nobody
      step('b', 'd', 30, 20),
      step('c d', 'y', 31, 1),
      step('x', 'side', 4, 4),
    ];
    assert.equal(alongCriticalPath(steps, ['y', 'side']).local, 31);
    assert.equal(alongCriticalPath(steps, ['side']).local, 4);
    assert.equal(sum(alongCriticalPath([], ['x'])), 0);
  });
});
