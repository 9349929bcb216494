import assert from 'node:assert/strict';
import { describe, it } from 'mocha';
import type { ServiceHandlers } from '../src/protocol/channel.js';
import type { Owner } from '../src/protocol/owner.js';
import { codecs, PROTOCOL_VERSION, EXTENSIONS, METHODS } from '../src/protocol/protos.js';
import { shardName } from '../src/client/shard-transfer.js';
import { WorkerClient } from '../src/client/worker-client.js';
import { handlers, pair } from './harness.js';

const owner: Owner = { cluster: 'c', model: 'm', version: 3 };
const [model, weights] = [Buffer.from('model'), Buffer.from('weights')];
const shard = { name: shardName(model, weights), model, weights };
const block = { layers: ['l'], code: 'sum', k: 4, r: 1, block: 2 };

/** A server that is a kofn worker by what it says, and a client of it; `got` has the requests, decoded. */
async function peer(protocolVersion = PROTOCOL_VERSION) {
  const got: unknown[] = [];
  const metadata = { name: 'w', version: '1', extensions: [EXTENSIONS.shardStore] };
  const services: ServiceHandlers = {
    ...handlers({}),
    unary: new Map([
      [METHODS.serverMetadata, () => Promise.resolve(codecs.serverMetadata.encode(metadata))],
      [
        METHODS.inventory,
        () => {
          const mine = { ...owner };
          const shards = [{ name: shard.name, bytes: 12, owners: [mine], uses: [{ owner: mine, block }] }];
          const recent = { runs: 2, macs: 3e12, engine_ms: 1.5 };
          const events = [{ age_ms: 2.5, text: 'started' }];
          return Promise.resolve(
            codecs.inventory.encode({ protocol_version: protocolVersion, shards, recent, events }),
          );
        },
      ],
      [
        METHODS.claim,
        (request: Uint8Array) => {
          got.push(codecs.claimRequest.decode(request));
          return Promise.resolve(codecs.claimResponse.encode({ missing: ['gone'] }));
        },
      ],
      [
        METHODS.remove,
        (request: Uint8Array) => {
          got.push(codecs.removeRequest.decode(request));
          return Promise.resolve(codecs.removeResponse.encode({ removed: ['went'] }));
        },
      ],
    ]),
    clientStream: new Map([
      [
        METHODS.put,
        async messages => {
          for await (const message of messages) got.push(codecs.putRequest.decode(message));
          return codecs.putResponse.encode({ present: false });
        },
      ],
    ]),
  };
  const ends = await pair(services);
  const client = await WorkerClient.open(ends.channel);
  return { client, got, [Symbol.asyncDispose]: () => ends[Symbol.asyncDispose]() };
}

describe('WorkerClient and owners', () => {
  it('sends the owner with Put, Claim and Remove, and none when none is given', async () => {
    await using t = await peer();
    const sent: number[] = [];
    await t.client.put({ ...shard, block }, { owner, onProgress: bytes => sent.push(bytes) });
    await t.client.put(shard);
    const headers = (t.got.splice(0) as { header?: { owner: Owner | null; block: unknown } }[]).filter(
      ({ header }) => header,
    );
    assert.deepEqual(
      [headers.map(({ header }) => [header!.owner, header!.block]), sent],
      [
        [
          [owner, block],
          [null, null],
        ],
        [5, 12],
      ],
    );
    assert.deepEqual(await t.client.claim(['a', 'gone'], owner), ['gone']);
    assert.deepEqual(await t.client.claim(['gone'], owner, { block }), ['gone']);
    assert.deepEqual(await t.client.remove(['went'], { owner }), ['went']);
    assert.deepEqual(await t.client.remove(['went']), ['went']);
    assert.deepEqual(t.got, [
      { names: ['a', 'gone'], owner, block: null },
      { names: ['gone'], owner, block },
      { names: ['went'], owner },
      { names: ['went'], owner: null },
    ]);
  });

  it('says in the inventory who owns a shard and what it is to them, what was run lately, and what happened', async () => {
    await using t = await peer();
    const { shards, recent, events } = await t.client.inventory();
    assert.deepEqual(shards, [{ name: shard.name, bytes: 12, owners: [owner], uses: [{ owner, block }] }]);
    assert.deepEqual(recent, { runs: 2, macs: 3e12, engineMs: 1.5 });
    assert.deepEqual(events, [{ ageMs: 2.5, text: 'started' }]);
  });

  it('refuses a worker of before owners', async () => {
    await using t = await peer(1);
    await assert.rejects(t.client.inventory(), { code: 'PROTOCOL', message: /speaks version 1 .*speaks 3/ });
  });

  it('refuses an owner that is none before it sends anything', async () => {
    await using t = await peer();
    const wrong: [Partial<Owner>, RegExp][] = [
      [{ cluster: '' }, /cluster.*1 to 200 .*has 0/],
      [{ cluster: 'c'.repeat(201) }, /cluster.*has 201/],
      [{ model: 'm'.repeat(201) }, /model.*has 201/],
      [{ model: undefined as unknown as string }, /model.*is undefined/],
      [{ version: -1 }, /version.*-1/],
      [{ version: 1.5 }, /version.*1\.5/],
      [{ version: 2 ** 32 }, /version.*4294967296/],
    ];
    for (const [part, message] of wrong) {
      const refused = { code: 'INVALID_ARGUMENT', message };
      const bad = { ...owner, ...part };
      await assert.rejects(t.client.put(shard, { owner: bad }), refused);
      await assert.rejects(t.client.claim([], bad), refused);
      await assert.rejects(t.client.remove([], { owner: bad }), refused);
    }
    assert.deepEqual(t.got, []);
    await t.client.claim([], { cluster: 'c'.repeat(200), model: '', version: 2 ** 32 - 1 });
  });
});
