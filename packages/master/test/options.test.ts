/** Options are checked once; a message names the option, the value and the range. */
import assert from 'node:assert/strict';
import { isKofnError } from '@kofn/core';
import { describe, it } from 'mocha';
import {
  resolveCode,
  resolveConnectOptions,
  resolveHedge,
  resolveSegments,
  resolveVerify,
  resolveWorkers,
  type CodeOptions,
  type ConnectOptions,
  type ModelOptions,
} from '../src/contract/options.js';

const refused = (make: () => unknown, message: RegExp) =>
  assert.throws(make, error => isKofnError(error, 'INVALID_ARGUMENT') && message.test(error.message));

describe('connect options', () => {
  it('have defaults for all but the workers', () => {
    const { clock: _, ...resolved } = resolveConnectOptions({ workers: ['pi1', ' [0::1]:7453 '], id: 'me' });
    assert.deepEqual(resolved, {
      id: 'me',
      workers: ['pi1:7453', '[::1]:7453'],
      engine: 'auto',
      threads: 1,
      connectDeadlineMs: 10_000,
      minWorkers: 1,
      silenceMs: 2_000,
      healAfterMs: 10_000,
      maxInFlight: 64,
      maxMessageBytes: 2 ** 28,
      hooks: {},
      signal: undefined,
    });
  });

  const workers = ['a:1', 'b:2'];
  const cases: [ConnectOptions, RegExp][] = [
    [{ workers: [] }, /workers: give at least one address/],
    [{ workers: 'a:1' as unknown as string[] }, /workers: give at least one address/],
    [{ workers: ['a:1', 'http://b:2/'] }, /workers: "http:\/\/b:2\/" begins with a scheme; give b:2/],
    [{ workers: ['a:1', 7 as unknown as string] }, /workers: "7" is not text; give HOST:PORT/],
    [{ workers: ['a:1', ''] }, /workers: address 2 of 2 is empty/],
    [{ workers: ['a', 'b:2', 'A:07453'] }, /workers: a:7453 is listed twice/],
    [{ workers, engine: 'cuda' as 'native' }, /engine: "cuda" is not one of auto, native, wasm/],
    [{ workers, id: '' }, /id: "" is not a string of 1 to 200 characters/],
    [{ workers, threads: 0 }, /threads: 0 is outside the range 1 to 1024/],
    [{ workers, threads: 1.5 }, /threads: 1.5 is not a whole number from 1 to 1024/],
    [{ workers, healAfterMs: -1 }, /healAfterMs: -1 is outside/],
    [{ workers, minWorkers: 3 }, /minWorkers: 3 is outside the range 1 to 2/],
    [{ workers, connectDeadlineMs: NaN }, /connectDeadlineMs: NaN is outside/],
    [{ workers, maxMessageBytes: 10 }, /maxMessageBytes: 10 is outside the range 1024/],
  ];
  for (const [options, message] of cases) {
    it(`refuse ${message.source}`, () => refused(() => resolveConnectOptions(options), message));
  }
});

describe('the workers that hold a model', () => {
  it('are all, or those given in their order', () => {
    assert.deepEqual(resolveWorkers({}, 3), [0, 1, 2]);
    assert.deepEqual(resolveWorkers({ workers: [4, 0, 2] }, 5), [4, 0, 2]);
  });

  const wrong: [readonly number[], RegExp][] = [
    [[], /workers: give the numbers of one or more workers/],
    [3 as unknown as number[], /workers: give the numbers/],
    [[0, 5], /workers: 5 is outside the range 0 to 4/],
    [[-1], /workers: -1 is outside the range/],
    [[0.5], /workers: 0.5 is not a whole number/],
    [['pi1:7453' as unknown as number], /workers: pi1:7453 is not a whole number/],
    [[1, 2, 1], /workers: 1 is listed twice/],
  ];
  for (const [workers, message] of wrong) {
    it(`refuses ${JSON.stringify(workers)}`, () => refused(() => resolveWorkers({ workers }, 5), message));
  }
});

describe('the code for a number of workers', () => {
  const cases: [CodeOptions, number, string][] = [
    [{}, 5, 'sum 4+1'],
    [{ parity: 0 }, 5, 'uncoded 5+0'],
    [{ code: 'uncoded' }, 5, 'uncoded 5+0'],
    [{ parity: 2 }, 5, 'rotation 3+2'],
    [{ parity: 1, code: 'rotation' }, 5, 'rotation 4+1'],
    // Copies go on whole rounds of workers; what does not fill one stays free.
    [{ code: 'replication' }, 5, 'replication 2+2'],
    [{ parity: 2, code: 'replication' }, 6, 'replication 2+4'],
  ];
  for (const [options, workers, expected] of cases) {
    it(`${JSON.stringify(options)} on ${workers}: ${expected}`, () => {
      const { code, k, r, n } = resolveCode(options, workers);
      assert.equal(`${code} ${k}+${r}`, expected);
      assert.equal(n, k + r);
    });
  }

  const wrong: [CodeOptions, number, RegExp][] = [
    [{ parity: 5 }, 5, /parity: 5 with 5 workers leaves no data block; give a parity below 5, or more workers/],
    [{ parity: 1 }, 1, /parity: 1 with 1 worker leaves no data block/],
    [{ parity: -1 }, 5, /parity: -1 is outside the range/],
    [{ parity: 0.5 }, 5, /parity: 0.5 is not a whole number/],
    [{ code: 'sum', parity: 2 }, 5, /sum has exactly 1 parity block, got parity 2; use rotation/],
    [{ code: 'uncoded', parity: 1 }, 5, /uncoded has no parity blocks, got parity 1/],
    [{ code: 'magic' as 'sum' }, 5, /code: "magic" is not one of uncoded, replication, sum, rotation/],
  ];
  for (const [options, workers, message] of wrong) {
    it(`refuses ${message.source}`, () => refused(() => resolveCode(options, workers), message));
  }
});

describe('a second worker', () => {
  it('is asked when the options say so', () => {
    assert.deepEqual(
      [undefined, 0, 12.5, 'p95' as const].map(hedge => resolveHedge(hedge === undefined ? {} : { hedge }, 2)),
      [undefined, 0, 12.5, 'p95'],
    );
    assert.deepEqual([resolveSegments({}, 1), resolveSegments({ segments: 'replicated' }, 2)], ['local', 'replicated']);
  });

  const wrong: [ModelOptions, number, RegExp][] = [
    [{ hedge: -1 }, 2, /hedge: -1 is outside the range 0 to 2147483647/],
    [{ hedge: NaN }, 2, /hedge: NaN is outside/],
    [{ hedge: 'p99' as 'p95' }, 2, /hedge: "p99" is neither a number of ms nor p95/],
    [{ hedge: 5 }, 1, /hedge: needs a second worker, and there is 1; add workers, or leave it out/],
    [{ segments: 'remote' as 'local' }, 2, /segments: "remote" is not one of local, replicated/],
    [{ segments: 'replicated' }, 1, /segments: needs a second worker, and there is 1/],
  ];
  for (const [options, workers, message] of wrong) {
    it(`is refused: ${message.source}`, () =>
      refused(() => [resolveHedge(options, workers), resolveSegments(options, workers)], message));
  }
});

describe('how replies are verified', () => {
  const code = resolveCode({}, 5);

  it('is not at all by default, and audits hold 64 MiB', () => {
    assert.deepEqual(resolveVerify({}, code), { how: 'none', maxAuditBytes: 2 ** 26 });
    const audit = { verify: 'audit', maxAuditBytes: 0 } as const;
    assert.deepEqual(resolveVerify(audit, code), { how: 'audit', maxAuditBytes: 0 });
  });

  it('is refused where it cannot be', () => {
    refused(
      () => resolveVerify({ verify: 'always' as 'none' }, code),
      /verify: "always" is not one of none, fingerprint, audit/,
    );
    refused(
      () => resolveVerify({ verify: 'audit' }, resolveCode({ parity: 0 }, 5)),
      /verify: audit .* give parity 1 or more/,
    );
    refused(() => resolveVerify({ maxAuditBytes: -1 }, code), /maxAuditBytes: -1 is outside the range 0/);
  });
});
