/** One suite over every code: what `Code` promises, by enumeration for n ≤ 8 and at random beyond. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { isKofnError, seededRng, type Rng } from '@kofn/core';
import {
  CODE_NAMES,
  createCode,
  DecodePlans,
  encodeLayer,
  exactTolerance,
  ProgressiveDecoder,
  type Code,
  type LayerEncoding,
} from '@kofn/encoder';
import fc from 'fast-check';
import { Matrix, SVD } from 'ml-matrix';
import { describe, it } from 'mocha';

interface Case {
  units: number;
  fanIn: number;
  groups: number;
  batch: number;
  inner: number;
  bias: boolean;
  /** Row norms are drawn from 10^-spread to 10^spread. */
  spread: number;
}

const plain: Case = { units: 19, fanIn: 24, groups: 1, batch: 1, inner: 1, bias: true, spread: 0 };

describe('compliance of codes', () => {
  for (const name of CODE_NAMES) {
    for (let n = 1; n <= 8; n++) {
      for (const code of codesOf(name, n)) {
        it(`${name} k=${code.k} r=${code.r}: sets that determine the data decode exactly, all others fail typed`, () => {
          const problem = makeProblem(code, plain, seededRng(code.k * 10 + code.r));
          let decoded = 0;
          for (const survivors of subsets(code.n)) {
            if (survivors.length > code.k && code.n > 6) continue;
            const possible = determinesData(code, survivors);
            const mds = name !== 'replication';
            if (mds && survivors.length >= code.k) assert.ok(possible, `the oracle: ${survivors.join()} decodes`);
            if (survivors.length < code.k) assert.ok(!possible, `the oracle: ${survivors.join()} does not decode`);
            if (possible) {
              problem.check(survivors);
              decoded++;
            } else {
              problem.checkRefused(survivors);
            }
          }
          assert.ok(decoded > 0);
        });
      }
    }

    it(`${name}: the first k coded blocks are the data blocks, unchanged`, () => {
      for (const code of codesOf(name, 8)) {
        const identity = Matrix.eye(code.k * code.subBlocks);
        const top = code.generator.subMatrix(0, code.k * code.subBlocks - 1, 0, code.k * code.subBlocks - 1);
        assert.deepEqual(top.to2DArray(), identity.to2DArray());
      }
    });

    it(`${name}: any shape, padding, groups, batch, arrival order and loss pattern beyond n = 8`, () => {
      const shapes = fc.record({
        perGroup: fc.integer({ min: 12, max: 40 }),
        groups: fc.integer({ min: 1, max: 3 }),
        fanIn: fc.integer({ min: 1, max: 20 }),
        batch: fc.integer({ min: 1, max: 3 }),
        inner: fc.integer({ min: 1, max: 5 }),
        bias: fc.boolean(),
        spread: fc.constantFrom(0, 3),
        k: fc.integer({ min: 5, max: 12 }),
        r: fc.integer({ min: 1, max: 4 }),
        seed: fc.nat(),
      });
      fc.assert(
        fc.property(shapes, ({ perGroup, k, r, seed, ...shape }) => {
          const rng = seededRng(seed);
          const code = createCode(name, { k, r: parityOf(name, k, r) });
          const problem = makeProblem(code, { ...shape, units: perGroup * shape.groups }, rng);
          problem.check(someDecodableSet(code, rng));
        }),
        { numRuns: 150 },
      );
    });

    it(`${name}: rows whose norms span 10^6 stay exact, each relative to its own row`, () => {
      for (const k of [4, 8]) {
        const code = createCode(name, { k, r: parityOf(name, k, 2) });
        const rng = seededRng(k);
        const problem = makeProblem(code, { ...plain, units: 64, spread: 3 }, rng);
        for (let i = 0; i < 30; i++) problem.check(someDecodableSet(code, rng));
      }
    });

    it(`${name}: a duplicate never counts as two, a late block changes nothing, order does not matter`, () => {
      const code = createCode(name, { k: 4, r: parityOf(name, 4, 2) });
      const rng = seededRng(1);
      const problem = makeProblem(code, plain, rng);
      const set = someDecodableSet(code, rng);
      const first = problem.decoder();
      for (const [i, block] of set.entries()) {
        assert.equal(first.complete, false);
        assert.equal(first.accept(block, problem.reply(block)), true);
        const copy = first.accept(block, new Float32Array(first.blockLength));
        assert.equal(copy, false, `block ${block} again, after ${i + 1} of ${set.length}`);
      }
      assert.equal(first.complete, true);
      for (let block = 0; block < code.n; block++) {
        assert.equal(first.accept(block, new Float32Array(first.blockLength).fill(1e9)), false);
      }
      const second = problem.decoder();
      for (const block of [...set].reverse()) second.accept(block, problem.reply(block));
      assert.deepEqual(second.finish(), first.finish());
      assert.deepEqual(
        first.finish().decodeSet,
        [...set].sort((a, b) => a - b),
      );
    });

    it(`${name}: missing() names the fewest data blocks that complete the output`, () => {
      const code = createCode(name, { k: 3, r: parityOf(name, 3, 2) });
      const problem = makeProblem(code, plain, seededRng(2));
      for (const survivors of subsets(code.n)) {
        const decoder = problem.decoder();
        for (const block of survivors) decoder.accept(block, problem.reply(block));
        const missing = decoder.missing();
        assert.equal(missing.length, fewestMissing(code, survivors), `after ${survivors.join()}`);
        for (const block of missing) assert.equal(decoder.accept(block, problem.reply(block)), true);
        assert.ok(decoder.complete);
        problem.checkOutput(decoder.finish().output, 'after missing()');
      }
    });
  }

  it('rotation: coefficients equal those of an independent construction (test/golden/rotation.py)', () => {
    const file = new URL('../../golden/rotation.json', import.meta.url);
    const cases = JSON.parse(readFileSync(file, 'utf8')) as { k: number; r: number; parity: number[][][] }[];
    for (const { k, r, parity } of cases) {
      const { generator } = createCode('rotation', { k, r });
      parity.forEach((row, p) =>
        row.forEach(([re = 0, im = 0], d) => {
          const [y, x] = [2 * (k + p), 2 * d];
          for (const [got, want] of [
            [generator.get(y, x), re],
            [generator.get(y + 1, x + 1), re],
            [generator.get(y + 1, x), im],
            [generator.get(y, x + 1), -im],
          ] as const) {
            assert.ok(Math.abs(got - want) < 1e-11 * Math.max(1, Math.abs(want)), `k=${k} r=${r}: ${got} vs ${want}`);
          }
        }),
      );
    }
  });

  it('impossible codes are refused with the option, the value and the range', () => {
    const refused = (make: () => unknown, message: RegExp) =>
      assert.throws(make, error => isKofnError(error, 'INVALID_ARGUMENT') && message.test(error.message));
    refused(() => createCode('sum', { k: 4, r: 2 }), /r: the sum code has exactly 1/);
    refused(() => createCode('uncoded', { k: 4, r: 1 }), /r: an uncoded layer has no parity/);
    refused(() => createCode('replication', { k: 4, r: 2 }), /r: replication of 4 blocks takes r = 4, 8/);
    refused(() => createCode('rotation', { k: 4, r: 0 }), /r: the rotation code takes r ≥ 1/);
    refused(() => createCode('rotation', { k: 0, r: 1 }), /k: must be a whole number ≥ 1, got 0/);
    refused(() => createCode('rotation', { k: 300, r: 1 }), /at most 256 blocks, got 301/);
    refused(() => createCode('nonsense' as 'sum', { k: 2, r: 1 }), /"nonsense" is not one of/);
    refused(() => makeProblem(createCode('sum', { k: 20, r: 1 }), plain, seededRng(3)), /19 output units .* 20 blocks/);
  });
});

/** Every code of that name with n blocks and at most 4 parity blocks (replication: any number of copies). */
function codesOf(name: Code['name'], n: number): Code[] {
  const codes: Code[] = [];
  for (let k = 1; k <= n; k++) {
    const r = n - k;
    if (
      name === 'uncoded'
        ? r === 0
        : name === 'sum'
          ? r === 1
          : name === 'rotation'
            ? r >= 1 && r <= 4
            : r >= k && r % k === 0
    ) {
      codes.push(createCode(name, { k, r }));
    }
  }
  return codes;
}

function parityOf(name: Code['name'], k: number, r: number): number {
  return { uncoded: 0, replication: k, sum: 1, rotation: r }[name];
}

/** The oracle: the survivors' generator rows span all k data blocks. */
function determinesData(code: Code, survivors: readonly number[]): boolean {
  const parts = survivors.flatMap(block =>
    Array.from({ length: code.subBlocks }, (_, p) => block * code.subBlocks + p),
  );
  if (parts.length < code.k * code.subBlocks) return false;
  const columns = Array.from({ length: code.k * code.subBlocks }, (_, i) => i);
  return new SVD(code.generator.selection(parts, columns)).rank === columns.length;
}

/** The oracle for `missing`: by trying every set of data blocks. */
function fewestMissing(code: Code, survivors: readonly number[]): number {
  const sizes = subsets(code.k)
    .filter(extra => determinesData(code, [...new Set([...survivors, ...extra])]))
    .map(extra => extra.filter(block => !survivors.includes(block)).length);
  return Math.min(...sizes);
}

function subsets(n: number): number[][] {
  return Array.from({ length: 2 ** n }, (_, bits) =>
    Array.from({ length: n }, (_, i) => i).filter(i => (bits >> i) & 1),
  );
}

function someDecodableSet(code: Code, rng: Rng): number[] {
  const order = shuffled(
    Array.from({ length: code.n }, (_, block) => block),
    rng,
  );
  if (code.name !== 'replication') return order.slice(0, code.k);
  return Array.from({ length: code.k }, (_, i) => order.find(block => block % code.k === i)!);
}

function shuffled<T>(items: T[], rng: Rng): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = rng.integer(i + 1);
    [items[i], items[j]] = [items[j]!, items[i]!];
  }
  return items;
}

function makeProblem(code: Code, shape: Case, rng: Rng) {
  const { units, fanIn, groups, batch, inner, spread } = shape;
  const weights = Float32Array.from({ length: units * fanIn }, () => rng.normal());
  for (let unit = 0; unit < units; unit++) {
    const norm = 10 ** ((2 * rng.uniform() - 1) * spread);
    for (let i = 0; i < fanIn; i++) weights[unit * fanIn + i]! *= norm;
  }
  const bias = shape.bias ? Float32Array.from({ length: units }, () => rng.normal()) : undefined;
  const encoding = encodeLayer({ units, fanIn, groups, weights, bias }, code);
  // Like an unrolled convolution: each group has its own input, [batch][groups][inner] columns of fanIn values.
  const inputs = Float32Array.from({ length: batch * groups * inner * fanIn }, () => rng.normal());
  const plans = new DecodePlans(code);
  const replies = new Map<number, Float32Array>();

  function reply(block: number): Float32Array {
    let known = replies.get(block);
    if (known === undefined) {
      const { weights: w, bias: b } = encoding.block(block);
      known = Float32Array.from(apply(w, b, encoding.partition.blockUnits * groups, Math.fround));
      replies.set(block, known);
    }
    return known;
  }

  /** The layer in plain loops; `round` after every operation, as an engine of that precision does. */
  function apply(w: Float32Array, b: Float32Array | undefined, rows: number, round: (x: number) => number) {
    const out = new Float64Array(batch * rows * inner);
    const perGroup = rows / groups;
    for (let at = 0; at < out.length; at++) {
      const i = at % inner;
      const row = Math.floor(at / inner) % rows;
      const sample = Math.floor(at / (inner * rows));
      const column = ((sample * groups + Math.floor(row / perGroup)) * inner + i) * fanIn;
      let sum = 0;
      for (let c = 0; c < fanIn; c++) sum = round(sum + round(w[row * fanIn + c]! * inputs[column + c]!));
      out[at] = round(sum + (b?.[row] ?? 0));
    }
    return out;
  }

  const expected = apply(weights, bias, units, x => x);
  const tolerance = exactTolerance(code);

  function checkOutput(output: Float32Array, what: string): void {
    assert.equal(output.length, expected.length);
    for (let at = 0; at < output.length; at++) {
      const row = Math.floor(at / inner) % units;
      const sample = Math.floor(at / (inner * units));
      const column = ((sample * groups + Math.floor(row / (units / groups))) * inner + (at % inner)) * fanIn;
      const w = Math.hypot(...weights.subarray(row * fanIn, (row + 1) * fanIn), bias?.[row] ?? 0);
      const x = Math.hypot(...inputs.subarray(column, column + fanIn), 1);
      const error = Math.abs(output[at]! - expected[at]!) / (w * x);
      assert.ok(error <= tolerance, `${what}: element ${at} is off by ${error} of its row (allowed ${tolerance})`);
    }
  }

  const decoder = () => new ProgressiveDecoder({ encoding: withoutBlocks(encoding), plans, batch, inner });
  return {
    reply,
    decoder,
    checkOutput,
    check(survivors: readonly number[]): void {
      const progressive = decoder();
      for (const block of survivors) progressive.accept(block, reply(block));
      assert.ok(progressive.complete, `${survivors.join()} is enough`);
      const { output, decodeSet, recovered, errorGain, condition } = progressive.finish();
      checkOutput(output, `from ${survivors.join()}`);
      assert.equal(decodeSet.length, code.k);
      assert.ok(decodeSet.every(block => survivors.includes(block)));
      const absent = Array.from({ length: code.k }, (_, block) => block).filter(block => !decodeSet.includes(block));
      assert.deepEqual(recovered, absent);
      assert.ok(errorGain >= 1 && condition >= 1 && Number.isFinite(condition));
    },
    checkRefused(survivors: readonly number[]): void {
      const progressive = decoder();
      for (const block of survivors) progressive.accept(block, reply(block));
      assert.equal(progressive.complete, false);
      assert.throws(
        () => progressive.finish(),
        error => isKofnError(error, 'UNDECODABLE'),
      );
    },
  };
}

/** Decoding needs no weights: only this much of an encoding travels with a deployed layer. */
function withoutBlocks({ code, partition, scales }: LayerEncoding) {
  return { code, partition, scales };
}
