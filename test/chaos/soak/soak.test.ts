/** What the soak run judges, on series that are known; and a run of it that is ended early. */
import assert from 'node:assert/strict';
import { KofnError } from '@kofn/core';
import { describe, it } from 'mocha';
import { itWhenLong } from '../../support/form.js';
import { ALLOWANCES, FIGURES, growthOf, type Figure, type Sample } from './judge.js';
import { runSoak } from './run.js';

const COUNT = 400;
const WARM_UP_MS = 100_000;
const EVERY_MS = 1_000;
/** Its first heal comes first. */
const SEED = 2;

/** Of one figure: `at(part)` of a run, from 0 to 1. */
function series(figure: Figure, at: (part: number) => number): Map<string, Sample[]> {
  const samples = Array.from({ length: COUNT }, (_, i) => ({ atMs: i * EVERY_MS, [figure]: at(i / COUNT) }));
  return new Map([['master', samples]]);
}

describe('a soak run', () => {
  for (const figure of FIGURES) {
    const base = figure === 'rssBytes' ? 150 * 2 ** 20 : 20;
    const { times, plus } = ALLOWANCES[figure];
    const room = (times - 1) * base + plus;
    const held = (at: (part: number) => number) => growthOf(series(figure, at), WARM_UP_MS).map(({ holds }) => holds);

    it(`finds growth of ${figure}, and takes nothing else for it`, () => {
      assert.deepEqual(
        held(() => base),
        [true],
      );
      assert.deepEqual(
        held(part => base + 2 * room * part),
        [false],
        'a leak',
      ); // a little more than the room between the quarters
      assert.deepEqual(
        held(part => base + (part > 0.6 ? room + 1 : 0)),
        [false],
        'a step',
      );
      assert.deepEqual(
        held(part => base - (part < 0.2 ? 10 * room : 0)),
        [true],
        'the warm-up',
      );
      assert.deepEqual(
        held(part => base + (Math.round(part * COUNT) % 20 === 0 ? 10 * room : 0)),
        [true],
        'spikes',
      );
    });
  }

  it('says nothing of growth when it is over with its warm-up', () => {
    assert.deepEqual(
      growthOf(
        series('files', part => 1000 * part),
        COUNT * EVERY_MS,
      ),
      [],
    );
  });

  itWhenLong('loses nothing, makes all whole again, keeps nothing, and ends when it is told to', async function () {
    if (process.platform !== 'linux') this.skip(); // it reads /proc
    this.timeout(120_000);
    const controller = new AbortController();
    const result = await runSoak({
      ...{ minutes: 60, seed: SEED, inFlight: 1, signal: controller.signal }, // what else runs needs the cores, too
      onProgress: ({ done }) => {
        if (done.heal > 0) controller.abort(new KofnError('CANCELLED', 'enough'));
      },
    });
    assert.ok(result.holds, JSON.stringify(result, undefined, 2));
    assert.deepEqual([result.isInterrupted, result.done.heal, result.growth], [true, 1, []]);
    assert.ok(result.requests > 0 && result.maxMs >= result.p50Ms);
  });
});
