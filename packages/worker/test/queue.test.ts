import assert from 'node:assert/strict';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { KofnError } from '@kofn/core';
import { RequestQueue } from '@kofn/wire';
import { TestClock } from './support/test-clock.js';

/** Work that ends when the test says so. */
function work(log: string[], name: string) {
  let end!: () => void;
  const ended = new Promise<void>(resolve => (end = resolve));
  const run = async () => {
    log.push(name);
    await ended;
    return name;
  };
  return { run, end };
}

const turns = () => new Promise(resolve => setImmediate(resolve));

describe('RequestQueue', () => {
  it('runs one at a time, in the order of arrival', async () => {
    const log: string[] = [];
    const queue = new RequestQueue({ clock: new TestClock(), maxWaiting: 8 });
    const [a, b, c] = ['a', 'b', 'c'].map(name => work(log, name));
    const all = [a!, b!, c!].map(({ run }) => queue.submit(run));
    await turns();
    assert.deepEqual([log, queue.running, queue.waiting], [['a'], 1, 2]);
    a!.end();
    assert.equal(await all[0], 'a');
    await turns();
    assert.deepEqual(log, ['a', 'b']);
    b!.end();
    c!.end();
    assert.deepEqual(await Promise.all(all), ['a', 'b', 'c']);
    assert.deepEqual(queue.counters, {
      started: 3,
      finished: 3,
      cancelledBeforeStart: 0,
      expiredBeforeStart: 0,
      refused: 0,
    });
  });

  it('never runs what was cancelled or expired before its turn, and frees its place', async () => {
    const log: string[] = [];
    const clock = new TestClock();
    const queue = new RequestQueue({ clock, maxWaiting: 2 });
    const first = work(log, 'first');
    const running = queue.submit(first.run, { timeoutMs: 10 });
    const controller = new AbortController();
    const cancelled = assert.rejects(queue.submit(work(log, 'cancelled').run, { signal: controller.signal }), {
      code: 'CANCELLED',
      message: 'the other k answered',
    });
    const expired = assert.rejects(queue.submit(work(log, 'expired').run, { timeoutMs: 5 }), {
      code: 'DEADLINE_EXCEEDED',
    });
    await assert.rejects(queue.submit(work(log, 'refused').run), {
      code: 'RESOURCE_EXHAUSTED',
      message: /2 requests wait already.*--max-queue/,
    });
    controller.abort(new KofnError('CANCELLED', 'the other k answered'));
    await cancelled;
    assert.equal(queue.waiting, 1);
    clock.advance(100); // beyond the timeout of the one that runs, too: it has started
    await expired;
    const last = work(log, 'last');
    const afterwards = queue.submit(last.run);
    first.end();
    last.end();
    assert.deepEqual(await Promise.all([running, afterwards]), ['first', 'last']);
    assert.deepEqual(log, ['first', 'last']);
    assert.deepEqual(queue.counters, {
      started: 2,
      finished: 2,
      cancelledBeforeStart: 1,
      expiredBeforeStart: 1,
      refused: 1,
    });
    assert.equal(clock.armed, 0);
  });

  it('does not run what is overdue when its turn comes before its timer', async () => {
    const log: string[] = [];
    const clock = new TestClock();
    const queue = new RequestQueue({ clock, maxWaiting: 2 });
    const first = work(log, 'first');
    const running = queue.submit(first.run);
    const expired = assert.rejects(queue.submit(work(log, 'expired').run, { timeoutMs: 5 }), {
      code: 'DEADLINE_EXCEEDED',
    });
    const last = work(log, 'last');
    const afterwards = queue.submit(last.run, { timeoutMs: 500 });
    clock.oversleep(100);
    first.end();
    last.end();
    await Promise.all([running, expired, afterwards]);
    assert.deepEqual(log, ['first', 'last']);
    assert.deepEqual([queue.waiting, queue.running, clock.armed, queue.counters.expiredBeforeStart], [0, 0, 0, 1]);
  });

  it('goes on after work that throws', async () => {
    const queue = new RequestQueue({ clock: new TestClock(), maxWaiting: 2 });
    const failed = queue.submit(() => Promise.reject(new KofnError('ENGINE', 'out of luck')));
    const next = queue.submit(() => Promise.resolve(7));
    await assert.rejects(failed, { code: 'ENGINE' });
    assert.equal(await next, 7);
  });

  it('drains: takes nothing more, ends what it took', async () => {
    const log: string[] = [];
    const queue = new RequestQueue({ clock: new TestClock(), maxWaiting: 8 });
    const [a, b] = ['a', 'b'].map(name => work(log, name));
    const all = [queue.submit(a!.run), queue.submit(b!.run)];
    await turns();
    let isDrained = false;
    const drained = queue.drain().then(() => (isDrained = true));
    await assert.rejects(queue.submit(work(log, 'c').run), { code: 'UNAVAILABLE', message: /shutting down/ });
    a!.end();
    await all[0];
    await turns();
    assert.equal(isDrained, false);
    b!.end();
    await drained;
    assert.deepEqual(log, ['a', 'b']);
  });

  it('accounts for every request, whatever happens in whatever order', async () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('submit' as const), timeoutMs: fc.option(fc.integer({ min: 1, max: 9 })) }),
      fc.record({ kind: fc.constantFrom('end' as const, 'cancel' as const), which: fc.nat(20) }),
      fc.record({ kind: fc.constant('advance' as const), ms: fc.integer({ min: 1, max: 5 }) }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 40 }),
        fc.integer({ min: 1, max: 3 }),
        async (steps, concurrency) => {
          const clock = new TestClock();
          const log: string[] = [];
          const queue = new RequestQueue({ clock, maxWaiting: 3, concurrency });
          const requests: { controller: AbortController; end: () => void; outcome: Promise<string> }[] = [];
          for (const action of steps) {
            if (action.kind === 'submit') {
              const controller = new AbortController();
              const { run, end } = work(log, String(requests.length));
              const timeoutMs = action.timeoutMs ?? undefined;
              const outcome = queue.submit(run, { signal: controller.signal, timeoutMs }).then(
                () => 'finished',
                (error: unknown) => KofnError.from(error).code,
              );
              requests.push({ controller, end, outcome });
            } else if (action.kind === 'advance') clock.advance(action.ms);
            else if (action.kind === 'end') requests[action.which]?.end();
            else requests[action.which]?.controller.abort();
            await turns();
            assert.ok(queue.running <= concurrency && queue.waiting <= 3);
            assert.ok(queue.waiting === 0 || queue.running === concurrency, 'one waits beside an idle place');
          }
          for (const { end } of requests) end();
          const outcomes = await Promise.all(requests.map(({ outcome }) => outcome));
          const count = (outcome: string) => outcomes.filter(seen => seen === outcome).length;
          assert.deepEqual(queue.counters, {
            started: log.length,
            finished: count('finished'),
            cancelledBeforeStart: count('CANCELLED'),
            expiredBeforeStart: count('DEADLINE_EXCEEDED'),
            refused: count('RESOURCE_EXHAUSTED'),
          });
          assert.equal(log.length, count('finished'));
          assert.deepEqual(
            log,
            [...log].sort((a, b) => Number(a) - Number(b)),
            'not in the order of arrival',
          );
          assert.equal(clock.armed, 0);
        },
      ),
      { numRuns: 60 },
    );
  });
});
