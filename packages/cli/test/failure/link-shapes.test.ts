/** Links of a shape on real sockets: whatever it is, and whatever mode comes meanwhile, every byte arrives, in order, and none early. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import { seededRng, systemClock } from '@kofn/core';
import fc from 'fast-check';
import { after, before, describe, it } from 'mocha';
import { Airs } from '../../src/failure/links/air.js';
import type { LinkMode } from '../../src/failure/links/mode.js';
import { Link } from '../../src/failure/links/proxy.js';
import type { LinkShape } from '../../src/failure/links/shape.js';
import { parseTrace } from '../../src/failure/links/trace.js';

const MAX_BYTES = 400_000;

describe('a link of a shape', () => {
  const data = Buffer.alloc(MAX_BYTES);
  const rng = seededRng(5);
  for (let at = 0; at < MAX_BYTES; at++) data[at] = rng.integer(256);

  let echo: Server;
  before(async () => {
    echo = createServer(socket => void socket.on('error', () => undefined).pipe(socket)).listen(0, '127.0.0.1');
    await once(echo, 'listening');
  });
  after(() => new Promise(resolve => echo.close(resolve)));
  const port = () => (echo.address() as AddressInfo).port;

  /** Sends `chunks` bytes at a time; resolves with what comes back. */
  const roundTrip = async (
    link: Link,
    chunks: readonly number[],
    between: (chunk: number) => void = () => undefined,
  ) => {
    const socket = connect({ port: link.port, host: '127.0.0.1', noDelay: true });
    const parts: Buffer[] = [];
    let size = 0;
    const whole = chunks.reduce((a, b) => a + b, 0);
    const done = new Promise<void>((resolve, reject) => {
      socket.on('error', reject).on('data', (bytes: Buffer) => {
        parts.push(bytes);
        size += bytes.length;
        if (size >= whole) resolve();
      });
    });
    let at = 0;
    for (const [i, length] of chunks.entries()) {
      socket.write(data.subarray(at, (at += length)));
      between(i);
      await new Promise(resolve => setImmediate(resolve));
    }
    between(chunks.length);
    await done;
    socket.destroy();
    return Buffer.concat(parts);
  };

  const shapes: LinkShape[] = [
    {},
    { delayMs: 2, jitter: { mu: 0, sigma: 1 } },
    { megabitsPerSecond: 400 },
    { sharedMegabitsPerSecond: 300, jitter: { mu: -1, sigma: 1 } },
    { stalls: { rate: 0.3, minMs: 1, maxMs: 6, burst: 0.5 } },
    { loss: { rate: 0.3, rtoMs: 2 } },
    { trace: parseTrace('ms,delayMs,megabitsPerSecond\n0,1,500\n5,0,0\n8,3,200\n', 'test.csv') },
  ];
  const modes: LinkMode[] = [
    { kind: 'hole' },
    { kind: 'hole', direction: 'there' },
    { kind: 'hole', direction: 'back' },
    { kind: 'drip', bytes: 9_999, everyMs: 1 },
    { kind: 'delay', ms: 3 },
    { kind: 'stall', ms: 5, direction: 'back' },
    { kind: 'forward' },
  ];

  it('loses, changes and turns round no byte, whatever is done to it meanwhile', async () => {
    const change = fc.record({
      at: fc.nat(8),
      mode: fc.constantFrom(...modes),
      shape: fc.option(fc.constantFrom(...shapes)),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...shapes),
        fc.array(fc.integer({ min: 1, max: 50_000 }), { minLength: 1, maxLength: 8 }),
        fc.array(change, { maxLength: 4 }),
        fc.nat(1000),
        async (shape, chunks, changes, seed) => {
          await using link = await Link.open(port(), { shape, seed });
          const got = await roundTrip(link, chunks, i => {
            for (const { at, mode, shape } of changes) {
              if (at !== i) continue;
              link.mode = mode;
              if (shape !== null) link.shape(shape, seed);
            }
            if (i === chunks.length) link.mode = { kind: 'forward' };
          });
          const sent = data.subarray(0, chunks.reduce((a, b) => a + b, 0)); // prettier-ignore
          assert.ok(got.equals(sent), `${got.length} bytes for ${sent.length}, or others`);
          const { bytesThere, bytesBack, framesThere } = link.counters;
          assert.deepEqual([bytesThere, bytesBack], [sent.length, sent.length]);
          assert.ok(framesThere >= 1 && framesThere <= sent.length);
        },
      ),
      { numRuns: 60, endOnFailure: true },
    );
  });

  const timed = async (work: () => Promise<unknown>) => {
    const start = performance.now();
    await work();
    return performance.now() - start;
  };
  const within = (ms: number, least: number) => {
    assert.ok(ms >= least, `${ms} ms is early: ${least} ms at least`);
    assert.ok(ms < 2 * least + 500, `${ms} ms, where ${least} ms are due`);
  };

  it('sends no faster than its line, which is another one each way', async () => {
    await using link = await Link.open(port(), { shape: { megabitsPerSecond: 16, delayMs: 5 } });
    // 200 kB at 2 kB/ms; what comes back overlaps with it, but for the last frame and the delays.
    within(await timed(() => roundTrip(link, [50_000, 50_000, 50_000, 50_000])), 100 + 2 * 5);
  });

  it('shares its air with the others, both ways', async () => {
    const airs = new Airs(systemClock);
    const shape = { sharedMegabitsPerSecond: 32 };
    await using first = await Link.open(port(), { shape, airs });
    await using second = await Link.open(port(), { shape: { ...shape }, airs, station: 1 });
    await using alone = await Link.open(port(), { shape });
    // 4 kB/ms, for two stations there and back.
    within(await timed(() => Promise.all([first, second].map(link => roundTrip(link, [100_000])))), 400_000 / 4000);
    within(await timed(() => roundTrip(alone, [100_000])), 200_000 / 4000);
  });

  it('holds every frame up as long as it drew, and says how many', async () => {
    await using link = await Link.open(port(), { shape: { stalls: { rate: 1, minMs: 20, maxMs: 20, burst: 1 } } });
    within(await timed(() => roundTrip(link, [1])), 2 * 20);
    assert.deepEqual(link.counters, {
      bytesThere: 1,
      bytesBack: 1,
      framesThere: 1,
      framesBack: 1,
      stalls: 2,
      losses: 0,
    });
    const seed = 3;
    link.shape({ loss: { rate: 0.4, rtoMs: 1 } }, seed);
    for (let i = 0; i < 8; i++) await roundTrip(link, [1]);
    const { losses } = link.counters;
    await using again = await Link.open(port(), { shape: { loss: { rate: 0.4, rtoMs: 1 } }, seed });
    for (let i = 0; i < 8; i++) await roundTrip(again, [1]);
    assert.equal(again.counters.losses, losses, 'the same seed loses the same');
    assert.ok(losses > 0);
  });

  it('takes no more from a sender than has room, and rejects what it cannot be', async () => {
    await using link = await Link.open(port(), { shape: { megabitsPerSecond: 0.01 } });
    const socket = connect(link.port, '127.0.0.1').on('error', () => undefined);
    await once(socket, 'connect');
    assert.equal(socket.write(Buffer.alloc(32 * 2 ** 20)), false);
    link.mode = { kind: 'hole' };
    await assert.rejects(
      Link.open(0),
      /the target of a link: "127\.0\.0\.1:0" has the port 0; give one port from 1 to 65535/,
    );
    await assert.rejects(Link.open('nowhere'), /the target of a link: "nowhere" has no port/);
    await assert.rejects(Link.open(port(), { shape: { delayMs: -1 } }), /delayMs of a link is -1/);
    assert.ok(socket.writableLength > 0);
    socket.destroy();
  });
});
