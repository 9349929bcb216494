/** What the page is told, part by part: the last minute's figures, samples, what waiting for all would have taken, resumable messages. */
import assert from 'node:assert/strict';
import { PAGE_REQUEST } from '@kofn/dashboard';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import type { LayerReport, RunReport } from '../src/contract/report.js';
import { barsOf, RecentHistogram } from '../src/serve/page/histogram.js';
import { MessageRing } from '../src/serve/page/message-ring.js';
import { ModelFigures, SETTLE_MS } from '../src/serve/page/model-figures.js';
import { RecentCounts, SECONDS } from '../src/serve/page/recent-counts.js';
import { Samples, SAMPLES_PER_SECOND, TELL_AFTER_MS } from '../src/serve/page/samples.js';
import { waitingForAll } from '../src/serve/page/waiting.js';
import type { EndedRequest } from '../src/serve/inference/served.js';
import { localSpans } from '../src/contract/spans.js';

/** A clock that is set by hand; nothing here sets a timer. */
function handClock() {
  return {
    ms: 1_000_000,
    now() {
      return this.ms;
    },
    setTimer(): never {
      throw new Error('no timer is expected');
    },
  };
}

/** Of a layer with three data blocks and one of parity that worker 3 did not bring in time. */
function layerReport(about: Partial<LayerReport> = {}): LayerReport {
  return {
    ...{ name: 'layer', code: 'sum', k: 3, r: 1, startMs: 0, ms: 5, spans: localSpans(0) },
    arrivals: [0, 1, 2].map(block => ({ block, worker: block, ms: 2 + block })),
    ...{ erasures: [], unanswered: [{ block: 3, worker: 3, lateMs: 9 }], rejected: [], decodeSet: [0, 1, 2] },
    ...{ recovered: { lost: [], late: [] }, computedHere: [], resent: [], hedged: [] },
    ...{ errorGain: 1, bytesSent: 0, bytesReceived: 0 },
    ...about,
  };
}

function runReport(layers: readonly LayerReport[]): RunReport {
  return { request: 0, ms: 10, spans: localSpans(0), layers, segments: [] };
}

function ended(about: Partial<EndedRequest> = {}): EndedRequest {
  return {
    id: 'a',
    model: 'm',
    version: '1',
    atMs: 0,
    ms: 10,
    queueMs: 0,
    report: runReport([layerReport()]),
    ...about,
  };
}

const millis = fc.double({ min: 0.02, max: 9e4, noNaN: true });

describe('the histogram of the last minute', () => {
  it('gives quantiles within 2 % of the exact ones', () => {
    fc.assert(
      fc.property(fc.array(millis, { minLength: 1 }), fc.double({ min: 0, max: 1, noNaN: true }), (all, part) => {
        const histogram = new RecentHistogram(handClock());
        for (const ms of all) histogram.add(ms);
        const exact = [...all].sort((a, b) => a - b)[Math.max(0, Math.ceil(part * all.length) - 1)]!;
        const seen = histogram.counts().quantile(Math.max(part, 1e-9))!;
        assert.ok(Math.abs(seen - exact) <= 0.02 * exact, `${seen} for ${exact}`);
      }),
    );
  });

  it('forgets what is older, however the clock steps', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 100_000 }), { maxLength: 60 }), steps => {
        const clock = handClock();
        const histogram = new RecentHistogram(clock);
        const at: number[] = [];
        for (const step of steps) {
          clock.ms += step;
          histogram.add(1);
          at.push(clock.ms);
        }
        const { total } = histogram.counts();
        assert.ok(total >= at.filter(ms => ms > clock.ms - 55_000).length);
        assert.ok(total <= at.filter(ms => ms > clock.ms - 60_000).length);
      }),
    );
  });

  it('counts those without an end beyond all others', () => {
    const histogram = new RecentHistogram(handClock());
    for (let i = 0; i < 98; i++) histogram.add(1);
    assert.ok(histogram.counts().quantile(0.98, 2)! < 1.02);
    assert.equal(histogram.counts().quantile(0.99, 2), null);
    assert.equal(new RecentHistogram(handClock()).counts().quantile(0.5), null);
  });

  it('has every value in one bar, and every bar between its edges', () => {
    fc.assert(
      fc.property(fc.array(millis), fc.array(millis), fc.integer({ min: 1, max: 40 }), (a, b, most) => {
        const histograms = [a, b].map(values => {
          const histogram = new RecentHistogram(handClock());
          for (const ms of values) histogram.add(ms);
          return histogram.counts();
        });
        const { edgesMs, bars } = barsOf(histograms, most);
        assert.ok(bars[0]!.length <= most);
        assert.equal(edgesMs.length, a.length + b.length === 0 ? 0 : bars[0]!.length + 1);
        [a, b].forEach((values, index) => {
          const expected = bars[index]!.map(
            (_, bar) =>
              values.filter(ms => ms >= edgesMs[bar]! * (1 - 1e-9) && ms < edgesMs[bar + 1]! * (1 - 1e-9)).length,
          );
          assert.equal(
            bars[index]!.reduce((sum, count) => sum + count, 0),
            values.length,
          );
          assert.deepEqual(bars[index], expected);
        });
      }),
    );
  });
});

describe('counts of the last minute', () => {
  it('are those of each full second', () => {
    const clock = handClock();
    const counts = new RecentCounts(clock, ['a', 'b']);
    counts.add('a', 3);
    clock.ms += 1_000;
    counts.add('a');
    counts.add('b');
    clock.ms += 2_000;
    assert.deepEqual(counts.perSecond('a').slice(-4), [0, 3, 1, 0]);
    assert.deepEqual([counts.perSecond('a').length, counts.sum('a'), counts.sum('b')], [SECONDS, 4, 1]);
    clock.ms += 58_000;
    assert.deepEqual(counts.perSecond('a').slice(0, 2), [1, 0]);
    clock.ms += 1_000_000;
    assert.equal(counts.sum('a'), 0);
  });
});

describe('what waiting for all workers would have taken', () => {
  it('adds what each step of a chain would have waited', () => {
    const second = layerReport({ startMs: 5, unanswered: [{ block: 0, worker: 0, lateMs: 4.5 }] });
    assert.deepEqual(waitingForAll(10, runReport([layerReport(), second])), { ms: 10 + 5 + 0.5, isKnown: true });
    assert.deepEqual(waitingForAll(10, runReport([])), { ms: 10, isKnown: true });
  });

  it('is a lower bound where a reply never came, or came no later than those that were used', () => {
    const open = layerReport({ unanswered: [{ block: 3, worker: 3 }] });
    assert.deepEqual(waitingForAll(10, runReport([open])), { ms: 10, isKnown: false });
    const early = layerReport({ unanswered: [{ block: 3, worker: 3, lateMs: 1 }] });
    assert.deepEqual(waitingForAll(10, runReport([early])), { ms: 10, isKnown: true });
  });

  it('has no end when a worker failed', () => {
    const erasure = { block: 3, worker: 3, code: 'UNAVAILABLE', message: 'gone' } as const;
    const report = runReport([layerReport(), layerReport({ startMs: 5, erasures: [erasure], unanswered: [] })]);
    assert.equal(waitingForAll(10, report).ms, Infinity);
  });

  it('counts layers that share their calls once, and of steps side by side the way to the last', () => {
    const shared = layerReport();
    assert.equal(waitingForAll(10, runReport([shared, { ...shared, name: 'other' }])).ms, 15);
    const beside = layerReport({ startMs: 0.1, ms: 3, unanswered: [{ block: 3, worker: 3, lateMs: 1_000 }] });
    assert.equal(waitingForAll(10, runReport([layerReport(), beside])).ms, 15);
  });
});

describe("a model's figures", () => {
  it('compare the same requests, once late replies have had their time', () => {
    const clock = handClock();
    const figures = new ModelFigures(clock);
    const erasure = { block: 3, worker: 3, code: 'UNAVAILABLE', message: 'gone' } as const;
    const lost = layerReport({ erasures: [erasure], unanswered: [], recovered: { lost: [1], late: [] } });
    figures.ended(ended());
    figures.ended(ended({ report: runReport([lost]) }));
    figures.ended(ended({ report: runReport([layerReport({ unanswered: [{ block: 3, worker: 3 }] })]) }));
    figures.ended(ended({ report: undefined, error: 'DEADLINE_EXCEEDED' }));
    assert.equal(figures.figures().waits.looked, 0);
    clock.ms += SETTLE_MS;
    const { waits, answered, failed, recovered, p50Ms, perSecond } = figures.figures();
    assert.deepEqual([waits.looked, waits.lost, waits.bounds, answered, failed], [3, 1, 1, 3, 1]);
    assert.deepEqual([recovered, perSecond.at(-2)], [{ lost: 1, late: 0 }, 4]);
    const [first, all] = [waits.first, waits.all].map(bars => bars.reduce((sum, count) => sum + count, 0));
    assert.deepEqual([first, all], [3, 2]);
    assert.ok(Math.abs(p50Ms! - 10) < 0.2 && Math.abs(waits.firstP50Ms! - 10) < 0.2);
    assert.ok(Math.abs(waits.allP50Ms! - 15) < 0.3 && waits.allP99Ms === null, JSON.stringify(waits));
  });
});

describe('samples', () => {
  it('are all requests while they are few, with what became of each block', () => {
    const clock = handClock();
    const samples = new Samples(clock);
    const erasure = { block: 2, worker: 2, code: 'UNAVAILABLE', message: 'gone' } as const;
    const layer = layerReport({
      arrivals: [0, 3, 4].map((worker, at) => ({ worker, block: worker, ms: at + 1 })),
      erasures: [erasure],
      unanswered: [{ block: 1, worker: 1, lateMs: 7.123 }],
      recovered: { lost: [2], late: [1] },
    });
    samples.ended(ended({ report: runReport([layer]) }));
    assert.deepEqual(samples.since(-1), []);
    clock.ms += TELL_AFTER_MS;
    const [line] = samples.since(-1);
    const told = line!.steps[0]!.replies.map(reply => [reply.worker, reply.kind, reply.ms, reply.isRecovered]);
    assert.deepEqual(told, [
      [0, 'arrived', 1, false],
      [3, 'arrived', 2, false],
      [4, 'arrived', 3, false],
      [2, 'failed', null, true],
      [1, 'cancelled', 7.12, true],
    ]);
    assert.equal(line!.steps[0]!.readyMs, 3);
    assert.deepEqual(samples.since(0), []);
  });

  it("are at most twenty a second of more, and the page's own beside them", () => {
    const clock = handClock();
    const samples = new Samples(clock);
    const seen = new Map<number, string>();
    const seconds = 4;
    for (let i = 0; i < 1_000 * seconds; i++) {
      clock.ms++;
      if (i % 5 === 0) samples.ended(ended({ id: 'load' }));
      if (i % 200 === 0) samples.ended(ended({ id: `${PAGE_REQUEST}1` }));
      if (i % 100 === 0) for (const { number, id } of samples.since(-1)) seen.set(number, id);
    }
    const own = [...seen.values()].filter(id => id !== 'load').length;
    const load = seen.size - own;
    assert.ok(load <= SAMPLES_PER_SECOND * (seconds + 1) && load >= SAMPLES_PER_SECOND * (seconds - 1), String(load));
    assert.equal(own, 5 * seconds - 1); // what is younger than TELL_AFTER_MS is told later
  });
});

describe('the message ring', () => {
  it('tells what came after an id, exactly, or that it does not know', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 1, max: 10 }), fc.nat(40), (count, most, at) => {
        const ring = new MessageRing('r', most);
        const ids = [ring.lastId];
        for (let i = 0; i < count; i++) ids.push(ring.add(`message ${i}`).id);
        assert.equal(ring.lastId, ids.at(-1));
        const id = ids[at] ?? `r-${at}`;
        const missed = ring.after(id);
        const isKept = at <= count && count - at <= most;
        const expected = Array.from({ length: count - at }, (_, i) => ({
          id: ids[at + 1 + i]!,
          data: `message ${at + i}`,
        }));
        assert.deepEqual(missed, isKept ? expected : undefined);
      }),
    );
  });

  it('takes no id of another ring, or none at all, for one of its own', () => {
    const ring = new MessageRing('r', 5);
    ring.add('a');
    for (const id of ['', 'r', 'r-', 'r-x', 's-0', 'r--1', 'r-1e3', 'r-99999999999999999999']) {
      assert.equal(ring.after(id), undefined, id);
    }
  });
});
