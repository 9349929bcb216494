/**
 * Worst float32 error of every code, relative to ‖w_row‖·‖x‖, over loss patterns of exactly r blocks.
 *   npm run bench:codes [-- --json]
 * Measured: encode, the workers' arithmetic and decode on random layers of inner dimension 4096, once with normal weights
 * and input, once with both uniform in [0, 1) (no cancellation: the most rounding); the worse counts. The workers'
 * float32 is emulated as the narrowest SIMD unit that runs shards (NEON, WebAssembly) adds: four lanes, one accumulator
 * each, no fused multiply-add. Not measured: a real engine's own order of summation, which may be kinder.
 * Exits 1 when a figure is more than twice the one that the project set out to equal.
 */
import { performance } from 'node:perf_hooks';
import { seededRng, type Rng } from '@kofn/core';
import { createCode, DecodePlans, encodeLayer, ProgressiveDecoder, ROTATION_FIGURES, type Code } from '@kofn/encoder';

const INNER = 4096;
/** Units of a data block: two rows in each half, so that every row of a decode's matrix is used. */
const BLOCK_UNITS = 4;
const BLOCKS = [1, 2, 4, 8, 16, 32];
/** Patterns beyond this many are drawn at random, the same for every run. */
const MAX_PATTERNS = 60_000;

interface Row {
  code: string;
  k: number;
  r: number;
  patterns: number;
  sampled: boolean;
  /** Worst error of a recovered row over the patterns. */
  worst: number;
  /** Worst error of a row that was not lost: the engine's own. */
  unlost: number;
  worstGain: number;
  target: number | null;
  holds: boolean | null;
}

/** Worst figures of one code for weights and inputs drawn by `draw`. */
function measure(code: Code, rng: Rng, draw: () => number): Row {
  const units = code.k * BLOCK_UNITS;
  const weights = Float32Array.from({ length: units * INNER }, draw);
  const input = Float32Array.from({ length: INNER }, draw);
  const encoding = encodeLayer({ units, fanIn: INNER, groups: 1, weights }, code);
  const replies = Array.from({ length: code.n }, (_, block) => multiply(encoding.block(block).weights, input));
  const expected = new Float64Array(units);
  const size = new Float64Array(units);
  for (let unit = 0; unit < units; unit++) {
    const row = weights.subarray(unit * INNER, (unit + 1) * INNER);
    for (let i = 0; i < INNER; i++) expected[unit]! += row[i]! * input[i]!;
    size[unit] = Math.hypot(...row) * Math.hypot(...input);
  }
  const plans = new DecodePlans(code);
  const { list, sampled } = patterns(code, rng);
  const result: Row = {
    code: code.name,
    k: code.k,
    r: code.r,
    patterns: list.length,
    sampled,
    worst: 0,
    unlost: 0,
    worstGain: 1,
    target:
      ROTATION_FIGURES.find(({ k, r }) => code.name === 'rotation' && k === code.k && r === code.r)?.figure ?? null,
    holds: null,
  };
  for (const lost of list) {
    const decoder = new ProgressiveDecoder({ encoding, plans, batch: 1, inner: 1 });
    replies.forEach((reply, block) => lost.includes(block) || decoder.accept(block, reply));
    const { output, recovered, errorGain } = decoder.finish();
    result.worstGain = Math.max(result.worstGain, errorGain);
    for (let unit = 0; unit < units; unit++) {
      const error = Math.abs(output[unit]! - expected[unit]!) / size[unit]!;
      const kind = recovered.includes(Math.floor(unit / BLOCK_UNITS)) ? 'worst' : 'unlost';
      result[kind] = Math.max(result[kind], error);
    }
  }
  if (result.target !== null) result.holds = result.worst <= 2 * result.target;
  return result;
}

/** Every set of r of the n blocks with a data block in it (only those recover anything), or a sample of them. */
function patterns(code: Code, rng: Rng): { list: number[][]; sampled: boolean } {
  const decodable = (lost: number[]) =>
    code.quorums.every(({ members, count }) => members.filter(block => !lost.includes(block)).length >= count);
  const useful = (lost: number[]) => lost.some(block => block < code.k) && decodable(lost);
  const losses = code.name === 'replication' ? Math.min(code.r, 2) : code.r;
  if (choose(code.n, losses) <= MAX_PATTERNS)
    return { list: combinations(code.n, losses).filter(useful), sampled: false };
  const list = new Map<string, number[]>();
  while (list.size < MAX_PATTERNS) {
    const lost = new Set<number>();
    while (lost.size < losses) lost.add(rng.integer(code.n));
    const sorted = [...lost].sort((a, b) => a - b);
    if (useful(sorted)) list.set(sorted.join(), sorted);
  }
  return { list: [...list.values()], sampled: true };
}

function combinations(n: number, size: number, first = 0): number[][] {
  if (size === 0) return [[]];
  const all: number[][] = [];
  for (let i = first; i <= n - size; i++) all.push(...combinations(n, size - 1, i + 1).map(rest => [i, ...rest]));
  return all;
}

function choose(n: number, size: number): number {
  return size === 0 ? 1 : (choose(n - 1, size - 1) * n) / size;
}

/** One row after another, as four-lane SIMD adds: four chains, then their sum; each operation rounded to float32. */
function multiply(weights: Float32Array, input: Float32Array): Float32Array {
  const lanes = new Float32Array(4);
  return Float32Array.from({ length: weights.length / INNER }, (_, row) => {
    lanes.fill(0);
    for (let i = 0; i < INNER; i++) lanes[i % 4]! += Math.fround(weights[row * INNER + i]! * input[i]!);
    return Math.fround(lanes[0]! + lanes[1]!) + Math.fround(lanes[2]! + lanes[3]!);
  });
}

const started = performance.now();
const rows: Row[] = [];
for (const k of BLOCKS) {
  const shapes = [['replication', k], ['sum', 1], ...[1, 2, 3, 4].map(r => ['rotation', r] as const)] as const;
  for (const [name, r] of shapes) {
    if (process.stderr.isTTY) process.stderr.write(`\r${name} k = ${k}, r = ${r} …\u001b[K`);
    const code = createCode(name, { k, r });
    const rng = seededRng(1000 * k + r);
    const normal = measure(code, rng, () => rng.normal());
    const positive = measure(code, rng, () => rng.uniform());
    rows.push(normal.worst > positive.worst ? normal : positive);
  }
}
if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
const seconds = (performance.now() - started) / 1000;
const missed = rows.filter(row => row.holds === false);

if (process.argv.includes('--json')) {
  console.log(JSON.stringify({ inner: INNER, seconds, rows }));
} else {
  const cell = (value: number) => value.toExponential(1);
  console.log('| code | k | r | loss patterns | worst recovered | unlost block | error gain | target |');
  console.log('|---|---|---|---|---|---|---|---|');
  for (const { code, k, r, patterns: count, sampled, worst, unlost, worstGain, target, holds } of rows) {
    const verdict = target === null ? '' : `${cell(target)} ${holds === true ? '✓' : '✗ (over twice)'}`;
    const how = sampled ? `${count} sampled` : `all ${count}`;
    // One data block and it is lost: nothing is left to compare with.
    const own = unlost === 0 ? '–' : cell(unlost);
    console.log(`| ${code} | ${k} | ${r} | ${how} | ${cell(worst)} | ${own} | ${worstGain.toFixed(1)} | ${verdict} |`);
  }
  console.log(`\n${rows.length} codes in ${seconds.toFixed(0)} s; ${missed.length} over twice their target`);
}
process.exitCode = missed.length > 0 ? 1 : 0;
