/** The proxy of the chaos runs: each mode does to a connection what it says, and no more. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { after, before, describe, it } from 'mocha';
import { Link } from '../../src/failure/links/proxy.js';

const bitsIn = (byte: number) => [...byte.toString(2)].filter(bit => bit === '1').length;

describe('a disturbed link', () => {
  let echo: Server;
  before(async () => {
    echo = createServer(socket => void socket.on('error', () => undefined).pipe(socket)).listen(0, '127.0.0.1');
    await once(echo, 'listening');
  });
  after(() => new Promise(resolve => echo.close(resolve)));

  const frame = (length: number) =>
    Buffer.concat([Buffer.of(0, length >> 8, length & 255), Buffer.alloc(6 + length, 7)]);
  const withLink = async (work: (socket: Socket, link: Link) => Promise<void>) => {
    await using link = await Link.open((echo.address() as AddressInfo).port);
    const socket = connect(link.port, '127.0.0.1');
    await once(socket, 'connect');
    socket.on('error', () => undefined);
    await work(socket, link);
    socket.destroy();
  };
  // events.once would reject with the reset.
  const closed = (socket: Socket) => new Promise(resolve => socket.once('close', resolve));
  const echoed = async (socket: Socket, bytes: Buffer): Promise<Buffer> => {
    const parts: Buffer[] = [];
    socket.write(bytes);
    for (let size = 0; size < bytes.length; size += parts.at(-1)!.length) parts.push((await once(socket, 'data') as [Buffer])[0]); // prettier-ignore
    return Buffer.concat(parts);
  };

  it('forwards, delays and drips every byte in its order', () =>
    withLink(async (socket, link) => {
      const bytes = Buffer.from(Array.from({ length: 5000 }, (_, i) => i % 251));
      assert.deepEqual(await echoed(socket, bytes), bytes);
      link.mode = { kind: 'drip', bytes: 600, everyMs: 1 };
      assert.deepEqual(await echoed(socket, bytes), bytes);
      link.mode = { kind: 'delay', ms: 30 };
      const start = performance.now();
      assert.deepEqual(await echoed(socket, bytes), bytes);
      assert.ok(performance.now() - start > 55, 'delayed on the way there and on the way back');
    }));

  it('holds everything in a hole, and lets it go afterwards', () =>
    withLink(async (socket, link) => {
      link.mode = { kind: 'hole' };
      const bytes = Buffer.alloc(2_000_000, 3);
      const answer = echoed(socket, bytes);
      await new Promise(resolve => setImmediate(resolve));
      assert.equal(socket.bytesRead, 0);
      link.mode = { kind: 'forward' };
      assert.deepEqual(await answer, bytes);
    }));

  it('flips one bit of one frame length, then none', () =>
    withLink(async (socket, link) => {
      assert.deepEqual(await echoed(socket, frame(300)), frame(300));
      link.mode = { kind: 'corrupt', seed: 1, inPayload: false };
      const spoiled = await echoed(socket, frame(10));
      assert.ok([0x40, 0x80].includes(spoiled[0]!), String(spoiled[0]));
      assert.deepEqual(spoiled.subarray(1), frame(10).subarray(1));
      assert.deepEqual(await echoed(socket, frame(20)), frame(20));
    }));

  it('flips one bit of one payload, there or back', async () => {
    // On the way there its first 24 bytes are a client's preface, on the way back a frame of another type.
    const sent = Buffer.concat([frame(15), frame(300)]);
    sent[24 + 3] = 0; // a DATA frame
    for (let seed = 0; seed < 8; seed++) {
      await withLink(async (socket, link) => {
        link.mode = { kind: 'corrupt', seed, inPayload: true };
        const back = await echoed(socket, sent);
        const flips = [...back].map((byte, at) => bitsIn(byte ^ sent[at]!));
        assert.equal(flips.reduce((a, b) => a + b), 1); // prettier-ignore
        assert.ok(flips.indexOf(1) >= 24 + 9, `byte ${flips.indexOf(1)} is no payload`);
        assert.deepEqual(await echoed(socket, frame(20)), frame(20));
      });
    }
  });

  it('resets what is open and what comes', () =>
    withLink(async (socket, link) => {
      await echoed(socket, frame(1));
      const ended = closed(socket);
      link.mode = { kind: 'reset' };
      await ended;
      const next = connect(link.port, '127.0.0.1').on('error', () => undefined);
      await closed(next);
    }));
});
