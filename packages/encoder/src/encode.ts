/**
 * From a layer's weights to its coded blocks. A data block is the layer's own rows; a parity block is a combination of
 * scaled rows, formed in float64 and rounded once to float32.
 *
 * Invariants
 * 1. The bias is one more column: it is scaled and combined with its row, so a parity block is a plain layer with bias.
 * 2. Scales are powers of two, so scaling and unscaling are exact.
 * 3. `block` is a function of the layer and the code alone: the same bytes on every machine, any time it is called.
 */
import { atOnce, KofnError, PART_VALUES, type Parts } from '@kofn/core';
import type { Code } from './code.js';
import { blockRange, partition, type Partition } from './partition.js';

/** The linear map to encode: output[u] = Σ weights[u,c]·input[c] + bias[u], in `groups` groups of units. */
export interface LinearMap {
  readonly units: number;
  /** Weights of one unit. */
  readonly fanIn: number;
  readonly groups: number;
  /** units × fanIn, row-major, finite. Read, never changed. */
  readonly weights: Float32Array;
  /** One value a unit, finite. */
  readonly bias?: Float32Array | undefined;
}

/** What one worker holds of a layer: `groups · blockUnits` units of `fanIn` weights. */
export interface EncodedBlock {
  readonly weights: Float32Array;
  /** Present when the layer has a bias. */
  readonly bias?: Float32Array;
}

export interface LayerEncoding {
  readonly code: Code;
  readonly partition: Partition;
  /** One power of two a unit: scale · ‖(weights, bias)‖ is in [1/√2, √2]; 1 for a zero row. Made when they are first needed. */
  readonly scales: Float64Array;
  /**
   * Coded block `index` (0 to n - 1), made anew; a data block may be a view of the layer's weights. Throws INVALID_ARGUMENT.
   */
  block(index: number): EncodedBlock;
  blockInParts(index: number): Parts<EncodedBlock>;
}

/** Throws INVALID_ARGUMENT (too few units for k blocks) or SHAPE_MISMATCH (weights or bias of another size). */
export function encodeLayer(layer: LinearMap, code: Code): LayerEncoding {
  const { units, fanIn, groups, weights, bias } = layer;
  const parts = partition({ units, groups, k: code.k, subBlocks: code.subBlocks });
  if (weights.length !== units * fanIn) {
    throw new KofnError('SHAPE_MISMATCH', `weights: ${units} x ${fanIn} values expected, got ${weights.length}`);
  }
  if (bias !== undefined && bias.length !== units) {
    throw new KofnError('SHAPE_MISMATCH', `bias: ${units} values expected, got ${bias.length}`);
  }
  let scales: Float64Array | undefined;
  function* scalesInParts(): Parts<Float64Array> {
    return (scales ??= yield* rowScales(layer));
  }
  function* blockInParts(index: number): Parts<EncodedBlock> {
    if (!Number.isInteger(index) || index < 0 || index >= code.n) {
      throw new KofnError('INVALID_ARGUMENT', `block: must be 0 to ${code.n - 1}, got ${index}`);
    }
    if (index < code.k) return dataBlock(layer, parts, index);
    return yield* parityBlock(layer, parts, yield* scalesInParts(), code, index);
  }
  return {
    code,
    partition: parts,
    get scales() {
      return atOnce(scalesInParts());
    },
    block: index => atOnce(blockInParts(index)),
    blockInParts,
  };
}

/** Exponents beyond these would leave float32's range when a row is scaled. */
const MAX_EXPONENT = 126;

/** Units of a part, each of `values` values. */
function unitsOfPart(values: number): number {
  return Math.max(1, Math.floor(PART_VALUES / values));
}

function* rowScales(layer: LinearMap): Parts<Float64Array> {
  const { units, fanIn } = layer;
  const scales = new Float64Array(units);
  const step = unitsOfPart(fanIn);
  for (let unit = 0; unit < units; unit += step) {
    scaleRows(layer, scales, unit, Math.min(units, unit + step));
    yield;
  }
  return scales;
}

/** Of the units from `first` to `end`. */
function scaleRows({ fanIn, weights, bias }: LinearMap, scales: Float64Array, first: number, end: number): void {
  for (let unit = first; unit < end; unit++) {
    let squares = bias === undefined ? 0 : bias[unit]! * bias[unit]!;
    for (let i = unit * fanIn, last = i + fanIn; i < last; i++) squares += weights[i]! * weights[i]!;
    const exponent = squares === 0 ? 0 : -Math.round(Math.log2(squares) / 2);
    scales[unit] = 2 ** Math.max(-MAX_EXPONENT, Math.min(MAX_EXPONENT, exponent));
  }
}

function dataBlock({ fanIn, weights, bias }: LinearMap, parts: Partition, block: number): EncodedBlock {
  const { groups, unitsPerGroup, blockUnits } = parts;
  const { start, end } = blockRange(parts, block);
  if (groups === 1 && end - start === blockUnits) {
    const rows = weights.subarray(start * fanIn, end * fanIn);
    return bias === undefined ? { weights: rows } : { weights: rows, bias: bias.subarray(start, end) };
  }
  const out = new Float32Array(groups * blockUnits * fanIn);
  const outBias = bias && new Float32Array(groups * blockUnits);
  for (let group = 0; group < groups; group++) {
    const from = group * unitsPerGroup + start;
    const to = group * unitsPerGroup + end;
    out.set(weights.subarray(from * fanIn, to * fanIn), group * blockUnits * fanIn);
    outBias?.set(bias!.subarray(from, to), group * blockUnits);
  }
  return outBias === undefined ? { weights: out } : { weights: out, bias: outBias };
}

function* parityBlock(
  { fanIn, weights, bias }: LinearMap,
  parts: Partition,
  scales: Float64Array,
  code: Code,
  block: number,
): Parts<EncodedBlock> {
  const { groups, unitsPerGroup, blockUnits, subBlocks } = parts;
  const partUnits = blockUnits / subBlocks;
  const step = unitsOfPart(fanIn * code.k * subBlocks);
  const out = new Float32Array(groups * blockUnits * fanIn);
  const outBias = bias && new Float32Array(groups * blockUnits);
  const sum = new Float64Array(fanIn);
  for (let group = 0; group < groups; group++) {
    for (let unit = 0; unit < blockUnits; unit++) {
      const row = block * subBlocks + Math.floor(unit / partUnits);
      const rows: number[] = [];
      const factors: number[] = [];
      for (let part = 0; part < code.k * subBlocks; part++) {
        const inGroup = part * partUnits + (unit % partUnits);
        const coefficient = code.generator.get(row, part);
        if (inGroup >= unitsPerGroup || coefficient === 0) continue; // padding is zero
        const source = group * unitsPerGroup + inGroup;
        rows.push(source);
        factors.push(coefficient * scales[source]!);
      }
      const target = group * blockUnits + unit;
      if (target % step === step - 1) yield;
      combineRows(weights, fanIn, rows, factors, sum, out.subarray(target * fanIn, (target + 1) * fanIn));
      if (outBias !== undefined) outBias[target] = rows.reduce((total, at, i) => total + factors[i]! * bias![at]!, 0);
    }
  }
  return outBias === undefined ? { weights: out } : { weights: out, bias: outBias };
}

/**
 * out = Σ factors[j] · source[rows[j]], added up in fours. The cost is memory traffic: up to eight rows, nearly all that there is,
 * are one pass that reads them side by side, and no slower than a loop that only adds; more are several, four rows each.
 */
function combineRows(
  source: Float32Array,
  width: number,
  rows: readonly number[],
  factors: readonly number[],
  sum: Float64Array,
  out: Float32Array,
): void {
  if (rows.length <= 4) return combineFour(source, width, rows, factors, out);
  if (rows.length <= 8) return combineEight(source, width, rows, factors, out);
  for (let j = 0; j < rows.length; j += 4) {
    const [f0 = 0, f1 = 0, f2 = 0, f3 = 0] = factors.slice(j, j + 4);
    const [r0 = 0, r1 = r0, r2 = r0, r3 = r0] = rows.slice(j, j + 4);
    const [a, b, c, d] = [r0 * width, r1 * width, r2 * width, r3 * width];
    const first = j === 0;
    if (j >= rows.length - 4) {
      for (let i = 0; i < width; i++) {
        const four = f0 * source[a + i]! + f1 * source[b + i]! + f2 * source[c + i]! + f3 * source[d + i]!;
        out[i] = sum[i]! + four;
      }
    } else {
      for (let i = 0; i < width; i++) {
        const four = f0 * source[a + i]! + f1 * source[b + i]! + f2 * source[c + i]! + f3 * source[d + i]!;
        sum[i] = first ? four : sum[i]! + four;
      }
    }
  }
}

function combineFour(
  source: Float32Array,
  width: number,
  [r0 = 0, r1 = r0, r2 = r0, r3 = r0]: readonly number[],
  [f0 = 0, f1 = 0, f2 = 0, f3 = 0]: readonly number[],
  out: Float32Array,
): void {
  const [a, b, c, d] = [r0 * width, r1 * width, r2 * width, r3 * width];
  for (let i = 0; i < width; i++) {
    out[i] = f0 * source[a + i]! + f1 * source[b + i]! + f2 * source[c + i]! + f3 * source[d + i]!;
  }
}

function combineEight(
  source: Float32Array,
  width: number,
  [r0 = 0, r1 = r0, r2 = r0, r3 = r0, r4 = r0, r5 = r4, r6 = r4, r7 = r4]: readonly number[],
  [f0 = 0, f1 = 0, f2 = 0, f3 = 0, f4 = 0, f5 = 0, f6 = 0, f7 = 0]: readonly number[],
  out: Float32Array,
): void {
  const [a, b, c, d] = [r0 * width, r1 * width, r2 * width, r3 * width];
  const [e, f, g, h] = [r4 * width, r5 * width, r6 * width, r7 * width];
  for (let i = 0; i < width; i++) {
    const four = f0 * source[a + i]! + f1 * source[b + i]! + f2 * source[c + i]! + f3 * source[d + i]!;
    out[i] = four + (f4 * source[e + i]! + f5 * source[f + i]! + f6 * source[g + i]! + f7 * source[h + i]!);
  }
}
