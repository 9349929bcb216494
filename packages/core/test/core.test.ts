import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import {
  abortable,
  abortReason,
  allFinite,
  atOnce,
  inTurns,
  isFiniteTensor,
  isKofnError,
  KofnError,
  openScope,
  seededRng,
  sleep,
  systemClock,
  tensor,
  tensorBytes,
  tensorFromBytes,
  type Clock,
  type Parts,
} from '../src/index.js';

const code = (expected: string) => (error: unknown) => isKofnError(error) && error.code === expected;

describe('tensor', () => {
  it('refuses data that does not fit its type or shape', () => {
    assert.throws(() => tensor('float32', [2], new Float64Array(2)), code('DTYPE_MISMATCH'));
    assert.throws(() => tensor('float32', [2, 3], new Float32Array(5)), code('SHAPE_MISMATCH'));
    assert.throws(() => tensor('float32', [-1], new Float32Array(1)), code('SHAPE_MISMATCH'));
    assert.throws(() => tensor('string', [1], new Uint8Array(1)), code('DTYPE_MISMATCH'));
  });

  it('round-trips through raw bytes at any alignment', () => {
    const value = tensor('float64', [3], Float64Array.of(1, -2.5, 1e300));
    for (let offset = 0; offset < 8; offset++) {
      const padded = new Uint8Array(24 + offset);
      padded.set(tensorBytes(value), offset);
      assert.deepEqual(tensorFromBytes('float64', [3], padded.subarray(offset)), value);
      const buffer = Buffer.from(padded.buffer).subarray(offset);
      assert.deepEqual(tensorFromBytes('float64', [3], buffer), value);
    }
    assert.throws(() => tensorFromBytes('float64', [3], new Uint8Array(23)), code('SHAPE_MISMATCH'));
  });

  it('finds what is not finite wherever it stands, and nothing in extreme finite values', () => {
    for (const bad of [NaN, Infinity, -Infinity]) {
      for (let at = 0; at < 5; at++) {
        const data = new Float32Array(5);
        data[at] = bad;
        assert.equal(allFinite(data), false);
      }
    }
    assert.equal(allFinite(Float32Array.of(3.4e38, -3.4e38, 1e-45, 0)), true);
    assert.equal(isFiniteTensor(tensor('float16', [2], Uint16Array.of(0x3c00, 0x7c00))), false);
    assert.equal(isFiniteTensor(tensor('float16', [1], Uint16Array.of(0x7bff))), true);
    assert.equal(isFiniteTensor(tensor('int32', [1], Int32Array.of(-1))), true);
  });
});

describe('abort', () => {
  it('ends a sleep and a wait at once, with the reason', async () => {
    using scope = openScope(systemClock);
    const waits = [sleep(systemClock, 60_000, scope.signal), abortable(new Promise(() => undefined), scope.signal)];
    scope.abort(new KofnError('UNAVAILABLE', 'gone'));
    for (const wait of waits) await assert.rejects(wait, code('UNAVAILABLE'));
    await assert.rejects(sleep(systemClock, 60_000, scope.signal), code('UNAVAILABLE'));
  });

  it('a scope has ended once its deadline has passed, though its timer has not fired', () => {
    let now = 0;
    const late = { now: () => now, setTimer: () => ({ cancel: () => undefined }) };
    using scope = openScope(late, { deadlineMs: 10, what: 'test' });
    assert.deepEqual([scope.hasEnded(), scope.signal.aborted], [false, false]);
    now = 10;
    assert.deepEqual([scope.hasEnded(), scope.signal.aborted], [true, true]);
    assert.equal(abortReason(scope.signal).code, 'DEADLINE_EXCEEDED');
    using open = openScope(late);
    assert.equal(open.hasEnded(), false);
    open.abort(new KofnError('CANCELLED', 'over'));
    assert.equal(open.hasEnded(), true);
  });

  it('names the work whose deadline passed, and a parent that cancelled', async () => {
    using scope = openScope(systemClock, { deadlineMs: 1, what: 'test' });
    await assert.rejects(
      sleep(systemClock, 60_000, scope.signal),
      (error: unknown) => isKofnError(error, 'DEADLINE_EXCEEDED') && error.message.includes('test'),
    );
    const parent = new AbortController();
    using child = openScope(systemClock, { parent: parent.signal });
    parent.abort();
    await assert.rejects(sleep(systemClock, 60_000, child.signal), code('CANCELLED'));
  });
});

describe('parts', () => {
  /** Five parts of 1.5 ms each, on a clock that only they and rests move. */
  function workday(fail?: Error) {
    let now = 0;
    const log: string[] = [];
    const clock: Clock = {
      now: () => now,
      setTimer(fire, delayMs) {
        log.push(`rest ${delayMs}`);
        now += delayMs;
        const handle = setImmediate(fire);
        return { cancel: () => clearImmediate(handle) };
      },
    };
    function* work(): Parts<string> {
      for (let part = 0; part < 5; part++) {
        now += 1.5;
        log.push(`part ${part}`);
        yield;
      }
      if (fail !== undefined) throw fail;
      return 'done';
    }
    return { clock, log, work };
  }

  it('are done at once, or in turns with as much rest', async () => {
    const { clock, log, work } = workday();
    assert.equal(atOnce(work()), 'done');
    assert.deepEqual(log.splice(0), ['part 0', 'part 1', 'part 2', 'part 3', 'part 4']);
    assert.equal(await inTurns(clock, work()), 'done');
    assert.deepEqual(log, ['part 0', 'part 1', 'rest 3', 'part 2', 'part 3', 'rest 3', 'part 4']);
  });

  it('end with what they throw, and in a rest with the signal', async () => {
    const broken = workday(new KofnError('DATA_LOSS', 'broken'));
    assert.throws(() => atOnce(broken.work()), code('DATA_LOSS'));
    await assert.rejects(inTurns(broken.clock, broken.work()), code('DATA_LOSS'));
    const { clock, log, work } = workday();
    using scope = openScope(systemClock);
    const working = inTurns(clock, work(), scope.signal);
    scope.abort(new KofnError('CANCELLED', 'enough'));
    await assert.rejects(working, code('CANCELLED'));
    assert.deepEqual(log, ['part 0', 'part 1', 'rest 3']);
  });
});

describe('rng', () => {
  it('replays a seed, differs between seeds, and stays in range', () => {
    const draws = (seed: number) =>
      Array.from(
        { length: 1000 },
        (
          (rng = seededRng(seed)) =>
          () =>
            rng.uniform()
        )(),
      );
    assert.deepEqual(draws(7), draws(7));
    assert.notDeepEqual(draws(7), draws(8));
    assert.notDeepEqual(draws(7), draws(7 + 2 ** 32));
    assert.ok(draws(1).every(x => x >= 0 && x < 1));
    const mean = draws(3).reduce((sum, x) => sum + x, 0) / 1000;
    assert.ok(Math.abs(mean - 0.5) < 0.05, `mean ${mean}`);
    assert.throws(() => seededRng(-1), code('INVALID_ARGUMENT'));
  });

  it('draws normals of mean 0 and variance 1', () => {
    const rng = seededRng(11);
    const values = Array.from({ length: 20_000 }, () => rng.normal());
    const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
    const variance = values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length;
    assert.ok(Math.abs(mean) < 0.03 && Math.abs(variance - 1) < 0.05, `mean ${mean}, variance ${variance}`);
  });
});
