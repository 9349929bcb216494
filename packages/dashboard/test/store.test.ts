/** What the page knows after messages came in pieces, twice, or again after a lost connection. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import type { PageState, RequestLine, WorkerLine } from '../src/protocol.js';
import { EventParser } from '../src/state/server-sent-events.js';
import { isSameServer, withPatch, withState } from '../src/state/store.js';

const request = (number: number): RequestLine => ({
  ...{ number, id: 'a', model: 'm', version: '1', atMs: number, ms: 1, queueMs: 0, error: null, steps: [] },
});
const worker = (index: number, state = 'ready'): WorkerLine => ({
  ...{ index, address: `h:${index}`, state, reason: '', macsPerSecond: null, rttMs: null },
  ...{ slowness: null, isStraggler: false, inTime: null },
});
const STATE: PageState = {
  ...{ atMs: 100, faults: false, workers: [worker(0), worker(1)], models: [], health: [], figures: [] },
  ...{
    load: { queued: 0, running: 0 },
    requests: [request(1), request(2)],
    events: [{ atMs: 1, kind: 'lost', message: 'a' }],
  },
};

describe('the state of the page', () => {
  it('takes workers by index, requests by number, events once, and all else as a whole', () => {
    const load = { queued: 1, running: 2 };
    const events = [STATE.events[0]!, { atMs: 2, kind: 'back', message: 'b' }];
    const next = withPatch(STATE, {
      atMs: 200,
      workers: [worker(1, 'dead'), worker(2)],
      requests: [request(2), request(3)],
      events,
      load,
    });
    assert.deepEqual(
      next.workers.map(({ index, state }) => [index, state]),
      [
        [0, 'ready'],
        [1, 'dead'],
        [2, 'ready'],
      ],
    );
    assert.deepEqual(
      next.requests.map(({ number }) => number),
      [1, 2, 3],
    );
    assert.deepEqual([next.events, next.load, next.atMs, next.faults], [events, load, 200, false]);
  });

  it('keeps a bounded number of requests, the latest', () => {
    let state = STATE;
    for (let number = 3; number < 100; number++) state = withPatch(state, { requests: [request(number)] });
    assert.deepEqual([state.requests.length, state.requests.at(-1)!.number], [32, 99]);
  });

  it('keeps what was seen through a reconnect to the same server', () => {
    const told = { ...STATE, atMs: 300, requests: [request(5)], events: [], workers: [worker(0)] };
    const again = withState(STATE, told);
    assert.deepEqual(
      again.requests.map(({ number }) => number),
      [1, 2, 5],
    );
    assert.deepEqual([again.events, again.workers.length], [STATE.events, 1]);
    assert.deepEqual(withState(undefined, told), told);
    assert.deepEqual([isSameServer('ab-1', 'ab-12'), isSameServer('ab-1', 'ac-1')], [true, false]);
  });
});

describe('Server-Sent Events', () => {
  const TEXT =
    'retry: 500\n\nid: a-1\nevent: state\ndata: {"x":1}\n\n: a comment\n\nid: a-2\nevent: patch\ndata: one\ndata: two\n\ndata: bare\n\n';
  const EVENTS = [
    { id: 'a-1', event: 'state', data: '{"x":1}' },
    { id: 'a-2', event: 'patch', data: 'one\ntwo' },
    { id: 'a-2', event: 'message', data: 'bare' },
  ];

  it('are the same however the text is cut', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(TEXT.length)), fc.boolean(), (cuts, hasReturns) => {
        const parser = new EventParser();
        const text = hasReturns ? TEXT.replaceAll('\n', '\r\n') : TEXT;
        const at = [0, ...cuts.sort((a, b) => a - b), text.length];
        const pieces = at.slice(1).map((end, index) => text.slice(at[index], end));
        assert.deepEqual(
          pieces.flatMap(piece => parser.push(piece)),
          EVENTS,
        );
      }),
    );
  });
});
