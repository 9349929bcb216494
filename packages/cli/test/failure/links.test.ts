/** Links in their process: orders arrive, and it ends with its parent, however that ends. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import { createInterface } from 'node:readline';
import { isKofnError } from '@kofn/core';
import { after, before, describe, it } from 'mocha';
import { Links } from '../../src/failure/links/links.js';
import { WIFI } from '../../src/failure/links/shape.js';
import { parseTrace } from '../../src/failure/links/trace.js';

const alive = (pid: number) => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

describe('links in a process of their own', () => {
  const servers: Server[] = [];
  before(async () => {
    for (const name of ['one', 'two']) {
      const server = createServer(socket => {
        socket.on('error', () => undefined).on('data', bytes => socket.write(`${name}:${String(bytes)}`));
      });
      servers.push(server.listen(0, '127.0.0.1'));
      await once(server, 'listening');
    }
  });
  after(() => servers.forEach(server => server.close()));
  const ports = () => servers.map(server => (server.address() as AddressInfo).port);
  const ask = async (address: string, text: string) => {
    const socket = connect(Number(address.split(':')[1]), '127.0.0.1');
    try {
      socket.write(text);
      return String(((await once(socket, 'data')) as [Buffer])[0]);
    } finally {
      socket.destroy();
    }
  };

  it('carry out what they are told, one order after another', async () => {
    const [one, two] = ports();
    await using links = await Links.open([one!, `127.0.0.1:${two}`], { shape: { delayMs: 1 }, seed: 4 });
    const [first, second] = links.addresses;
    assert.deepEqual(await Promise.all([ask(first!, 'a'), ask(second!, 'b')]), ['one:a', 'two:b']);
    await Promise.all([links.aim(0, two!), links.set(1, { kind: 'reset' })]);
    assert.equal(await ask(first!, 'c'), 'two:c');
    await assert.rejects(ask(second!, 'd'), /ECONNRESET|EPIPE/);
    const counters = await links.counters();
    assert.deepEqual(counters[0], {
      bytesThere: 2,
      bytesBack: 10,
      framesThere: 2,
      framesBack: 2,
      stalls: 0,
      losses: 0,
    });
    await links.set(1, { kind: 'forward' });
    await links.shape('all', WIFI, 9);
    await links.shape([1], { trace: parseTrace('ms,delayMs\n0,25\n', 'test.csv') });
    const start = performance.now();
    assert.equal(await ask(second!, 'e'), 'two:e');
    assert.ok(performance.now() - start >= 50, 'the trace went with the order');
  });

  it('reject what cannot be, and go on', async () => {
    const [one] = ports();
    await assert.rejects(Links.open(['x']), (error: unknown) => isKofnError(error, 'INVALID_ARGUMENT'));
    const links = await Links.open([one!]);
    await assert.rejects(links.set(1, { kind: 'hole' }), /there is no link 1; there are 1/);
    await assert.rejects(links.shape('all', { delayMs: NaN }), (error: unknown) => {
      return isKofnError(error, 'INVALID_ARGUMENT') && /delayMs of a link is NaN/.test(error.message);
    });
    assert.equal(await ask(links.addresses[0]!, 'a'), 'one:a');
    const { pid } = links;
    await links[Symbol.asyncDispose]();
    await links[Symbol.asyncDispose]();
    assert.equal(alive(pid!), false);
    await assert.rejects(links.counters(), (error: unknown) => isKofnError(error, 'UNAVAILABLE'));
  });

  it('do not mind Ctrl-C, and end when their parent is killed', async () => {
    const script = `
      import { Links } from '${new URL('../../src/failure/links/links.js', import.meta.url).href}';
      const links = await Links.open([${ports()[0]}]);
      process.kill(links.pid, 'SIGINT');
      await links.counters();
      console.log(links.pid + ' ' + links.addresses[0]);
      setInterval(() => undefined, 1000);`;
    const parent = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: ['ignore', 'pipe', 'inherit'] }); // prettier-ignore
    const [line] = (await once(createInterface({ input: parent.stdout }), 'line')) as [string];
    const [pid, address] = line.split(' ');
    assert.equal(await ask(address!, 'a'), 'one:a');
    // A connection through it ends with it.
    const socket = connect(Number(address!.split(':')[1]), '127.0.0.1').on('error', () => undefined);
    await once(socket, 'connect');
    const closed = new Promise(resolve => socket.once('close', resolve));
    parent.kill('SIGKILL');
    await closed;
    while (alive(Number(pid))) await new Promise(resolve => setImmediate(resolve));
  });
});
