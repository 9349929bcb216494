/** A link's modes: each does to a connection what it says, and no more. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { after, before, describe, it } from 'mocha';
import type { LinkMode } from '../../src/failure/links/mode.js';
import { Link } from '../../src/failure/links/proxy.js';

const bitsIn = (byte: number) => [...byte.toString(2)].filter(bit => bit === '1').length;
const differences = (a: Buffer, b: Buffer) => a.reduce((sum, byte, at) => sum + bitsIn(byte ^ b[at]!), 0);

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

  it('holds what goes one way in a one-way hole, and a reset too', async () => {
    const peers: Socket[] = [];
    const server = createServer(socket => {
      peers.push(socket.on('error', () => undefined));
      socket.write('hello');
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    await using link = await Link.open((server.address() as AddressInfo).port);
    link.mode = { kind: 'hole', direction: 'back' };
    const socket = connect(link.port, '127.0.0.1').on('error', () => undefined);
    socket.write('there');
    while (peers.length === 0) await once(server, 'connection');
    assert.equal(String(((await once(peers[0]!, 'data')) as [Buffer])[0]), 'there');
    assert.equal(socket.bytesRead, 0);
    link.mode = { kind: 'hole', direction: 'there' };
    assert.equal(String(((await once(socket, 'data')) as [Buffer])[0]), 'hello');
    link.mode = { kind: 'hole' };
    const reset = closed(peers[0]!);
    peers[0]!.resetAndDestroy();
    await reset;
    // The link has it by the time that another connection was answered, which it is when this hole ends.
    await using other = await Link.open((echo.address() as AddressInfo).port);
    const probe = connect(other.port, '127.0.0.1');
    await echoed(probe, Buffer.of(1));
    probe.destroy();
    assert.equal(socket.destroyed, false);
    const ended = closed(socket);
    link.mode = { kind: 'forward' };
    await ended;
    await new Promise(resolve => server.close(resolve));
  });

  it('a stall holds for its time, there, back or both, on top of the mode, and new connections too', () =>
    withLink(async (socket, link) => {
      const rounds: [LinkMode, number][] = [
        [{ kind: 'stall', ms: 40 }, 40],
        [{ kind: 'stall', ms: 30, direction: 'back' }, 30],
        [{ kind: 'stall', ms: 30, direction: 'there' }, 30],
      ];
      link.mode = { kind: 'delay', ms: 1 };
      for (const [mode, ms] of rounds) {
        const start = performance.now();
        link.mode = mode;
        await echoed(socket, frame(300));
        const tookMs = performance.now() - start;
        assert.ok(tookMs >= ms && tookMs < ms + 500, `${tookMs} ms`);
      }
      const start = performance.now();
      link.mode = { kind: 'stall', ms: 30 };
      const late = connect(link.port, '127.0.0.1');
      await echoed(late, frame(3));
      assert.ok(performance.now() - start >= 30);
      late.destroy();
      link.mode = { kind: 'stall', ms: 60_000 };
      const answer = echoed(socket, frame(3));
      link.mode = { kind: 'forward' };
      await answer;
    }));

  it('passes the end of one direction behind its bytes, and the other goes on', async () => {
    const server = createServer({ allowHalfOpen: true }, socket => {
      let size = 0;
      socket.on('data', (bytes: Buffer) => (size += bytes.length));
      socket.on('end', () => socket.end(`got ${size}`));
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    await using link = await Link.open((server.address() as AddressInfo).port, { shape: { delayMs: 2 } });
    const socket = connect({ port: link.port, host: '127.0.0.1', allowHalfOpen: true });
    socket.end(Buffer.alloc(300_000));
    assert.equal(String(((await once(socket, 'data')) as [Buffer])[0]), 'got 300000');
    await once(socket, 'end');
    await new Promise(resolve => server.close(resolve));
  });

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

  it('flips one bit of one payload in the stated direction, in each connection, once an order', async () => {
    const seen: Buffer[] = [];
    const server = createServer(socket => {
      socket.on('error', () => undefined).on('data', (bytes: Buffer) => seen.push(Buffer.from(bytes)));
      socket.pipe(socket);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const sent = Buffer.concat([frame(15), frame(300)]);
    sent[24 + 3] = 0;
    for (const direction of ['there', 'back'] as const) {
      await using link = await Link.open((server.address() as AddressInfo).port);
      const sockets = [1, 2].map(() => connect(link.port, '127.0.0.1'));
      for (const seed of [1, 2]) {
        link.mode = { kind: 'corrupt', seed, inPayload: true, direction };
        for (const socket of sockets) {
          seen.length = 0;
          // The first time with the preface, which comes once a connection.
          const bytes = seed === 1 ? sent : sent.subarray(24);
          const back = await echoed(socket, bytes);
          assert.equal(differences(Buffer.concat(seen), bytes), direction === 'there' ? 1 : 0);
          assert.equal(differences(back, bytes), 1);
          assert.equal(differences(await echoed(socket, frame(300)), frame(300)), 0);
        }
      }
      sockets.forEach(socket => socket.destroy());
    }
    await new Promise(resolve => server.close(resolve));
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
