import assert from 'node:assert/strict';
import fc from 'fast-check';
import { describe, it } from 'mocha';
import { faultFields, type Fault } from '../../src/failure/config/config-schema.js';
import { planFaults } from '../../src/failure/fleet/fault-plan.js';
import { FAULTS } from '../../src/failure/config/presets.js';

const fault = (fields: Partial<Fault> & { kind: Fault['kind'] }): Fault => faultFields.parse(fields);
const ANY = fc.constantFrom(...Object.values(FAULTS));

describe('the plan of faults', () => {
  it('is the same for the same seed, and another for another', () => {
    const plan = (seed: number) => planFaults(FAULTS['stalls']!, { requests: 500, workers: 5, seed });
    assert.deepEqual(plan(7), plan(7));
    assert.notDeepEqual(plan(7), plan(8));
  });

  it('comes within the requests, to workers that there are, and is undone after it came', () => {
    fc.assert(
      fc.property(
        ANY,
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: 2, max: 12 }),
        fc.nat(),
        (of, requests, workers, seed) => {
          for (const event of planFaults(of, { requests, workers, seed })) {
            assert.ok(event.request >= 0 && event.request < requests);
            assert.ok(event.until > event.request);
            assert.equal(new Set(event.workers).size, of.workers);
            assert.ok(event.workers.every(worker => worker >= 0 && worker < workers));
          }
        },
      ),
    );
  });

  it('meets the same requests whatever the number of workers, when it comes at stated requests', () => {
    const often = fault({ kind: 'kill', first: 3, every: 10, times: 5 });
    const at = (workers: number) =>
      planFaults(often, { requests: 100, workers, seed: 3 }).map(({ request }) => request);
    assert.deepEqual(at(4), [3, 13, 23, 33, 43]);
    assert.deepEqual(at(9), at(4));
  });

  it('has events of a rate in that proportion', () => {
    const events = planFaults(fault({ kind: 'corrupt', rate: 0.1 }), { requests: 4000, workers: 5, seed: 11 });
    assert.ok(Math.abs(events.length / 20_000 - 0.1) < 0.01);
  });

  it('draws stalls as long as stated', () => {
    const events = planFaults(fault({ kind: 'stalls', rate: 1, minMs: 50, maxMs: 60 }), {
      requests: 100,
      workers: 2,
      seed: 1,
    });
    assert.ok(events.every(({ ms }) => ms >= 50 && ms <= 60));
    assert.ok(new Set(events.map(({ ms }) => ms)).size > 150);
  });

  it('is empty without a fault', () =>
    assert.deepEqual(planFaults(FAULTS['none']!, { requests: 9, workers: 2, seed: 1 }), []));
});
