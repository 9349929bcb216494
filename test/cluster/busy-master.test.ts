/** A master that is busy itself does not take sound workers for silent ones. */
import assert from 'node:assert/strict';
import { connectChannel, METHODS, type Channel } from '@kofn/wire';
import { connect } from 'kofn';
import { describe, it } from 'mocha';
import { keptWorkers } from '../support/kept-workers.js';
import { standStill } from '../support/stand-still.js';

const SILENCE_MS = 400;
/** Longer than the answer may take (0.7 of the silence), by less than what would be put down to a busy process. */
const BLOCK_MS = 350;
const BLOCKS = 3;

describe('a master whose event loop stands still', () => {
  it('reads the answers that came meanwhile before it gives a worker up', async () => {
    let questions = 0;
    let asked: () => void = () => undefined;
    const enough = new Promise<void>(resolve => (asked = resolve));
    /** Stands still as soon as a question to the worker is on its way. */
    const blocking = (channel: Channel): Channel => ({
      address: channel.address,
      ready: options => channel.ready(options),
      onBroken: listener => channel.onBroken(listener),
      unary(method, request, options) {
        const reply = channel.unary(method, request, options);
        if (method === METHODS.serverReady) {
          questions++;
          if (questions <= BLOCKS) setImmediate(() => setImmediate(() => standStill(BLOCK_MS)));
          else asked();
        }
        return reply;
      },
      clientStream: (method, messages, options) => channel.clientStream(method, messages, options),
      duplex: (method, events) => channel.duplex(method, events),
      [Symbol.asyncDispose]: () => channel[Symbol.asyncDispose](),
    });
    await using workers = await keptWorkers(1);
    await using cluster = await connect(
      { workers: workers.addresses, silenceMs: SILENCE_MS },
      { openChannel: (address, options) => blocking(connectChannel(address, options)) },
    );
    const states = new Set<string>();
    cluster.onFleetChange(([worker]) => void states.add(`${worker!.state} ${worker!.reason}`));
    await enough;
    states.delete('ready ');
    states.delete('suspect silent');
    assert.deepEqual([...states], []);
  });
});
