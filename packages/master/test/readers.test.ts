/** Browsers that listen, over real sockets: those that read get all, one that does not is cut off. */
import assert from 'node:assert/strict';
import { createServer, get, type IncomingMessage } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, it } from 'mocha';
import { MessageRing, type Message } from '../src/serve/page/message-ring.js';
import { Readers, type MessageSource } from '../src/serve/page/readers.js';

/** Tells what a test has it tell. */
class Source implements MessageSource {
  readonly ring = new MessageRing('r', 4);
  readonly #readers = new Set<(message: Message) => void>();

  tell(data: string): void {
    const message = this.ring.add(data);
    for (const read of this.#readers) read(message);
  }

  read(read: (message: Message) => void, lastId: string | undefined) {
    this.#readers.add(read);
    const missed = lastId === undefined ? undefined : this.ring.after(lastId);
    return { missed, state: { id: this.ring.lastId, data: 'all' }, stop: () => void this.#readers.delete(read) };
  }
}

async function listening(source: Source) {
  const readers = new Readers(source);
  const server = createServer(({ headers }, response) => {
    response.writeHead(200);
    const lastId = headers['last-event-id'];
    readers.add(response, typeof lastId === 'string' ? lastId : undefined);
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    readers,
    port,
    async [Symbol.asyncDispose]() {
      readers.end();
      server.closeAllConnections();
      await new Promise(resolve => server.close(resolve));
    },
  };
}

async function reader(port: number, headers: Record<string, string> = {}) {
  const [response] = (await once(get({ port, host: '127.0.0.1', headers }), 'response')) as [IncomingMessage];
  let text = '';
  response.setEncoding('utf8').on('data', (part: string) => (text += part));
  return {
    response,
    async until(part: string): Promise<string> {
      while (!text.includes(part)) await once(response, 'data');
      return text;
    },
  };
}

describe('readers of the page', () => {
  it('are told the state, and what changes; later what they missed', async () => {
    const source = new Source();
    await using server = await listening(source);
    const first = await reader(server.port);
    await first.until('data: all');
    source.tell('one');
    const text = await first.until('data: one');
    assert.equal(text, 'retry: 500\n\nid: r-0\nevent: state\ndata: all\n\nid: r-1\nevent: patch\ndata: one\n\n');
    first.response.destroy();
    source.tell('two');
    const again = await reader(server.port, { 'last-event-id': 'r-1' });
    assert.equal(await again.until('two'), 'retry: 500\n\nid: r-2\nevent: patch\ndata: two\n\n');
    const other = await reader(server.port, { 'last-event-id': 's-1' });
    assert.match(await other.until('all'), /event: state/);
  });

  it('are cut off when they do not read, whatever others do', async () => {
    const source = new Source();
    await using server = await listening(source);
    const silent = connect(server.port, '127.0.0.1').pause();
    silent.on('error', () => undefined); // it is reset
    silent.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    while (server.readers.count === 0) await nextTurn();
    const good = await reader(server.port);
    let told = 0;
    for (; server.readers.count === 2 && told < 10_000; told++) {
      source.tell('x'.repeat(2 ** 16));
      await good.until(`id: r-${told + 1}\n`); // it reads all that it is told, in time
    }
    assert.equal(server.readers.count, 1, `${told} messages were held`);
    source.tell('last');
    await good.until('data: last');
    silent.destroy();
  });
});
