import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { isKofnError } from '@kofn/core';
import fc from 'fast-check';
import { after, before, describe, it } from 'mocha';
import { checkShape } from '../../src/failure/links/shape.js';
import { parseTrace, readTrace, TraceClock } from '../../src/failure/links/trace.js';

const rejected =
  (message: RegExp, code = 'INVALID_ARGUMENT' as 'INVALID_ARGUMENT' | 'NOT_FOUND') =>
  (error: unknown) => {
    assert.ok(isKofnError(error, code), String(error));
    assert.match(error.message, message);
    return true;
  };

describe('recorded links', () => {
  let folder: string;
  before(() => (folder = mkdtempSync(path.join(tmpdir(), 'kofn-test-trace-'))));
  after(() => rmSync(folder, { recursive: true }));

  it('reads a packet-delivery trace as the rate of each millisecond', () => {
    const { ms, periodMs, megabitsPerSecond, delayMs } = parseTrace('1\n2\n2\n3\r\n3\n\n9\n', 'm');
    assert.deepEqual([...ms], [0, 1, 3, 8]);
    assert.deepEqual([...megabitsPerSecond!], [12, 24, 0, 12]);
    assert.equal(periodMs, 9);
    assert.equal(delayMs, undefined);
    assert.deepEqual([...parseTrace('0\n1\n', 'm').megabitsPerSecond!], [24], 'what comes at 0 counts to the first');
  });

  it('reads columns, with one or both values', () => {
    const both = parseTrace('ms,delayMs,megabitsPerSecond\n100,5,20\n150.5,7.5,0\n', 'c');
    assert.deepEqual([[...both.ms], [...both.delayMs!], [...both.megabitsPerSecond!]], [[0, 50.5], [5, 7.5], [20, 0]]); // prettier-ignore
    assert.equal(both.periodMs, 101);
    const delay = parseTrace('ms, delayMs\n0, 5\n', 'c');
    assert.equal(delay.megabitsPerSecond, undefined);
    assert.equal(new TraceClock(delay, 0).delayAt(1e6), 5);
    assert.equal(parseTrace('ms,megabitsPerSecond\n0,5\n', 'c').delayMs, undefined);
  });

  it('says file and line of what is malformed', () => {
    const cases: [string, RegExp][] = [
      ['', /trace f is empty/],
      ['\n \n', /trace f is empty/],
      ['1\n3\n2\n', /f, line 3: time goes back from 3 to 2 ms/],
      ['1\n-3\n', /f, line 2: "-3" is no whole number/],
      ['1\n2.5\n', /f, line 2: "2.5" is no whole number/],
      ['99999999999999999999\n', /f, line 1: ms is "9+": must be a number from 0/],
      ['-1\n', /f, line 1: it begins with "-1": expected "ms,delayMs/],
      ['time,delayMs\n0,1\n', /f, line 1: it begins with "time,delayMs"/],
      ['ms\n0\n', /f, line 1: it begins with "ms"/],
      ['ms,delayMs,delayMs\n0,1,1\n', /f, line 1/],
      ['ms,delayMs\n', /f has a header and no line/],
      ['ms,delayMs\n0,1\n\n0,2\n', /f, line 4: time does not rise: 0 ms after 0 ms/],
      ['ms,delayMs\n5,1\n4,2\n', /f, line 3: time does not rise: 4 ms after 5 ms/],
      ['ms,delayMs\n0,1,2\n', /f, line 2: 3 values, but 2 columns/],
      ['ms,delayMs\n0,\n', /f, line 2: delayMs is "": must be/],
      ['ms,delayMs\n0,NaN\n', /f, line 2: delayMs is "NaN"/],
      ['ms,delayMs\n0,-1\n', /f, line 2: delayMs is "-1"/],
      ['ms,megabitsPerSecond\n0,Infinity\n', /f, line 2: megabitsPerSecond is "Infinity"/],
      ['ms,megabitsPerSecond\n0,0\n5,0\n', /megabitsPerSecond is 0 throughout/],
    ];
    for (const [text, message] of cases)
      assert.throws(() => parseTrace(text, 'f'), rejected(message), JSON.stringify(text));
    const trace = parseTrace('1\n', 'f');
    assert.throws(() => checkShape({ trace, megabitsPerSecond: 5 }), rejected(/the trace f has one too: give one/));
  });

  it('reads files, and says what is wrong with one', async () => {
    const file = path.join(folder, 'a.trace');
    writeFileSync(file, '1\n');
    assert.equal((await readTrace(file)).origin, file);
    writeFileSync(file, '1\nx\n');
    await assert.rejects(readTrace(file), rejected(/a\.trace, line 2/));
    truncateSync(file, 64 * 2 ** 20 + 1);
    await assert.rejects(readTrace(file), rejected(/a\.trace has more than 64 MiB/));
    await assert.rejects(readTrace(path.join(folder, 'none')), rejected(/none cannot be read/, 'NOT_FOUND'));
  });

  it('what is sent is what the rates add up to, over any number of periods', () => {
    const step = fc.record({ ms: fc.integer({ min: 1, max: 50 }), rate: fc.constantFrom(0, 0.5, 3, 24) });
    const steps = fc.array(step, { minLength: 1, maxLength: 8 }).filter(list => list.some(({ rate }) => rate > 0));
    fc.assert(
      fc.property(
        steps,
        fc.double({ min: 0, max: 400, noNaN: true }),
        fc.integer({ min: 1, max: 65_536 }),
        (list, at, bytes) => {
          const starts = list.map((_, i) => list.slice(0, i).reduce((sum, { ms }) => sum + ms, 0));
          const periodMs = list.reduce((sum, { ms }) => sum + ms, 0);
          const rates = Float64Array.from(list, ({ rate }) => rate);
          const clock = new TraceClock(
            { origin: 't', ms: Float64Array.from(starts), periodMs, megabitsPerSecond: rates },
            10,
          );
          // Step by step, as one would by hand.
          let [left, now] = [8 * bytes, at];
          for (let i = 0; left > 1e-6; i = (i + 1) % list.length) {
            const { ms, rate } = list[i]!;
            const round = Math.floor(now / periodMs + 1e-12) * periodMs;
            const end = round + starts[i]! + ms;
            if (now >= end - 1e-9 || now < round + starts[i]! - 1e-9) continue;
            const take = Math.min(left, (end - now) * rate * 1000);
            now = take === left && rate > 0 ? now + take / (rate * 1000) : end;
            left -= take;
          }
          const sentAt = clock.sentAt(at + 10, bytes)!;
          assert.ok(Math.abs(sentAt - 10 - now) < 1e-3, `${sentAt - 10}, not ${now}`);
        },
      ),
    );
  });
});
