import assert from 'node:assert/strict';
import { mkdir, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'mocha';
import { chunks, header, HOUR_MS, OwnedStore, owner } from './support/store.js';
import { KofnError } from '@kofn/core';
import type { Owner } from '@kofn/wire';
import { scaleShard } from './support/scale-engine.js';

const shard = scaleShard(2, new Uint8Array(5000));
const other = scaleShard(3, new Uint8Array(100));
const [a, b] = [owner('a'), owner('b')];
const SHARD_FILES = ['model.onnx', 'owners.json', 'weights.bin'];

/** Lets what waits for the disk or a promise go on, until `isDone`. */
async function until(isDone: () => boolean): Promise<void> {
  while (!isDone()) await new Promise(resolve => setImmediate(resolve));
}

describe('ownership of shards', () => {
  it('keeps the bytes while one of two owners is left, and frees them with the last', async () => {
    await using t = await OwnedStore.open();
    assert.deepEqual(await t.put(shard, a), { present: false });
    assert.deepEqual(await t.put(shard, b), { present: true });
    assert.deepEqual([t.ownersOf(shard), t.store.claims], [['a', 'b'], 2]);
    assert.equal(await t.store.remove(shard.name, a), false);
    assert.equal(await t.store.remove(shard.name, a), false); // once more is harmless
    assert.equal(await t.store.remove(shard.name, owner('a', 2)), false); // another version is another owner
    assert.deepEqual([t.ownersOf(shard), await t.files(shard)], [['b'], SHARD_FILES]);
    await t.store.open(shard.name);
    assert.equal(await t.store.remove(shard.name, b), true);
    assert.deepEqual([t.ownersOf(shard), t.store.diskUsedBytes, t.store.claims], [undefined, 0, 0]);
    assert.deepEqual(await readdir(path.join(t.dataDir, 'shards')), []);
    assert.deepEqual(await readdir(path.join(t.dataDir, 'tmp')), []);
    assert.deepEqual(await t.gone(1), [shard.name]);
    assert.deepEqual(await t.put(shard, a), { present: false });
  });

  it('lets an administrator remove what others claim', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard, a);
    await t.put(shard, b);
    assert.equal(await t.store.remove(shard.name), true);
    assert.equal(await t.store.claim(shard.name, a), false);
    assert.deepEqual(await t.files(shard), []);
  });

  it('knows what an owner claims', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard, a);
    await t.put(other, a);
    await t.put(other, b);
    assert.deepEqual(t.store.claimedBy(a).sort(), [shard.name, other.name].sort());
    assert.deepEqual(t.store.claimedBy(b), [other.name]);
    assert.deepEqual(t.store.claimedBy(owner('c')), []);
  });

  it('knows the owners after a restart', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard, a);
    await t.put(shard, b);
    await t.put(other, b);
    await t.store.remove(shard.name, a);
    await t.restart();
    assert.deepEqual([t.ownersOf(shard), t.ownersOf(other)], [['b'], ['b']]);
    assert.deepEqual(t.store.claimedBy(b).length, 2);
    assert.equal(await t.store.remove(shard.name, b), true);
    await t.restart();
    assert.deepEqual([t.ownersOf(shard), t.ownersOf(other)], [undefined, ['b']]);
  });

  it('writes owners only when they change: renewing costs no write', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard, a);
    const before = await t.ownersText(shard);
    assert.deepEqual(JSON.parse(before!), [a]);
    await rm(t.ownersFile(shard));
    await t.store.claim(shard.name, a);
    await t.put(shard, a);
    assert.equal(await t.ownersText(shard), undefined);
    await t.store.claim(shard.name, b);
    assert.deepEqual(JSON.parse((await t.ownersText(shard))!), [a, b]);
  });

  it('refuses more owners than a shard may have, and goes on', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard, a);
    for (let version = 2; version <= 100; version++) await t.store.claim(shard.name, owner('a', version));
    await assert.rejects(t.store.claim(shard.name, b), { code: 'RESOURCE_EXHAUSTED', message: /100 owners/ });
    await assert.rejects(t.put(shard, b), { code: 'RESOURCE_EXHAUSTED' });
    assert.equal(await t.store.claim(shard.name, a), true);
    assert.equal(await t.store.remove(shard.name, a), false);
    assert.equal(await t.store.claim(shard.name, b), true);
    await t.restart();
    assert.equal(t.store.claims, 100);
  });
});

describe('a put or claim whose caller is gone by its end', () => {
  /** A store whose next commit, or write of owners, happens after the caller is gone. */
  async function leaving() {
    const controller = new AbortController();
    const { signal } = controller;
    let leaves = false;
    const leave = () => leaves && controller.abort(new KofnError('CANCELLED', 'the caller is gone'));
    const t = await OwnedStore.open(blobs => ({
      list: () => blobs.list(),
      read: (name, file) => blobs.read(name, file),
      location: name => blobs.location(name),
      readOwners: name => blobs.readOwners(name),
      remove: name => blobs.remove(name),
      writeOwners: (name, owners) => (leave(), blobs.writeOwners(name, owners)),
      create: async () => {
        const draft = await blobs.create();
        return {
          write: (file, chunk) => draft.write(file, chunk),
          discard: () => draft.discard(),
          commit: (name, owners) => (leave(), draft.commit(name, owners)),
        };
      },
    }));
    const put = (by: Owner) => {
      leaves = true;
      return assert.rejects(t.store.put(header(shard), chunks(shard, 4096), { owner: by, signal }), CANCELLED);
    };
    const claim = (by: Owner) => {
      leaves = true;
      return assert.rejects(t.store.claim(shard.name, by, { signal }), CANCELLED);
    };
    return { t, put, claim, leave, signal };
  }
  const CANCELLED = { code: 'CANCELLED', message: /the caller is gone/ };

  it('leaves no bytes that nobody else claims', async () => {
    const { t, put } = await leaving();
    await put(a);
    assert.deepEqual([t.ownersOf(shard), t.store.diskUsedBytes, await t.files(shard)], [undefined, 0, []]);
    assert.deepEqual(await t.gone(1), [shard.name]);
    assert.deepEqual(await t.put(shard, a), { present: false });
    await t[Symbol.asyncDispose]();
  });

  it('leaves the claims of others, and those it had before', async () => {
    for (const act of ['put', 'claim'] as const) {
      const { t, leave, signal, ...acts } = await leaving();
      await t.put(shard, b);
      await acts[act](a);
      assert.deepEqual([t.ownersOf(shard), JSON.parse((await t.ownersText(shard))!)], [['b'], [b]]);
      assert.deepEqual(await t.files(shard), SHARD_FILES);
      leave();
      await assert.rejects(t.store.claim(shard.name, b, { signal }), CANCELLED); // it was gone before its turn
      assert.deepEqual(t.ownersOf(shard), ['b']);
      await t[Symbol.asyncDispose]();
    }
  });
});

describe('leases', () => {
  it('end after 24 hours without Put or Claim, and the last one frees the bytes', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard, a);
    t.clock.advance(HOUR_MS);
    await t.put(shard, b);
    t.clock.advance(22 * HOUR_MS);
    assert.deepEqual(t.ownersOf(shard), ['a', 'b']);
    t.clock.advance(HOUR_MS); // a's 24 hours are over
    await until(() => t.store.claims === 1);
    assert.deepEqual([t.ownersOf(shard), JSON.parse((await t.ownersText(shard))!)], [['b'], [b]]);
    t.clock.advance(HOUR_MS);
    assert.deepEqual(await t.gone(1), [shard.name]);
    assert.deepEqual([t.store.has(shard.name), t.store.diskUsedBytes, await t.files(shard)], [false, 0, []]);
  });

  it('are renewed by Put and by Claim', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard, a);
    await t.put(other, a);
    for (let day = 0; day < 3; day++) {
      t.clock.advance(23 * HOUR_MS);
      assert.equal(await t.store.claim(shard.name, a), true);
      assert.deepEqual(await t.put(other, a), { present: true });
    }
    assert.deepEqual([t.ownersOf(shard), t.ownersOf(other)], [['a'], ['a']]);
    t.clock.advance(24 * HOUR_MS);
    assert.deepEqual([...(await t.gone(2))].sort(), [shard.name, other.name].sort());
  });

  it('begin anew when the worker starts', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard, a);
    t.clock.advance(23 * HOUR_MS);
    await t.restart();
    t.clock.advance(23 * HOUR_MS);
    assert.deepEqual(t.ownersOf(shard), ['a']);
    t.clock.advance(HOUR_MS);
    assert.deepEqual(await t.gone(1), [shard.name]);
  });

  it('hold for nobody, once, what was put without an owner', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard);
    assert.deepEqual([t.ownersOf(shard), t.store.claims, await t.files(shard)], [[], 1, ['model.onnx', 'weights.bin']]);
    await t.put(shard, a); // nobody's lease goes on beside that of a, also across a restart
    await t.restart();
    assert.equal(await t.store.remove(shard.name, a), false);
    await t.restart();
    assert.deepEqual([t.ownersOf(shard), t.store.claims], [[], 1]);
    t.clock.advance(24 * HOUR_MS);
    assert.deepEqual(await t.gone(1), [shard.name]);
  });

  it('hold for one lease what is found without an owners file, or with a damaged one', async () => {
    const text = JSON.stringify([a]);
    const longName = JSON.stringify([owner('c'.repeat(201))]);
    const many = JSON.stringify(Array.from({ length: 101 }, (_, version) => owner('a', version)));
    const damages: ((file: string) => Promise<unknown>)[] = [
      file => rm(file),
      file => truncate(file, 0),
      file => truncate(file, text.length - 3),
      file => writeFile(file, Buffer.of(0xff, 0xfe, 0)),
      ...['null', '{}', '[]', '"a"', '[null]', '[{"cluster":["a"],"model":"m","version":1}]', longName, many].map(
        wrong => (file: string) => writeFile(file, wrong),
      ),
      ...[-1, 0.5, 2 ** 32, '"1"'].map(
        version => (file: string) => writeFile(file, `[{"cluster":"a","model":"m","version":${version}}]`),
      ),
      async file => {
        await rm(file);
        await mkdir(file);
      },
    ];
    for (const damage of damages) {
      await using t = await OwnedStore.open();
      await t.put(shard, a);
      await t.restart(async () => void (await damage(t.ownersFile(shard))));
      assert.deepEqual([t.ownersOf(shard), t.store.claims], [[], 1], damage.toString());
      await t.store.open(shard.name);
      t.clock.advance(23 * HOUR_MS);
      assert.equal(t.store.has(shard.name), true);
      t.clock.advance(HOUR_MS);
      assert.deepEqual(await t.gone(1), [shard.name]);
    }
  });

  it('keep one background timer however many there are, and none after dispose', async () => {
    await using t = await OwnedStore.open();
    assert.equal(t.clock.armed, 0);
    for (let scale = 1; scale <= 5; scale++) {
      await t.put(scaleShard(scale), a);
      await t.put(scaleShard(scale), b);
      t.clock.advance(HOUR_MS);
      assert.deepEqual(t.clock.background, [(24 - scale) * HOUR_MS]);
    }
    await t.store.claim(scaleShard(1).name, a);
    t.clock.advance(19 * HOUR_MS);
    await until(() => t.clock.armed === 1); // b's claim on the first is dropped, the timer set for the second
    assert.deepEqual([t.ownersOf(scaleShard(1)), t.clock.background], [['a'], [HOUR_MS]]);
    t.clock.advance(HOUR_MS);
    await t.gone(1);
    await t.store[Symbol.asyncDispose]();
    assert.equal(t.clock.armed, 0);
    t.clock.advance(100 * HOUR_MS);
    assert.equal(t.store.has(scaleShard(1).name), true);
  });

  it('that are being ended when the store is disposed of have ended then, and set no timer', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard, a);
    await t.put(other, a);
    t.clock.advance(24 * HOUR_MS);
    await t.store[Symbol.asyncDispose]();
    assert.equal(t.clock.armed, 0);
    for (const each of [shard, other]) {
      assert.deepEqual(await t.files(each), t.store.has(each.name) ? SHARD_FILES : []);
    }
  });
});

describe('owners that cannot be written', () => {
  /** A folder in the place of the file, so that no rename gets there. */
  async function block(t: OwnedStore): Promise<void> {
    await rm(t.ownersFile(shard), { force: true });
    await mkdir(path.join(t.ownersFile(shard), 'in-the-way'), { recursive: true });
  }

  it('are STORAGE, and the claims stay what they were', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard, a);
    await block(t);
    const failure = { code: 'STORAGE', message: /owners\.json/ };
    await assert.rejects(t.store.claim(shard.name, b), failure);
    await assert.rejects(t.put(shard, b), failure);
    assert.deepEqual([t.ownersOf(shard), await readdir(path.join(t.dataDir, 'tmp'))], [['a'], []]);
    await rm(t.ownersFile(shard), { recursive: true });
    await t.store.claim(shard.name, b);
    await block(t);
    await assert.rejects(t.store.remove(shard.name, a), failure);
    assert.deepEqual(t.ownersOf(shard), ['a', 'b']);
    assert.equal(await t.store.remove(shard.name), true); // needs no file
    assert.deepEqual(await t.files(shard), []);
  });

  it('at the end of a lease are tried again a minute later', async () => {
    await using t = await OwnedStore.open();
    await t.put(shard, a);
    await t.put(other, a);
    t.clock.advance(HOUR_MS);
    await t.put(shard, b);
    await block(t);
    t.clock.advance(23 * HOUR_MS);
    assert.deepEqual(await t.gone(1), [other.name]); // one that fails does not hold up the others
    await until(() => t.clock.armed === 1);
    assert.deepEqual([t.ownersOf(shard), t.clock.background], [['a', 'b'], [60_000]]);
    await rm(t.ownersFile(shard), { recursive: true });
    t.clock.advance(60_000);
    await until(() => t.clock.armed === 1);
    assert.deepEqual([t.ownersOf(shard), t.clock.background], [['b'], [HOUR_MS - 60_000]]);
  });
});
