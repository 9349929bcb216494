/** Where marks stand in the lanes, and what is said of them. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { inWords, layOut, tickStep, workersOf } from '../src/state/lanes.js';
import type { ReplyLine, RequestLine, StepLine } from '../src/protocol.js';
import { logTicks } from '../src/views/ticks.js';

const BOX = { width: 600, left: 90, top: 20, laneHeight: 24 };

function step(about: Partial<StepLine> = {}): StepLine {
  const replies: ReplyLine[] = [0, 1, 3].map(worker => ({
    ...{ worker, block: worker, kind: 'arrived', ms: worker + 1, isRecovered: false },
  }));
  return {
    ...{ layers: ['conv1'], code: 'sum', k: 3, n: 4, startMs: 0, ms: 5, readyMs: 4, computedHere: [], errorGain: 1 },
    replies: [...replies, { worker: 2, block: 2, kind: 'cancelled', ms: 6, isRecovered: true }],
    ...about,
  };
}

function request(steps: readonly StepLine[], about: Partial<RequestLine> = {}): RequestLine {
  return { number: 7, id: 'a', model: 'm', version: '1', atMs: 0, ms: 10, queueMs: 0, error: null, steps, ...about };
}

const reply = fc.record({
  worker: fc.nat(6),
  block: fc.nat(6),
  kind: fc.constantFrom('arrived', 'failed', 'cancelled'),
  ms: fc.option(fc.double({ min: 0, max: 1e4, noNaN: true })),
  isRecovered: fc.boolean(),
}) as fc.Arbitrary<ReplyLine>;

const anyStep = fc
  .record({
    startMs: fc.double({ min: 0, max: 100, noNaN: true }),
    replies: fc.array(reply, { minLength: 1, maxLength: 8 }),
  })
  .map(about => step(about));

describe('the lanes of a request', () => {
  it('hold every mark in the lane of its worker, whatever came when', () => {
    fc.assert(
      fc.property(fc.array(anyStep, { maxLength: 6 }), fc.double({ min: 0, max: 1e3, noNaN: true }), (steps, ms) => {
        const asked = request(steps, { ms });
        const lanes = layOut(asked, BOX);
        assert.equal(lanes.marks.length, steps.flatMap(({ replies }) => replies).length);
        assert.equal(lanes.height, BOX.top + workersOf(asked).length * BOX.laneHeight);
        for (const { x, y, worker, tailX } of lanes.marks) {
          assert.ok(x >= BOX.left && x <= BOX.width && tailX <= x && tailX >= BOX.left, `${tailX} ${x}`);
          assert.equal(y, lanes.rows.find(row => row.worker === worker)!.y);
        }
        for (const { x, width } of lanes.bands) assert.ok(x >= BOX.left && Number.isFinite(width) && width > 0);
      }),
    );
  });

  it('draw the line where the last reply that was needed came', () => {
    const lanes = layOut(request([step(), step({ startMs: 5, layers: ['fc1', 'fc2'] })]), BOX);
    for (const [index, band] of lanes.bands.entries()) {
      const used = lanes.marks.slice(4 * index, 4 * index + 4).filter(({ kind }) => kind === 'used');
      assert.equal(band.readyX, Math.max(...used.map(({ x }) => x)));
    }
    assert.deepEqual(
      lanes.bands.map(({ label }) => label),
      ['conv1', 'fc1 +1'],
    );
  });

  it('tell late from lost from what was not needed, and data from parity', () => {
    const replies: ReplyLine[] = [
      { worker: 0, block: 0, kind: 'arrived', ms: 1, isRecovered: false },
      { worker: 1, block: 1, kind: 'cancelled', ms: 8, isRecovered: true },
      { worker: 2, block: 2, kind: 'failed', ms: null, isRecovered: true, error: 'UNAVAILABLE' },
      { worker: 3, block: 3, kind: 'cancelled', ms: null, isRecovered: false },
      { worker: 4, block: 4, kind: 'failed', ms: null, isRecovered: false },
    ];
    const { marks, bands } = layOut(request([step({ replies })]), BOX);
    assert.deepEqual(
      marks.map(({ kind, isParity }) => [kind, isParity]),
      [
        ['used', false],
        ['late', false],
        ['lost', false],
        ['spare', true],
        ['failed', true],
      ],
    );
    assert.equal(marks[1]!.tailX, bands[0]!.readyX); // from where it was given up to where it came
    assert.equal(marks[2]!.x, bands[0]!.readyX); // what never came stands where the answer was ready
  });

  it('show a reply that came long after as far as the drawing goes', () => {
    const replies: ReplyLine[] = [
      ...step().replies,
      { worker: 4, block: 3, kind: 'cancelled', ms: 900, isRecovered: false },
    ];
    const { marks } = layOut(request([step({ replies })]), BOX);
    assert.deepEqual(
      marks.map(({ isBeyond }) => isBeyond),
      [false, false, false, false, true],
    );
    assert.ok(marks.at(-1)!.x <= BOX.width);
  });

  it('are told in a sentence', () => {
    assert.equal(
      inWords(request([step()])),
      'Request 7 was answered in 10.0 ms over 1 coded step; recovered from parity: what worker 2 was late with.',
    );
    assert.equal(inWords(request([], { error: 'DEADLINE_EXCEEDED' })), 'Request 7 failed with DEADLINE_EXCEEDED.');
  });
});

describe('ticks', () => {
  it('are few and round', () => {
    fc.assert(
      fc.property(fc.double({ min: 0.01, max: 1e6, noNaN: true }), endMs => {
        const step = tickStep(endMs);
        assert.ok(endMs / step <= 8 + 1e-9 && endMs / step >= 3, `${endMs} by ${step}`);
        assert.match(step.toExponential(3), /^[125]\.000e/);
      }),
    );
  });

  it('of a logarithmic axis lie on it', () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0.01, max: 1e4, noNaN: true }),
        fc.double({ min: 1.01, max: 1e5 }),
        (from, factor) => {
          const ticks = logTicks(from, from * factor);
          assert.ok(ticks.length >= 1 && ticks.length <= 9, ticks.join());
        },
      ),
    );
    assert.deepEqual(logTicks(0.9, 110), [1, 2, 5, 10, 20, 50, 100]);
    assert.deepEqual(logTicks(0.9, 1100), [1, 3, 10, 30, 100, 300, 1000]);
  });
});
