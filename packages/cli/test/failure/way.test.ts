/** When frames leave, on a clock whose timers are late: to the last digit what line, air and trace say, with nothing added up. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { beforeEach, describe, it } from 'mocha';
import { Airs } from '../../src/failure/links/air.js';
import type { Direction } from '../../src/failure/links/mode.js';
import type { LinkShape } from '../../src/failure/links/shape.js';
import { parseTrace } from '../../src/failure/links/trace.js';
import { Way } from '../../src/failure/links/way.js';
import { LateClock } from './late-clock.js';

const KB = 1000;

describe('a way of frames', () => {
  let clock: LateClock;
  let airs: Airs;
  beforeEach(() => {
    clock = new LateClock();
    airs = new Airs(clock);
  });

  const wayOf = (shape: LinkShape, station = 0, direction: Direction = 'there') => {
    const way = new Way(clock, airs, station, direction);
    way.shape(shape, 1, airs);
    return way;
  };
  const sent: { what: string; at: number }[] = [];
  beforeEach(() => void (sent.length = 0));
  const send = (way: Way, length: number, what = '') => {
    way.take({ length, cameAt: clock.now(), owner: way, sent: at => void sent.push({ what, at }) });
  };
  const close = (actual: number, expected: number) =>
    assert.ok(Math.abs(actual - expected) < 1e-6, `${actual}, not ${expected}`);

  it('a line sends one after another at its rate, and the delay comes on top', () => {
    const way = wayOf({ megabitsPerSecond: 8, delayMs: 3 }); // 1 kB/ms
    for (let i = 0; i < 1000; i++) send(way, 2 * KB);
    clock.run();
    sent.forEach(({ at }, i) => close(at, 2 * (i + 1) + 3));
    assert.deepEqual(way.counters, { bytes: 2000 * KB, frames: 1000, stalls: 0, losses: 0 });
  });

  it('both directions of all stations share the air, and who asked first is first', () => {
    const shape = { sharedMegabitsPerSecond: 8 };
    const [a, b, back] = [wayOf(shape), wayOf(shape, 1), wayOf(shape, 0, 'back')];
    for (let i = 0; i < 4; i++) send(a, 10 * KB, `a${i}`);
    clock.run(5);
    for (let i = 0; i < 2; i++) send(b, 10 * KB, `b${i}`);
    clock.run(6);
    send(back, 10 * KB, 'back');
    clock.run();
    // One with much to send has one turn after each of the others'.
    assert.deepEqual(sent.map(({ what }) => what).join(' '), 'a0 b0 back a1 b1 a2 a3');
    sent.forEach(({ at }, i) => close(at, 10 * (i + 1)));
  });

  it('never more than the rate of the air, never less while something waits', () => {
    const burst = fc.record({ station: fc.nat(3), gapMs: fc.nat(20), length: fc.integer({ min: 1, max: 65_536 }) });
    fc.assert(
      fc.property(fc.array(burst, { minLength: 1, maxLength: 40 }), bursts => {
        clock = new LateClock();
        airs = new Airs(clock);
        sent.length = 0;
        const ways = [0, 1, 2, 3].map(station => wayOf({ sharedMegabitsPerSecond: 20 }, station));
        let [freeAt, now] = [0, 0];
        for (const { station, gapMs, length } of bursts) {
          clock.run((now += gapMs));
          send(ways[station]!, length);
          freeAt = Math.max(freeAt, now) + length / 2500; // whatever the order, the work is the same
        }
        clock.run();
        assert.equal(sent.length, bursts.length);
        close(Math.max(...sent.map(({ at }) => at)), freeAt);
      }),
      { numRuns: 100 },
    );
  });

  it('lines of their own before a shared air take whichever is slower', () => {
    const way = wayOf({ megabitsPerSecond: 4, sharedMegabitsPerSecond: 8 });
    const other = wayOf({ megabitsPerSecond: 4, sharedMegabitsPerSecond: 8 }, 1);
    for (const each of [way, other, way, other]) send(each, 10 * KB);
    clock.run();
    assert.deepEqual(
      sent.map(({ at }) => Math.round(at)),
      [20, 30, 40, 50],
    );
  });

  it('a new shape holds for what has not been sent; what its owner gave up takes no time', () => {
    const way = wayOf({ megabitsPerSecond: 0.008 }); // 1 kB/s
    for (let i = 0; i < 3; i++) send(way, KB);
    clock.run(100);
    way.shape({ megabitsPerSecond: 8 }, 1, airs);
    clock.run();
    assert.deepEqual(
      sent.map(({ at }) => Math.round(at)),
      [1000, 1, 2], // sent already, and then from when they came
    );
    send(way, KB);
    send(way, KB);
    const now = clock.now();
    way.forget(way);
    clock.run();
    assert.equal(clock.now(), now, 'no timer is left');
    assert.equal(sent.length, 4, 'the first had been sent, the second not');
  });

  it('a trace gives rate and delay of the time, over and over', () => {
    const trace = parseTrace('ms,delayMs,megabitsPerSecond\n0,1,8\n10,2,0\n20,3,16\n30,0,0\n', 'test.csv');
    const way = wayOf({ trace });
    for (let i = 0; i < 4; i++) send(way, 10 * KB);
    clock.run();
    // 10 kB by 10 ms, none to 20, 20 kB by 30, none to 40, then from the beginning. The delay is that of the moment it is sent.
    const [first, second, third, fourth] = sent.map(({ at }) => at);
    close(first!, 10 + 2);
    close(second!, 25 + 3);
    close(third!, 30 + 0);
    close(fourth!, 50 + 2);
  });

  it('a packet-delivery trace lets 1500 bytes pass at each of its times', () => {
    const way = wayOf({ trace: parseTrace('2\n2\n5\n', 'test.trace') });
    for (let i = 0; i < 5; i++) send(way, 1500);
    clock.run();
    [1.5, 2, 5, 6.5, 7].forEach((at, i) => close(sent[i]!.at, at));
  });
});
