/** What stands on workers, by their inventories alone: the margin of a layer is what its code can lose of what is there. */
import assert from 'node:assert/strict';
import { createCode, type CodeName } from '@kofn/encoder';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { fleetScreen } from '../src/fleet/fleet-screen.js';
import { standingModels, type Holder } from '../src/fleet/fleet-models.js';

const owner = { cluster: 'c', model: 'm', version: 1 };

/** Workers of which the i-th holds block i, those in `lost` not. */
function holders(code: CodeName, k: number, r: number, lost: ReadonlySet<number>, layers = ['fc']): Holder[] {
  return Array.from({ length: k + r }, (_, worker) => {
    const uses = [{ owner, block: { layers, code, k, r, block: worker } }];
    const shards = [{ name: `${worker}`, bytes: 10, owners: [owner], uses }];
    return { worker, isReady: !lost.has(worker), shards };
  });
}

describe('models that stand on workers', () => {
  it('have the margin that any so many more may be lost, and no more', () => {
    const codes: [CodeName, number, number][] = [
      ['uncoded', 3, 0],
      ['sum', 4, 1],
      ['rotation', 3, 2],
      ['replication', 2, 4],
    ];
    fc.assert(
      fc.property(fc.constantFrom(...codes), fc.nat(63), ([code, k, r], mask) => {
        const n = k + r;
        const lost = new Set([...Array(n).keys()].filter(block => (mask >> block) % 2 === 1));
        const [model] = standingModels(holders(code, k, r, lost));
        const { margin, blocks } = model!.layers[0]!;
        assert.deepEqual([model!.shards, model!.bytes, blocks.length], [n, 10 * n, n - lost.size]);
        const decodes = (there: number[]) =>
          createCode(code, { k, r }).quorums.every(
            ({ members, count }) => members.filter(each => there.includes(each)).length >= count,
          );
        // Every way to lose so many of those that are there, and the first that is too much.
        const ways = [...Array(2 ** blocks.length).keys()].map(way => blocks.filter((_, i) => (way >> i) % 2 === 0));
        const survives = (more: number) => ways.filter(left => left.length === blocks.length - more).every(decodes);
        if (margin < 0) assert.ok(!survives(0));
        else assert.ok(survives(margin) && !survives(margin + 1));
      }),
    );
  });

  it('are told apart by version, with layers that share shards each by itself; what was not told of has no margin', () => {
    const second = { ...owner, version: 2 };
    const [shard] = holders('sum', 1, 1, new Set(), ['q', 'k', 'v'])[0]!.shards;
    const old = { name: 'old', bytes: 5, owners: [second], uses: [] };
    const models = standingModels([{ worker: 3, isReady: true, shards: [shard!, old] }]);
    assert.deepEqual(
      models.map(({ version, workers, margin, layers }) => [version, workers, margin, layers.map(each => each.layer)]),
      [
        [1, [3], 0, ['q', 'k', 'v']],
        [2, [3], null, []],
      ],
    );
  });

  it('fit into 100 columns and one screen, however many layers and workers there are', () => {
    const layers = Array.from({ length: 100 }, (_, i) => `/model/block.${i}/projection/MatMul`);
    const models = standingModels(layers.flatMap(layer => holders('rotation', 6, 2, new Set([1]), [layer])));
    const workers = Array.from({ length: 8 }, (_, worker) => ({
      ...{
        worker,
        address: `192.168.100.${worker}:7453`,
        state: 'engine stuck' as const,
        reason: '',
        roundTripMs: 12.34,
      },
      ...{ bytesPerSecond: 123.4e6, macsPerSecond: 12.34e9, recentRuns: 9, engine: 'native 1', cores: 4, shards: 100 },
      ...{
        memoryUsedBytes: 1e8,
        memoryLimitBytes: 1e9,
        diskUsedBytes: 123.4e6,
        diskLimitBytes: 1e9,
        shardBytes: 1e8,
        owners: [],
      },
    }));
    const events = Array.from({ length: 99 }, (_, i) => ({ worker: 1, ageMs: 1e6 - i, text: 'took 100 shards of m' }));
    const lines = fleetScreen({ workers, models, events }).trimEnd().split('\n');
    assert.ok(lines.length <= 40, `${lines.length} lines`);
    assert.ok(
      Math.max(...lines.map(line => line.length)) <= 100,
      lines.find(line => line.length > 100),
    );
    assert.ok(lines.some(line => /100 layers: .* rotation 6\+2 .* 7 of 8 .* 1 /.test(line)));
  });
});
