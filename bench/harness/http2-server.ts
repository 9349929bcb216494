/**
 * What bytes cost over HTTP/2 alone: node:http2 with windows as wide as production's. GET /N answers N bytes; POST /count reads its
 * body and lets it go, POST /store hashes it and writes it to a file that is synced, as a worker does a shard. A child of a
 * benchmark.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream, mkdtempSync, rmSync } from 'node:fs';
import { createServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { serveParent } from './child.js';
import { WINDOW_BYTES } from './http2-client.js';

export interface Http2ServerReady {
  readonly address: string;
}

/** A worker's, too, writes so much at a time. */
const WRITE_BYTES = 2 ** 20;

const folder = mkdtempSync(path.join(tmpdir(), 'kofn-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const answers = new Map<number, Buffer>();
const server = createServer({ settings: { initialWindowSize: WINDOW_BYTES } });
server.on('session', session => session.setLocalWindowSize(WINDOW_BYTES));
server.on('stream', (stream, headers) => {
  stream.on('error', () => undefined); // the client has gone
  const asked = headers[':path']!.slice(1);
  if (headers[':method'] === 'GET') stream.end(answerOf(Number(asked)));
  else if (asked === 'count') stream.on('end', () => stream.respond({}, { endStream: true })).resume();
  else
    store(stream).then(
      () => stream.respond({}, { endStream: true }),
      () => stream.close(),
    );
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
serveParent({ address: `127.0.0.1:${(server.address() as AddressInfo).port}` } satisfies Http2ServerReady);

function answerOf(bytes: number): Buffer {
  const answer = answers.get(bytes) ?? Buffer.alloc(bytes);
  answers.set(bytes, answer);
  return answer;
}

async function store(stream: ServerHttp2Stream): Promise<void> {
  const hash = createHash('sha256');
  stream.on('data', (bytes: Buffer) => hash.update(bytes));
  const file = createWriteStream(path.join(folder, 'stored'), { highWaterMark: WRITE_BYTES, flush: true });
  await pipeline(stream, file, { end: true });
  hash.digest();
}
