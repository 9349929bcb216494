/** What is known of a worker's speed: sketches beside exact quantiles, stragglers, and what placement makes of them. */
import assert from 'node:assert/strict';
import { seededRng } from '@kofn/core';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { blockOrder } from '../src/blocks/homes.js';
import { RecentValues, RELATIVE_ERROR, WINDOW_MS } from '../src/fleet/recent-values.js';
import { BlockPace, SpeedRecord } from '../src/fleet/speeds.js';

/** A clock that is set by hand; nothing here sets a timer. */
function handClock() {
  return {
    ms: 0,
    now() {
      return this.ms;
    },
    setTimer(): never {
      throw new Error('no timer is expected');
    },
  };
}

describe('recent values', () => {
  it('give quantiles within the stated error of the exact ones', () => {
    const values = fc.array(fc.double({ min: 1e-3, max: 1e5, noNaN: true }), { minLength: 1, maxLength: 200 });
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 1, noNaN: true }), (all, part) => {
        const recent = new RecentValues(handClock());
        for (const value of all) recent.add(value);
        assert.equal(recent.count, all.length);
        const exact = [...all].sort((a, b) => a - b)[Math.floor(part * (all.length - 1))]!;
        const seen = recent.quantile(part)!;
        assert.ok(Math.abs(seen - exact) <= exact * (RELATIVE_ERROR + 1e-9), `${seen} for ${exact}`);
      }),
    );
  });

  it('hold those of the last window and at most one more', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: WINDOW_MS }), { maxLength: 40 }), delays => {
        const clock = handClock();
        const recent = new RecentValues(clock);
        const addedMs: number[] = [];
        for (const delayMs of delays) {
          clock.ms += delayMs;
          recent.add(1);
          addedMs.push(clock.ms);
          const within = (ms: number) => addedMs.filter(each => each > clock.ms - ms).length;
          assert.ok(recent.count >= within(WINDOW_MS) && recent.count <= within(2 * WINDOW_MS));
        }
        clock.ms += 2 * WINDOW_MS;
        assert.deepEqual([recent.count, recent.quantile(0.5)], [0, undefined]);
      }),
    );
  });
});

/** Five workers with a layer of 10 ms a block; `slow` says how many times as long the last takes, from request to request. */
class Five {
  readonly clock = handClock();
  readonly pace = new BlockPace(1e-5);
  readonly verdicts: boolean[] = [];
  readonly workers = Array.from({ length: 5 }, () => {
    const speed: SpeedRecord = new SpeedRecord(this.clock, () => this.verdicts.push(speed.isStraggler));
    return { speed };
  });
  readonly last = this.workers[4]!.speed;
  readonly #rng = seededRng(1);

  request(slow: number, { macs = 1e6, queueMs = 0 } = {}): void {
    for (const [index, { speed }] of this.workers.entries()) {
      const engineMs = 10 * (0.95 + 0.1 * this.#rng.uniform()) * (index === 4 ? slow : 1);
      const worker = { queueMs, engineMs, workerMs: queueMs + engineMs + 0.1 };
      const call = { callMs: worker.workerMs + 1, bytes: 1000, worker, block: { macs, pace: this.pace } };
      if (index === 4 && slow > 1) {
        speed.missed();
        speed.late(call);
      } else speed.answered(call);
      this.clock.ms += 1;
    }
  }

  requests(count: number, slow: number, about?: { queueMs?: number }): void {
    for (let i = 0; i < count; i++) this.request(slow, about);
  }
}

describe("a worker's speed", () => {
  it('is unknown until something is seen', () => {
    const speed = new SpeedRecord(handClock());
    const none = { runs: 0, macsPerSecond: null, macsPerSecondP5: null, rttMs: null, rttMsP95: null };
    const rest = { bytesPerSecond: null, slowness: null, isStraggler: false, inTime: null };
    assert.deepEqual(speed.view, { ...none, ...rest });
    assert.deepEqual(speed.known, { relative: undefined, rttMs: undefined, uploadBytesPerMs: undefined });
  });

  it('is what its engine does, whatever queue, link and layers sharing it do', () => {
    const five = new Five();
    five.requests(40, 3, { queueMs: 70 });
    const near = (value: number | null | undefined, expected: number) =>
      assert.ok(Math.abs(value! / expected - 1) < 0.08, `${value} for ${expected}`);
    near(five.workers[0]!.speed.view.macsPerSecond, 1e8); // 1e6 in 10 ms
    near(five.last.view.macsPerSecond, 1e8 / 3);
    near(five.last.known.relative, 3); // of 1e6 at 1e-5 ms each
    assert.equal(five.last.view.runs, 40);
    five.clock.ms += 2 * WINDOW_MS;
    assert.deepEqual([five.last.view.macsPerSecond, five.last.known.relative], [null, undefined]);
  });

  it("tells a link's rate from large calls less the round trip, and from small ones nothing", () => {
    const speed = new SpeedRecord(handClock());
    const worker = { queueMs: 0, engineMs: 2, workerMs: 3 };
    for (let i = 0; i < 10; i++) speed.probed(4);
    speed.answered({ callMs: 50, bytes: 2 ** 16 - 1, worker, block: undefined });
    assert.equal(speed.view.bytesPerSecond, null);
    speed.answered({ callMs: 107, bytes: 1e6, worker, block: undefined });
    assert.ok(Math.abs(speed.view.bytesPerSecond! / 1e7 - 1) < 0.05); // 100 ms of its 107
    assert.ok(Math.abs(speed.view.rttMs! - 4) < 0.1);
  });

  it('names a straggler and the end of it, each once, with a gap between', () => {
    const five = new Five();
    five.requests(50, 1);
    assert.deepEqual(five.verdicts, []);
    five.requests(50, 3);
    assert.deepEqual([five.verdicts, five.last.isStraggler], [[true], true]);
    assert.ok(five.last.view.slowness! > 2.4 && five.last.view.slowness! < 3.2);
    assert.ok(five.last.view.inTime! < 0.6 && five.workers[0]!.speed.view.inTime === 1);
    five.requests(200, 1.8); // neither: a straggler stays one
    five.requests(50, 1);
    five.requests(200, 1.8); // and a steady one steady
    assert.deepEqual(five.verdicts, [true, false]);
  });

  it('takes no worker for slow by less than a millisecond, nor all of them when all are slower', () => {
    const five = new Five();
    const ask = (msOf: (worker: number) => number) => {
      for (const [index, { speed }] of five.workers.entries()) {
        const ms = msOf(index);
        const worker = { queueMs: 0, engineMs: ms, workerMs: ms };
        speed.answered({ callMs: ms, bytes: 100, worker, block: { macs: 1000, pace: five.pace } });
      }
    };
    for (let i = 0; i < 60; i++) ask(worker => (worker === 4 ? 0.9 : 0.1));
    assert.deepEqual([five.verdicts, five.last.slowness], [[], 1]);
    for (let i = 0; i < 60; i++) ask(() => 30); // larger inputs
    assert.deepEqual([five.verdicts, five.last.slowness], [[], 1]);
  });
});

describe('the order of blocks', () => {
  it('is as given, with the slower workers last, and as given again when nothing was seen for long', () => {
    const five = new Five();
    const order = [...five.workers].reverse();
    assert.deepEqual(blockOrder(order), [0, 1, 2, 3, 4]);
    five.requests(50, 1.1); // not slow enough to count
    assert.deepEqual(blockOrder(order), [0, 1, 2, 3, 4]);
    five.requests(50, 2);
    assert.deepEqual(blockOrder(order), [1, 2, 3, 4, 0]);
    five.clock.ms += 2 * WINDOW_MS;
    assert.deepEqual(blockOrder(order), [0, 1, 2, 3, 4]);
  });
});
