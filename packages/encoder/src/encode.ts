/**
 * From a layer's weights to its coded blocks. A data block is the layer's own rows; a parity block is a combination of
 * scaled rows, formed in float64 and rounded once to float32.
 *
 * Invariants
 * 1. The bias is one more column: it is scaled and combined with its row, so a parity block is a plain layer with bias.
 * 2. Scales are powers of two, so scaling and unscaling are exact.
 * 3. `block` is a function of the layer and the code alone: the same bytes on every machine, any time it is called.
 * 4. Of weights that are read when they are needed a data block reads its own rows alone, and no block holds more than a part beside itself.
 */
import { atOnce, joined, KofnError, PART_VALUES, type Bands, type Parts, type RowSource } from '@kofn/core';
import type { Code } from './code.js';
import { blockRange, partition, type Partition } from './partition.js';

/** The linear map to encode: output[u] = Σ weights[u,c]·input[c] + bias[u], in `groups` groups of units. */
export interface LinearMap {
  readonly units: number;
  /** Weights of one unit. */
  readonly fanIn: number;
  readonly groups: number;
  /** units × fanIn, row-major, finite. Read, never changed. */
  readonly weights: Float32Array | RowSource;
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
  /** The weights of coded block `index`, whole rows at a time; of a data block they may be views of the layer's. Throws INVALID_ARGUMENT. */
  bands(index: number): Bands;
  /** The bias of coded block `index`; undefined when the layer has none. */
  biasInParts(index: number): Parts<Float32Array | undefined>;
}

interface Source extends LinearMap {
  /** The weights, from wherever they are. */
  readonly rows: RowSource;
}

/**
 * `scales`, when the layer was encoded before, are those that it had, which saves a look at all weights. Throws INVALID_ARGUMENT (too few
 * units for k blocks) or SHAPE_MISMATCH (weights or bias of another size).
 */
export function encodeLayer(layer: LinearMap, code: Code, known: { scales?: Float64Array } = {}): LayerEncoding {
  const { units, fanIn, groups, weights, bias } = layer;
  const parts = partition({ units, groups, k: code.k, subBlocks: code.subBlocks });
  if (weights instanceof Float32Array && weights.length !== units * fanIn) {
    throw new KofnError('SHAPE_MISMATCH', `weights: ${units} x ${fanIn} values expected, got ${weights.length}`);
  }
  if (bias !== undefined && bias.length !== units) {
    throw new KofnError('SHAPE_MISMATCH', `bias: ${units} values expected, got ${bias.length}`);
  }
  const source: Source = {
    ...layer,
    rows: weights instanceof Float32Array ? rowsOf(weights, fanIn) : weights,
  };
  let { scales } = known;
  function* scalesInParts(): Parts<Float64Array> {
    return (scales ??= yield* rowScales(source));
  }
  const checked = (index: number) => {
    if (Number.isInteger(index) && index >= 0 && index < code.n) return index;
    throw new KofnError('INVALID_ARGUMENT', `block: must be 0 to ${code.n - 1}, got ${index}`);
  };
  function* bands(index: number, into?: Float32Array): Bands {
    if (checked(index) < code.k) yield* dataBands(source, parts, { block: index, into });
    else yield* parityBands(source, parts, { scales: yield* scalesInParts(), code, block: index, into });
  }
  function* biasInParts(index: number): Parts<Float32Array | undefined> {
    if (bias === undefined) return undefined;
    if (checked(index) < code.k) return dataBias(bias, parts, index);
    return parityBias(bias, parts, { scales: yield* scalesInParts(), code, block: index });
  }
  function* blockInParts(index: number): Parts<EncodedBlock> {
    const blockBias = yield* biasInParts(index);
    let rows = viewOf(layer, parts, index);
    if (rows === undefined) {
      const into = new Float32Array(groups * parts.blockUnits * fanIn);
      rows = yield* joined(bands(index, into), into);
    }
    return blockBias === undefined ? { weights: rows } : { weights: rows, bias: blockBias };
  }
  return {
    code,
    partition: parts,
    get scales() {
      return atOnce(scalesInParts());
    },
    block: index => atOnce(blockInParts(index)),
    blockInParts,
    bands: index => bands(index),
    biasInParts,
  };
}

/** Exponents beyond these would leave float32's range when a row is scaled. */
const MAX_EXPONENT = 126;

/** Units of a part, each of `values` values. */
function unitsOfPart(values: number): number {
  return Math.max(1, Math.floor(PART_VALUES / values));
}

function rowsOf(weights: Float32Array, fanIn: number): RowSource {
  return {
    // eslint-disable-next-line require-yield -- it is all there
    *read(first, end) {
      return weights.subarray(first * fanIn, end * fanIn);
    },
  };
}

function* rowScales({ units, fanIn, rows, bias }: Source): Parts<Float64Array> {
  const scales = new Float64Array(units);
  const step = unitsOfPart(fanIn);
  const scratch = new Float32Array(Math.min(step, units) * fanIn);
  for (let unit = 0; unit < units; unit += step) {
    const end = Math.min(units, unit + step);
    const read = yield* rows.read(unit, end, scratch.subarray(0, (end - unit) * fanIn));
    scaleRows(read, bias?.subarray(unit, end), scales.subarray(unit, end));
    yield;
  }
  return scales;
}

function scaleRows(weights: Float32Array, bias: Float32Array | undefined, scales: Float64Array): void {
  const fanIn = weights.length / scales.length;
  for (let unit = 0; unit < scales.length; unit++) {
    let squares = bias === undefined ? 0 : bias[unit]! * bias[unit]!;
    for (let i = unit * fanIn, last = i + fanIn; i < last; i++) squares += weights[i]! * weights[i]!;
    const exponent = squares === 0 ? 0 : -Math.round(Math.log2(squares) / 2);
    scales[unit] = 2 ** Math.max(-MAX_EXPONENT, Math.min(MAX_EXPONENT, exponent));
  }
}

/** A data block that stands in the layer's weights as it is; undefined when it does not. */
function viewOf({ weights, fanIn }: LinearMap, parts: Partition, block: number): Float32Array | undefined {
  const { start, end } = blockRange(parts, block);
  const isThere = weights instanceof Float32Array && parts.groups === 1 && end - start === parts.blockUnits;
  return isThere && block < parts.k ? weights.subarray(start * fanIn, end * fanIn) : undefined;
}

/** Where bands go: `into` one after the other, when it is given, or each to where the one before was. */
function bandsIn(into: Float32Array | undefined, mostValues: number): (values: number) => Float32Array {
  const scratch = into ?? new Float32Array(mostValues);
  let at = 0;
  return values => {
    const band = scratch.subarray(at, at + values);
    if (into !== undefined) at += values;
    return band;
  };
}

function* dataBands(
  { fanIn, rows }: Source,
  parts: Partition,
  { block, into }: { block: number; into: Float32Array | undefined },
): Bands {
  const { groups, unitsPerGroup, blockUnits } = parts;
  const { start, end } = blockRange(parts, block);
  const step = unitsOfPart(fanIn);
  const nextBand = bandsIn(into, fanIn * Math.min(step, blockUnits));
  for (let group = 0; group < groups; group++) {
    const to = group * unitsPerGroup + end;
    for (let unit = group * unitsPerGroup + start; unit < to; unit += step) {
      const last = Math.min(to, unit + step);
      yield yield* rows.read(unit, last, nextBand((last - unit) * fanIn));
    }
    for (let unit = end - start; unit < blockUnits; unit += step) {
      yield nextBand(fanIn * Math.min(step, blockUnits - unit)).fill(0); // padding
    }
  }
}

function dataBias(bias: Float32Array, parts: Partition, block: number): Float32Array {
  const { groups, unitsPerGroup, blockUnits } = parts;
  const { start, end } = blockRange(parts, block);
  if (groups === 1 && end - start === blockUnits) return bias.subarray(start, end);
  const out = new Float32Array(groups * blockUnits);
  for (let group = 0; group < groups; group++) {
    out.set(bias.subarray(group * unitsPerGroup + start, group * unitsPerGroup + end), group * blockUnits);
  }
  return out;
}

/** What a parity block is made with. */
interface Combining {
  readonly scales: Float64Array;
  readonly code: Code;
  readonly block: number;
}

/** `into`, when it is given, is where all bands go. */
function* parityBands(
  { fanIn, rows }: Source,
  parts: Partition,
  { into, ...combining }: Combining & { into: Float32Array | undefined },
): Bands {
  const { scales, code } = combining;
  const sum = new Float64Array(fanIn);
  const all = code.k * parts.subBlocks;
  const step = Math.min(unitsOfPart(fanIn * all), parts.blockUnits);
  const scratch = Array.from({ length: all }, () => new Float32Array(step * fanIn));
  const nextBand = bandsIn(into, step * fanIn);
  for (const { first, end, terms } of stretches(parts, combining, step)) {
    const sources: Float32Array[] = [];
    for (const [index, { unit, count }] of terms.entries()) {
      sources.push(yield* rows.read(unit, unit + count, scratch[index]!.subarray(0, count * fanIn)));
    }
    const band = nextBand((end - first) * fanIn);
    for (let at = 0; at < end - first; at++) {
      const own = terms.filter(({ count }) => at < count); // the first of them: what is cut short is at the end
      const factors = own.map(({ coefficient, unit }) => coefficient * scales[unit + at]!);
      const rowsOfOwn = own.length < sources.length ? sources.slice(0, own.length) : sources;
      combineRows(rowsOfOwn, at * fanIn, factors, sum, band.subarray(at * fanIn, (at + 1) * fanIn));
    }
    yield band;
  }
}

function parityBias(bias: Float32Array, parts: Partition, combining: Combining): Float32Array {
  const { scales } = combining;
  const out = new Float32Array(parts.groups * parts.blockUnits);
  for (const { first, end, terms } of stretches(parts, combining, Infinity)) {
    for (let at = 0; at < end - first; at++) {
      out[first + at] = terms
        .filter(({ count }) => at < count)
        .reduce((total, { coefficient, unit }) => total + coefficient * scales[unit + at]! * bias[unit + at]!, 0);
    }
  }
  return out;
}

/** Neighbouring units of a parity block that are made of neighbouring units of each data block. */
interface Stretch {
  readonly first: number;
  readonly end: number;
  readonly terms: readonly Term[];
}

/** What they are made of: of one data block, or half of one, `count` units from `unit` on. */
interface Term {
  readonly coefficient: number;
  readonly unit: number;
  readonly count: number;
}

/** Of at most `step` units each. */
function* stretches(parts: Partition, { code, block }: Combining, step: number): Generator<Stretch> {
  const { groups, unitsPerGroup, blockUnits, subBlocks } = parts;
  const partUnits = blockUnits / subBlocks;
  for (let first = 0, end = 0; first < groups * blockUnits; first = end) {
    const group = Math.floor(first / blockUnits);
    const inBlock = first % blockUnits;
    const inPart = inBlock % partUnits;
    end = first + Math.min(step, partUnits - inPart);
    const row = block * subBlocks + Math.floor(inBlock / partUnits);
    const terms: Term[] = [];
    for (let part = 0; part < code.k * subBlocks; part++) {
      const inGroup = part * partUnits + inPart;
      const coefficient = code.generator.get(row, part);
      const count = Math.min(end - first, unitsPerGroup - inGroup);
      if (count > 0 && coefficient !== 0) terms.push({ coefficient, unit: group * unitsPerGroup + inGroup, count });
    }
    yield { first, end, terms };
  }
}

/**
 * out = Σ factors[j] · sources[j][start …], added up in fours. The cost is memory traffic: up to eight rows, nearly all that there is,
 * are one pass that reads them side by side, and no slower than a loop that only adds; more are several, four rows each.
 */
function combineRows(
  sources: readonly Float32Array[],
  start: number,
  factors: readonly number[],
  sum: Float64Array,
  out: Float32Array,
): void {
  if (sources.length <= 4) return combineFour(sources, start, factors, out);
  if (sources.length <= 8) return combineEight(sources, start, factors, out);
  const width = out.length;
  for (let j = 0; j < sources.length; j += 4) {
    const [f0 = 0, f1 = 0, f2 = 0, f3 = 0] = factors.slice(j, j + 4);
    const [a = NONE, b = a, c = a, d = a] = sources.slice(j, j + 4);
    const first = j === 0;
    if (j >= sources.length - 4) {
      for (let i = 0, at = start; i < width; i++, at++) {
        const four = f0 * a[at]! + f1 * b[at]! + f2 * c[at]! + f3 * d[at]!;
        out[i] = sum[i]! + four;
      }
    } else {
      for (let i = 0, at = start; i < width; i++, at++) {
        const four = f0 * a[at]! + f1 * b[at]! + f2 * c[at]! + f3 * d[at]!;
        sum[i] = first ? four : sum[i]! + four;
      }
    }
  }
}

const NONE = new Float32Array();

function combineFour(
  [a = NONE, b = a, c = a, d = a]: readonly Float32Array[],
  start: number,
  [f0 = 0, f1 = 0, f2 = 0, f3 = 0]: readonly number[],
  out: Float32Array,
): void {
  if (a === NONE) return void out.fill(0); // all padding
  for (let i = 0, at = start; i < out.length; i++, at++) {
    out[i] = f0 * a[at]! + f1 * b[at]! + f2 * c[at]! + f3 * d[at]!;
  }
}

function combineEight(
  [a = NONE, b = a, c = a, d = a, e = a, f = e, g = e, h = e]: readonly Float32Array[],
  start: number,
  [f0 = 0, f1 = 0, f2 = 0, f3 = 0, f4 = 0, f5 = 0, f6 = 0, f7 = 0]: readonly number[],
  out: Float32Array,
): void {
  for (let i = 0, at = start; i < out.length; i++, at++) {
    const four = f0 * a[at]! + f1 * b[at]! + f2 * c[at]! + f3 * d[at]!;
    out[i] = four + (f4 * e[at]! + f5 * f[at]! + f6 * g[at]! + f7 * h[at]!);
  }
}
